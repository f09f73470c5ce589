/** The real system with one of the scenarios, as `roomcast dev` starts it; everything is gone when it is stopped. */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startProxy } from './proxy.mjs';

const ROOT = resolve(import.meta.dirname, '../..');
/** Two days of history are published first: on a busy machine that takes its time. */
const READY_WITHIN_MS = 180_000;
/** Seconds between two stories: a few hundred in two days are enough to look at, and are there at once. */
const PACE = 'seconds: [500, 900]';

/** Starts it. The simulator hardly speaks, so that what moves is what a test published. `amended`: what becomes of the policy's text. */
export async function startSystem(scenario = 'bookings', more = [], amended = (policy) => policy) {
  const folder = mkdtempSync(join(tmpdir(), 'roomcast-page-'));
  const quiet = join(folder, scenario);
  cpSync(join(ROOT, 'deploy/scenarios', scenario), quiet, { recursive: true });
  const story = join(quiet, 'scenario.yaml');
  writeFileSync(story, readFileSync(story, 'utf8').replace(/seconds: \[\d+, \d+\]/, PACE));
  const policy = join(quiet, 'policy.yaml');
  writeFileSync(policy, amended(readFileSync(policy, 'utf8')));
  const args = ['dev', '--scenario', quiet, '--speed', '0.01', '--json', '--ports', 'free', '--restart', ...more];
  const env = { ROOMCAST_NATS_SERVER: join(ROOT, '.tools/bin/nats-server'), ...process.env };
  const child = spawn(join(ROOT, 'target/debug/roomcast'), args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  // Nothing is left behind, however this process ends.
  const kill = () => child.kill('SIGTERM');
  process.once('exit', kill);
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
  const line = await firstLine(child, () => said);
  const ready = JSON.parse(line);
  // While one works on the page: as it is built now, without building the gateway that has it inside.
  const built = process.env.PAGE_AS_BUILT !== undefined ? await startProxy(ready.gateways[0], join(ROOT, 'clients/dashboard/dist')) : undefined;
  const address = built?.url ?? ready.gateways[0];
  const written = Object.fromEntries(
    readFileSync(ready.dev_env, 'utf8')
      .split('\n')
      .filter((text) => text.includes('=') && !text.startsWith('#'))
      .map((text) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]),
  );
  return {
    url: ready.url.replace(ready.gateways[0], address),
    gateway: ready.gateways[0],
    /** What `.roomcast/dev.env` says. */
    env: written,
    /** Everything it said. */
    log: () => said,
    /** The page's address for somebody else; `more` as `roomcast token` takes it. */
    urlFor(user, roles, ...more) {
      const token = execFileSync(join(ROOT, 'target/debug/roomcast'), ['token', '--user', user, ...roles.flatMap((role) => ['--role', role]), '--key', ready.token_key_file, ...more], { encoding: 'utf8', env }).trim();
      return `${address}/#token=${token}`;
    },
    /** Says to a room, a role or users what a backend would. */
    async trigger(body) {
      const answer = await fetch(`${ready.ingests[0]}/v1/triggers`, { method: 'POST', headers: { authorization: `Bearer ${written.ROOMCAST_TOKEN}`, 'content-type': 'application/json' }, body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(`not taken: ${await answer.text()}`);
    },
    /** Kills a part for good; `--restart` starts it again after 200 ms. */
    kill9(part) {
      process.kill(JSON.parse(readFileSync(join(folder, '.roomcast/pids.json'), 'utf8'))[part], 'SIGKILL');
    },
    /** Stops or continues a part. */
    signal(part, name) {
      process.kill(JSON.parse(readFileSync(join(folder, '.roomcast/pids.json'), 'utf8'))[part], name);
    },
    /** Publishes an event over HTTP, a booking's unless `more` says another room; answers its position in the stream. */
    async publish(type, data, more = {}) {
      const event = { room: 'bookings', audience: 'staff', type, data, ...more };
      const answer = await fetch(`${ready.ingests[0]}/v1/events`, {
        method: 'POST',
        headers: { authorization: `Bearer ${written.ROOMCAST_TOKEN}`, 'content-type': 'application/json' },
        body: JSON.stringify(event),
      });
      const body = await answer.json();
      if (body.status !== 'stored') throw new Error(`not stored: ${JSON.stringify(body)}`);
      return { id: body.id, position: Number(body.cursor.split('.')[1]) };
    },
    /** A metric's update as the gateway answers it over HTTP. */
    async metric(name, room = 'os_dashboard') {
      const headers = { authorization: `Bearer ${written.ROOMCAST_VIEWER_TOKEN}` };
      const answer = await fetch(`${ready.gateways[0]}/v1/state?room=${room}`, { headers });
      const { state } = await answer.json();
      return state.find((event) => event.statekey === name)?.data;
    },
    async stop() {
      await built?.stop();
      process.off('exit', kill);
      kill();
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      rmSync(folder, { recursive: true, force: true });
      return child.exitCode;
    },
  };
}

function firstLine(child, said) {
  return new Promise((settle, fail) => {
    let text = '';
    const timer = setTimeout(() => fail(new Error(`not ready within ${READY_WITHIN_MS} ms:\n${said()}`)), READY_WITHIN_MS);
    child.once('exit', (code) => {
      clearTimeout(timer);
      fail(new Error(`ended with ${code}:\n${said()}`));
    });
    child.stdout.on('data', (chunk) => {
      text += chunk;
      if (!text.includes('\n')) return;
      clearTimeout(timer);
      settle(text.slice(0, text.indexOf('\n')));
    });
  });
}
