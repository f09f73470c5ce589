/** The SDK in a real browser before a real gateway: one connection for all tabs, other ways where WebSockets are not let through. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { eventually, startBrowser } from './browser.mjs';
import { startProxy } from './proxy.mjs';
import { startSystem } from './system.mjs';

/** A room in which users speak, see each other and what each of them does. */
const CHAT = '  - { room: chat, subscribe: dashboard.view, client_publish: dashboard.view, presence: dashboard.view }\nactivity: { room: chat, audience: admin }\n';
let system;
let browser;
let proxy;
let token;

before(async () => {
  [system, browser] = await Promise.all([startSystem('bookings', [], (policy) => policy.replace('publishers:', `${CHAT}publishers:`)), startBrowser()]);
  token = new URLSearchParams(new URL(system.url).hash.slice(1)).get('token');
  proxy = await startProxy(system.gateway);
});
after(async () => {
  await proxy?.stop();
  await browser?.close();
  await system?.stop();
});

const booking = (id) => ({ id, customer: 'A', country: 'TR', category: 'car', title: 'T', duration: '1', amount: 1, currency: 'TRY' });
let next = 0;
/** Publishes a booking and answers its event's id. */
async function publish() {
  next += 1;
  return (await system.publish('booking:new', booking(`sdk-${next}`), { id: `sdk-event-${next}` })).id;
}

/** A tab with a client that writes down what comes. `how`: options of the client; with `shared`, of a shared one. */
async function open(context, how = {}) {
  const page = await context.newPage();
  await page.goto(proxy.url);
  await page.evaluate(
    async ({ how, token }) => {
      const { Client, sharedClient } = await import('/sdk/index.js');
      const { shared, worker, ...options } = how;
      const given = { token, ...options };
      if (worker) given.worker = () => new SharedWorker('/sdk/worker.js', { type: 'module' });
      const client = shared ? sharedClient(given) : new Client(given);
      window.client = client;
      window.got = [];
      window.states = [];
      window.keys = new Set();
      client.onConnection(({ status, transport }) => window.states.push(`${transport} ${status}`));
      client.subscribe('bookings', { history: 1, onEvent: (event, { live }) => live && window.got.push(event.id) });
      const numbers = client.subscribe('os_dashboard', { history: 1, onState: () => (window.keys = new Set(numbers.state.keys())) });
      client.connect();
    },
    { how, token },
  );
  await eventually('live', () => page.evaluate(() => client.connection.status === 'live' && client.rooms().every(({ caughtUp }) => caughtUp) && keys.size > 0), 30_000);
  return page;
}
const got = (page) => page.evaluate(() => got);
/** Waits until a page has all of these, once each, in order. */
async function has(page, ids) {
  await eventually(`all of ${ids}`, async () => (await got(page)).length >= ids.length, 30_000).catch(() => undefined);
  assert.deepEqual(await got(page), ids);
}

for (const [name, how] of [
  ['a worker', { shared: true, worker: true }],
  ['the tab that leads', { shared: true }],
]) {
  test(`many tabs have one connection, in ${name}, and closing the first one loses nothing`, async () => {
    const context = await browser.newContext();
    const first = await open(context, how);
    const second = await open(context, how);
    const third = await open(context, how);
    await eventually('one socket', () => proxy.sockets === 1);
    const ids = [await publish(), await publish()];
    for (const page of [first, second, third]) await has(page, ids);
    const before = await second.evaluate(() => [...keys].sort());
    await first.close();
    for (let n = 0; n < 5; n += 1) ids.push(await publish());
    for (const page of [second, third]) await has(page, ids);
    await second.evaluate(() => client.close());
    ids.push(await publish());
    await has(third, ids);
    assert.deepEqual(await third.evaluate(() => [...keys].sort()), before);
    await eventually('one socket', () => proxy.sockets === 1);
    // The gateway's ends come to all tabs at once.
    proxy.cut();
    ids.push(await publish());
    await has(third, ids);
    await context.close();
    await eventually('no socket', () => proxy.sockets === 0);
  });
}

test('a worker that dies is replaced, and nothing is lost', async () => {
  const context = await browser.newContext();
  const tabs = [await open(context, { shared: true, worker: true }), await open(context, { shared: true, worker: true })];
  const ids = [await publish()];
  for (const page of tabs) await has(page, ids);
  const session = await browser.newBrowserCDPSession();
  const { targetInfos } = await session.send('Target.getTargets');
  const worker = targetInfos.filter(({ type, url }) => type === 'shared_worker' && url.startsWith(proxy.url));
  assert.equal(worker.length, 1);
  await session.send('Target.closeTarget', { targetId: worker[0].targetId });
  ids.push(await publish(), await publish());
  for (const page of tabs) await has(page, ids);
  await eventually('one socket', () => proxy.sockets === 1);
  await context.close();
  await session.detach();
});

test('tabs of different users have connections of their own', async () => {
  const context = await browser.newContext();
  const first = await open(context, { shared: true });
  const page = await context.newPage();
  await page.goto(proxy.url);
  const error = await page.evaluate(async () => {
    const { sharedClient } = await import('/sdk/index.js');
    const client = sharedClient({ token: `x.${btoa('{"sub":"somebody"}')}.x` });
    const ended = new Promise((done) => client.onConnection(({ status, error }) => status === 'closed' && done(error.code)));
    client.subscribe('bookings', { onEvent: () => (window.leaked = true) });
    client.connect();
    return ended;
  });
  assert.equal(error, 'unauthenticated');
  const id = await publish();
  await has(first, [id]);
  assert.equal(await page.evaluate(() => window.leaked), undefined);
  await context.close();
});

