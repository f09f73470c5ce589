/**
 * The demo, as a visitor meets it: starts it as `make demo` does, opens the page signed in, publishes one event and sees it arrive, reads
 * the number of a card, and ends it as Ctrl-C does. `node smoke.mjs [SCENARIO…]`: all of them where none is named. Exit code 1 where
 * anything is not as it must be. With ROOMCAST_CHROMIUM the page is opened in that browser, else its files are only fetched.
 */

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const ROOT = resolve(import.meta.dirname, '../..');
const SCENARIOS = join(ROOT, 'deploy/scenarios');
/** Two days of history come first: seconds, but on a busy machine minutes. */
const READY_WITHIN_MS = 300_000;
const SEEN_WITHIN_MS = 60_000;
/** The drain of the services, and more. */
const ENDED_WITHIN_MS = 90_000;
/** Of a room's past, as far back as an example is looked for. */
const LOOK_BACK_EVENTS = 100;

function must(holds, what) {
  if (!holds) throw new Error(what);
}

async function eventually(what, ask) {
  const end = Date.now() + SEEN_WITHIN_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    must(Date.now() < end, `after ${SEEN_WITHIN_MS} ms still not: ${what}`);
    await pause(250);
  }
}

/** Starts it in an empty folder. */
async function start(scenario) {
  const folder = mkdtempSync(join(tmpdir(), 'roomcast-smoke-'));
  const args = ['dev', '--scenario', join(SCENARIOS, scenario), '--ports', 'free', '--json'];
  const child = spawn(join(ROOT, 'target/debug/roomcast'), args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = [];
  createInterface({ input: child.stderr }).on('line', (line) => said.push(line));
  // It ends what it started, in order, also when nobody waits for it.
  const kill = () => child.kill('SIGTERM');
  process.once('exit', kill);
  const ended = once(child, 'exit').then(([code]) => (process.off('exit', kill), code));
  const first = once(createInterface({ input: child.stdout }), 'line').then(([line]) => line);
  const slow = pause(READY_WITHIN_MS, undefined, { ref: false }).then(() => `not ready within ${READY_WITHIN_MS} ms`);
  const line = await Promise.race([first, slow, ended.then((code) => `ended with ${code}`)]);
  const system = { folder, child, said, ended };
  if (!line.startsWith('{')) {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
    throw new Error([line, ...said.slice(-20)].join('\n'));
  }
  return { ...system, ready: JSON.parse(line) };
}

/** Asks it to end once, as Ctrl-C does: no process, no address file and no temporary folder is left. */
async function end({ folder, child, ended, ready }) {
  child.kill('SIGINT');
  const code = await Promise.race([ended, pause(ENDED_WITHIN_MS, 'nothing', { ref: false })]);
  const alive = Object.entries(ready.pids).filter(([, pid]) => existsSync(`/proc/${pid}`));
  const left = existsSync(join(folder, '.roomcast')) ? readdirSync(join(folder, '.roomcast')) : [];
  const state = existsSync(ready.dir);
  child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
  must(code === 0, `ended with ${code}`);
  must(alive.length === 0, `still there: ${alive.map(([name]) => name).join(', ')}`);
  must(left.length === 0 && !state, `left behind: ${[...left, ...(state ? [ready.dir] : [])].join(', ')}`);
}

/** The page is served whole, and knows its business. */
async function page(gateway) {
  const html = await (await fetch(gateway)).text();
  const files = [...html.matchAll(/(?:src|href)="([^"#]+\.(?:js|css))"/g)].map(([, file]) => new URL(file, gateway));
  must(files.length > 0, 'the page names no files');
  for (const file of files) must((await fetch(file)).ok, `${file}: not there`);
  return (await fetch(new URL('/page.json', gateway))).json();
}

/** An event such as a list of the page shows, made of one that is there. */
async function example(ask, config) {
  const lists = config.views.flatMap((view) => view.lists ?? []);
  for (const list of lists)
    for (const room of list.rooms.filter((name) => !name.includes('{'))) {
      const answer = await ask(`/v1/rooms/${room}/events?limit=${LOOK_BACK_EVENTS}`);
      const { events = [] } = answer.ok ? await answer.json() : {};
      const like = events.map(({ event, ...bare }) => event ?? bare).findLast((event) => list.types.includes(event.type));
      if (like) return { id: `smoke-${randomUUID()}`, room, audience: like.audience, type: like.type, data: like.data };
    }
  throw new Error('no list of the page has an event');
}

/** Follows a room as a page without sockets does, and answers what asks whether an event has come. */
async function follow(gateway, room, authorization) {
  const stop = new AbortController();
  const answer = await fetch(`${gateway}/v1/sse?room=${room}`, { headers: { authorization }, signal: stop.signal });
  must(answer.ok, `not signed in: ${answer.status} ${answer.ok ? '' : await answer.text()}`);
  let heard = '';
  const reading = (async () => {
    for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) heard += chunk;
  })().catch(() => undefined);
  await eventually('connected', () => heard.includes('"connected"'));
  return { has: (id) => heard.includes(`"id":"${id}"`), close: () => (stop.abort(), reading) };
}

/** In a real browser: signed in, live, and each card of the first view that has some with a number, as people read it. */
async function look(url) {
  const { startBrowser, openPage, cards } = await import('./browser.mjs');
  const browser = await startBrowser();
  try {
    const opened = await openPage(browser, url);
    must(!new URL(opened.url()).hash.includes('token'), 'the address keeps the token');
    const shown = await eventually('a card shows a number', async () => {
      const texts = await opened.getByTestId('card-value').allTextContents();
      return texts.find((text) => /\d/.test(text));
    });
    must(Object.keys(await cards(opened)).length > 0, 'no cards');
    must(opened.complaints.length === 0, `the page complains: ${opened.complaints.join(', ')}`);
    return shown;
  } finally {
    await browser.close();
  }
}

async function smoke(scenario) {
  const began = Date.now();
  const system = await start(scenario);
  const { ready } = system;
  try {
    const [gateway, ingest] = [ready.gateways[0], ready.ingests[0]];
    const env = Object.fromEntries(readFileSync(ready.dev_env, 'utf8').split('\n').filter((line) => /^[A-Z]/.test(line)).map((line) => line.split(/=(.*)/s).slice(0, 2)));
    const authorization = `Bearer ${new URL(ready.url).hash.replace('#token=', '')}`;
    const ask = (path) => fetch(gateway + path, { headers: { authorization } });
    const config = await page(gateway);
    const event = await eventually('an event to be like', () => example(ask, config).catch(() => undefined));
    const following = await follow(gateway, event.room, authorization);
    const posted = await fetch(`${ingest}/v1/events`, {
      method: 'POST',
      headers: { authorization: `Bearer ${env.ROOMCAST_TOKEN}`, 'content-type': 'application/json' },
      body: JSON.stringify(event),
    });
    const answer = await posted.json();
    must(answer.status === 'stored', `not stored: ${JSON.stringify(answer)}`);
    await eventually('the event arrives', () => following.has(event.id));
    await following.close();
    const { metric: card, room = config.metrics } = config.views.find((view) => view.cards?.length > 0).cards[0];
    const number = await eventually(`a number of ${card}`, async () => {
      const { state } = await (await ask(`/v1/state?room=${room}`)).json();
      return state.find((value) => value.statekey === card)?.data.value;
    });
    must(/^-?[\d.]+$/.test(number), `${card} is ${number}`);
    const browser = process.env.ROOMCAST_CHROMIUM ? `, in Chromium ${await look(ready.url)}` : '';
    await end(system);
    console.log(`${scenario}: the page, signed in; ${event.type} in ${event.room} arrived; ${card} is ${number}${browser}; ended clean, after ${((Date.now() - began) / 1000).toFixed(0)} s`);
  } catch (error) {
    await end(system).catch(() => undefined);
    throw new Error(`${error.message}\n${system.said.slice(-20).join('\n')}`);
  }
}

const named = process.argv.slice(2);
const scenarios = named.length > 0 ? named : readdirSync(SCENARIOS).sort();
for (const scenario of scenarios) {
  try {
    await smoke(scenario);
  } catch (error) {
    console.error(`${scenario}: ${error.message}`);
    process.exitCode = 1;
  }
}
