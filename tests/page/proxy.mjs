/** A way to the gateway that tests can see and cut: the SDK's files and a bare page beside it, everything else is the gateway's. */

import { createReadStream, existsSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { join, normalize } from 'node:path';

const SDK = join(import.meta.dirname, '../../clients/js/dist');
const PAGE = '<!doctype html><meta charset="utf-8"><title>SDK</title>';

const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css' };

/** Starts it before a gateway. `page`: a folder with a page of its own; what is not in it is the gateway's. */
export async function startProxy(gateway, page) {
  const target = new URL(gateway);
  const sockets = new Set();
  const state = { blocksSockets: false, blocksStreams: false, opened: 0 };
  const server = createServer((ask, answer) => {
    const path = new URL(ask.url, 'http://proxy').pathname;
    if (page !== undefined && !path.startsWith('/v1/')) {
      const file = join(page, normalize(path === '/' ? '/index.html' : path));
      if (existsSync(file)) {
        answer.setHeader('content-type', TYPES[file.split('.').at(-1)] ?? 'application/octet-stream');
        return void createReadStream(file).pipe(answer);
      }
    } else if (path === '/') return void answer.setHeader('content-type', 'text/html').end(PAGE);
    if (path.startsWith('/sdk/')) {
      const file = join(SDK, normalize(path.slice(5)));
      if (!file.startsWith(SDK) || !existsSync(file)) return void answer.writeHead(404).end();
      answer.setHeader('content-type', 'text/javascript');
      return void createReadStream(file).pipe(answer);
    }
    // As a proxy does that knows no streams.
    if (path === '/v1/sse' && state.blocksStreams) return void answer.writeHead(502, { 'content-type': 'text/html' }).end('<p>no');
    const headers = { ...ask.headers, host: target.host };
    delete headers.origin;
    const on = request({ host: target.hostname, port: target.port, path: ask.url, method: ask.method, headers }, (from) => {
      answer.writeHead(from.statusCode, from.headers);
      from.pipe(answer);
    });
    on.on('error', () => answer.destroy());
    answer.on('close', () => on.destroy());
    ask.pipe(on);
  });
  server.on('upgrade', (ask, client, head) => {
    client.on('error', () => undefined);
    if (state.blocksSockets) return void client.destroy();
    state.opened += 1;
    const on = connect(Number(target.port), target.hostname, () => {
      const lines = [`${ask.method} ${ask.url} HTTP/1.1`];
      for (let n = 0; n < ask.rawHeaders.length; n += 2) {
        const name = ask.rawHeaders[n].toLowerCase();
        if (name === 'origin') continue;
        lines.push(`${name}: ${name === 'host' ? target.host : ask.rawHeaders[n + 1]}`);
      }
      on.write(`${lines.join('\r\n')}\r\n\r\n`);
      on.write(head);
      client.pipe(on).pipe(client);
    });
    const pairs = { client, on };
    sockets.add(pairs);
    const done = () => {
      sockets.delete(pairs);
      client.destroy();
      on.destroy();
    };
    on.on('error', done).on('close', done);
    client.on('close', done);
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    state,
    /** WebSockets that are open now. */
    get sockets() {
      return sockets.size;
    },
    /** Cuts every socket, as a network does. */
    cut() {
      for (const { client } of sockets) client.destroy();
    },
    stop() {
      this.cut();
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}