test('a hidden tab costs no frames but pings, and has everything when it is seen again', async () => {
  const context = await browser.newContext();
  const page = await open(context, { shared: true, worker: true });
  await page.evaluate(() => {
    window.look = (state) => {
      Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
      document.dispatchEvent(new Event('visibilitychange'));
    };
    look('hidden');
  });
  const other = await open(context, { shared: true, worker: true });
  const ids = [];
  // After ten seconds nothing comes any more.
  await eventually('nothing comes to a hidden tab', async () => {
    ids.push(await publish());
    await has(other, ids);
    await pause(500);
    return (await got(page)).length < ids.length;
  }, 60_000);
  ids.push(await publish(), await publish());
  await has(other, ids);
  const before = await got(page);
  assert.ok(before.length < ids.length - 1);
  await page.evaluate(() => look('visible'));
  await has(page, ids);
  await context.close();
});

test('where WebSockets are not let through a stream takes over, then polls, and the socket again when it works', async () => {
  proxy.state.blocksSockets = true;
  const context = await browser.newContext();
  const page = await open(context);
  assert.equal(await page.evaluate(() => client.connection.transport), 'sse');
  const ids = [await publish()];
  await has(page, ids);
  const result = await page.evaluate(() => client.request('feed', { limit: 1 }).then((body) => typeof body.counters.unread));
  assert.equal(result, 'number');
  proxy.state.blocksStreams = true;
  const polls = await open(context);
  assert.equal(await polls.evaluate(() => client.connection.transport), 'longpoll');
  ids.push(await publish());
  await has(page, ids);
  await has(polls, ids.slice(1));
  proxy.state.blocksSockets = proxy.state.blocksStreams = false;
  for (const one of [page, polls]) await eventually('the socket again', () => one.evaluate(() => client.connection.transport === 'websocket'), 90_000);
  // It was live all the time.
  assert.ok(!(await page.evaluate(() => states.slice(states.indexOf('sse live')))).some((state) => /waiting|connecting/.test(state)));
  for (let n = 0; n < 3; n += 1) ids.push(await publish());
  await has(page, ids);
  await has(polls, ids.slice(1));
  await context.close();
});

test('users publish, say what they do and see who is there without a WebSocket as with one', async () => {
  const context = await browser.newContext();
  const tokenOf = (user) => new URL(system.urlFor(user, ['admin'])).hash.slice('#token='.length);
  const people = { dan: {}, ada: {}, ben: { transports: ['longpoll'] }, cem: { transports: ['poll'] } };
  const pages = {};
  for (const [user, how] of Object.entries(people)) {
    pages[user] = await open(context, { ...how, token: tokenOf(user) });
    await pages[user].evaluate(() => {
      window.chat = [];
      client.subscribe('chat', {
        history: 0,
        onEvent: ({ type, data }) => chat.push(`${type} ${data.by ?? data.user}`),
        onPresence: ({ users }) => (window.people = users.map(({ user }) => user).sort().join()),
      });
    });
    proxy.state.blocksSockets = true;
  }
  const each = (ask) => Promise.all(Object.values(pages).map(ask));
  const transports = await each((page) => page.evaluate(() => client.connection.transport));
  assert.deepEqual(transports, ['websocket', 'sse', 'longpoll', 'poll']);
  await each((page) => eventually('everybody is seen', () => page.evaluate(() => window.people === 'ada,ben,cem,dan'), 60_000));
  const said = [];
  for (const [user, page] of Object.entries(pages)) {
    const [id, present, refused] = await page.evaluate(
      async (by) => [
        await client.publish('chat', 'chat:said', { by }, `said-${by}`),
        (await client.presence('chat')).total,
        await client.publish('bookings', 'booking:new', {}).catch(({ code }) => code),
      ],
      user,
    );
    assert.deepEqual([id, present, refused], [`said-${user}`, 4, 'forbidden']);
    await page.evaluate(() => client.activity('page', '/chat'));
    said.push(`chat:said ${user}`, `user.activity ${user}`);
  }
  await each(async (page) => {
    await eventually('all of it', async () => (await page.evaluate(() => chat.length)) >= said.length, 60_000).catch(() => undefined);
    assert.deepEqual((await page.evaluate(() => chat)).sort(), [...said].sort());
  });
  proxy.state.blocksSockets = false;
  await context.close();
});

test('commands that wait survive a reload in IndexedDB', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(proxy.url);
  const make = () =>
    page.evaluate(async () => {
      const { Client, indexedDbCommands } = await import('/sdk/index.js');
      window.client = new Client({ commands: indexedDbCommands() });
    });
  const queued = () => page.evaluate(() => client.queued().map(({ key, data }) => `${key} ${data.id}`).join());
  const stored = () =>
    page.evaluate(
      () =>
        new Promise((done) => {
          const opening = indexedDB.open('roomcast');
          opening.onsuccess = () => {
            const { result: db } = opening;
            const counting = db.objectStoreNames.contains('commands') ? db.transaction('commands').objectStore('commands').count() : undefined;
            if (counting === undefined) return done(0);
            counting.onsuccess = () => (db.close(), done(counting.result));
          };
        }),
    );
  await make();
  await page.evaluate(() => void client.command('delivery:update', { id: 1 }, { key: 'k1' }));
  await eventually('it is stored', async () => (await stored()) === 1);
  await page.reload();
  await make();
  await eventually('it waits again', async () => (await queued()) === 'k1 1');
  await context.close();
});
