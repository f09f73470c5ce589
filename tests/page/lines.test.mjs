/** Bad lines, bad machines, bad input: the page against the real system while something is wrong. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventually, face, goTo, NO_WORKER, openPage, row, rows, startBrowser } from './browser.mjs';
import { startSystem } from './system.mjs';

let system;
let browser;
/** A page whose token ends while the other tests run: nobody waits for that. */
let short;
let number = 0;

before(async () => {
  browser = await startBrowser();
  system = await startSystem();
  short = await openPage(browser, system.urlFor('short', ['admin'], '--ttl', '30s'));
  await short.evaluate(() => {
    Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
});
after(async () => {
  await browser?.close();
  await system?.stop();
});

function booking(more = {}) {
  number += 1;
  return { id: `line-${number}`, customer: 'Ada Yıldız', country: 'TR', category: 'tour', title: 'Balloon flight', duration: '3 hours', amount: 4250.5, currency: 'TRY', ...more };
}

/** Publishes one and waits until it is there, once. */
async function arrives(page, within = 30_000) {
  const data = booking();
  await system.publish('booking:new', data);
  await row(page, data.id).waitFor({ timeout: within });
  assert.equal(await row(page, data.id).count(), 1);
  return data;
}

/** Closes all announcements, as a reader does with so many. */
async function nothingAnnounced(page) {
  await page.getByRole('button', { name: 'Close all' }).click();
  await page.getByTestId('toast').first().waitFor({ state: 'detached' });
}

/** An event frame that no gateway sent. */
const frame = (id, type, data) => JSON.stringify({ event: { room: 'bookings', event: { specversion: '1.0', id, source: 'test', type, time: new Date().toISOString(), room: 'bookings', audience: 'staff', data } } });

/** The gateway's sockets with a hand in between: `say` adds a message of the server's. */
function between() {
  const hand = { say: () => undefined };
  return {
    hand,
    prepare: (page) =>
      page.routeWebSocket(/\/v1\/ws/, (socket) => {
        socket.connectToServer();
        hand.say = (text) => socket.send(text);
      }),
  };
}

/** Looks at the seconds of processor that the page's main thread has used, how often it laid out, and the bytes its objects take. */
async function watch(page) {
  const session = await page.context().newCDPSession(page);
  // Time of the processor, not of the clock on the wall: another program's work is not the page's.
  await session.send('Performance.enable', { timeDomain: 'threadTicks' });
  return async ({ collect = true } = {}) => {
    if (collect) await session.send('HeapProfiler.collectGarbage');
    const { metrics } = await session.send('Performance.getMetrics');
    const of = (name) => metrics.find((metric) => metric.name === name)?.value ?? 0;
    return { tasks: of('TaskDuration'), layouts: of('LayoutCount'), heap: of('JSHeapUsedSize'), at: Date.now() };
  };
}

test('without WebSocket the page falls back to a stream, without streams to asking, and misses nothing', async () => {
  const NO_SOCKET = 'window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.({ code: 1006, reason: "" }), 0); } close() {} send() {} };';
  const stream = await openPage(browser, system.url, { scripts: [NO_WORKER, NO_SOCKET] });
  assert.match(await stream.getByTestId('badge').innerText(), /stream/i);
  await arrives(stream);
  await stream.context().close();
  const asking = await openPage(browser, system.url, { scripts: [NO_WORKER, NO_SOCKET], shows: 'polling', prepare: (page) => page.route(/\/v1\/sse/, (route) => route.fulfill({ status: 200, contentType: 'text/html', body: 'a proxy that knows no streams' })) });
  await asking.locator('[data-testid=banner][data-banner=polling]').waitFor();
  await arrives(asking);
  await asking.context().close();
});

test('a network that was cut is back within a second of its return, and nothing was missed', async () => {
  const page = await openPage(browser, system.url);
  await page.context().setOffline(true);
  await page.evaluate(() => window.dispatchEvent(new Event('offline')));
  system.kill9('gateway-1');
  await face(page, 'offline');
  const missed = booking();
  await system.publish('booking:new', missed);
  assert.equal(await row(page, missed.id).count(), 0);
  await eventually('the gateway is there again', () => fetch(`${system.gateway}/page.json`).then((answer) => answer.ok, () => false));
  const back = Date.now();
  await page.context().setOffline(false);
  await face(page, 'live', 30_000);
  console.log(`    live again ${Date.now() - back} ms after the network returned`);
  await row(page, missed.id).waitFor();
  await page.context().close();
});

test('a frozen page catches up when it wakes, without a double', async () => {
  const page = await openPage(browser, system.url);
  const session = await page.context().newCDPSession(page);
  await session.send('Page.setWebLifecycleState', { state: 'frozen' });
  const missed = [booking(), booking()];
  for (const data of missed) await system.publish('booking:new', data);
  await session.send('Page.setWebLifecycleState', { state: 'active' });
  for (const data of missed) {
    await row(page, data.id).waitFor();
    assert.equal(await row(page, data.id).count(), 1);
  }
  await page.context().close();
});

test('a clock that is wrong by an hour keeps nothing back, and the diagnosis says so', async () => {
  const page = await openPage(browser, system.url, { scripts: [NO_WORKER, '{ const now = Date.now; Date.now = () => now() - 3600000; }'] });
  await arrives(page);
  assert.doesNotMatch(await page.locator('[data-testid=row]').first().innerText(), /hr/, 'ages are by the server’s clock');
  await goTo(page, 'connection');
  await page.getByTestId('findings').getByText(/60 min slow/).waitFor();
  await page.context().close();
});

test('a diagnosis names what is wrong, room by room, and its text has no secret', async () => {
  const page = await openPage(browser, system.urlFor('nobody', ['user']));
  await goTo(page, 'connection');
  await page.getByTestId('findings').getByText(/refused: .*bookings/).waitFor();
  await page.locator('[data-testid=rooms] [data-room=bookings][data-state=refused]').waitFor();
  const token = await page.evaluate(() => sessionStorage.getItem('roomcast.token'));
  assert.equal((await page.locator('main').innerText()).includes(token.slice(-20)), false);
  await goTo(page, 'bookings');
  await page.getByTestId('forbidden').waitFor();
  await page.context().close();
});

test('storage that is blocked is done without', async () => {
  const BLOCKED = "for (const name of ['localStorage', 'sessionStorage', 'indexedDB']) Object.defineProperty(window, name, { get() { throw new DOMException('blocked', 'SecurityError'); } });";
  const page = await openPage(browser, system.url, { scripts: [BLOCKED] });
  await arrives(page);
  await page.getByTestId('menu').click();
  await page.getByText('Dark', { exact: true }).click();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test('malformed and unknown messages are counted, and break nothing', async () => {
  const { hand, prepare } = between();
  const page = await openPage(browser, system.url, { scripts: [NO_WORKER], prepare });
  const events = [['a', 'booking:new', null], ['b', 'booking:new', { id: {} }], ['c', 'booking:new', { id: 'odd', amount: { a: 1 }, title: 7, currency: '??' }], ['d', '__proto__', { id: 1 }]];
  // Nonsense, and what a newer server may say.
  const odd = ['', 'not JSON', '[]', '{}', '{"later":{"x":1}}', '{"event":7}', '{"event":{"room":"bookings"}}', '{"caughtUp":{}}', '{"id":99999,"result":{"data":1}}', '{"status":{"status":"dreaming"}}', '{"roles":{"roles":[1,null]}}'];
  const newer = ['{"counters":{"version":"x"}}', '{"preferences":{"version":null,"preferences":{"mute":7,"quiet":[]}}}', '{"presence":{"room":"bookings","users":[{"user":7}],"total":"many"}}', '{"thinned":{"state":-1}}', '{"unsubscribed":{"room":"elsewhere","why":{}}}', '{"connected":[]}', '[{"event":{}}]'];
  for (const text of [...odd, ...newer, ...events.map(([id, type, data]) => frame(id, type, data))]) hand.say(text);
  await row(page, 'odd').waitFor();
  await goTo(page, 'connection');
  await page.getByTestId('findings').getByText(/could not be read/).waitFor();
  await goTo(page, 'bookings');
  await arrives(page);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test('ten thousand rows stay smooth, a toast fits into a frame, memory stays flat, an idle page rests', async () => {
  // Told by the page's own socket, a thousand at once: a message through the test's hand takes longer than the page takes for it.
  const SOCKET = 'window.WebSocket = class extends WebSocket { constructor(...all) { super(...all); window.socket = this; } };';
  const page = await openPage(browser, system.url, { scripts: [NO_WORKER, SOCKET] });
  const figures = await watch(page);
  const pour = async (from, count, pause = false) => {
    for (let at = from; at < from + count; at += 1_000) {
      const end = Math.min(at + 1_000, from + count);
      const texts = [];
      for (let n = at; n < end; n += 1) texts.push(frame(`p${n}`, 'booking:new', { id: `pour-${n}`, customer: 'Ada Yıldız', country: 'TR', category: 'tour', title: 'Balloon flight', amount: n, currency: 'TRY' }));
      await page.evaluate(
        async ({ texts, pause }) => {
          for (const data of texts) {
            window.socket.dispatchEvent(new MessageEvent('message', { data }));
            if (pause) await new Promise(requestAnimationFrame);
          }
        },
        { texts, pause },
      );
      await row(page, `pour-${end - 1}`).waitFor();
    }
  };
  await pour(0, 10_000);
  const all = Number(await page.getByTestId('entries').getAttribute('aria-rowcount')) - 1;
  assert.equal(all, 10_000);
  assert.ok((await rows(page)).length < 120, 'only what is on the screen is in the document');
  const full = await figures();
  // As a wheel does it, and then from one end to the other: each step has nothing in common with the one before.
  const scroll = (steps, far) =>
    page.evaluate(
      async ({ steps, far }) => {
        let most = 0;
        for (let step = 1; step <= steps; step += 1) {
          scrollTo(0, far === undefined ? (document.documentElement.scrollHeight / steps) * step : far * step);
          await new Promise(requestAnimationFrame);
          most = Math.max(most, document.querySelectorAll('[data-testid=row]').length);
        }
        scrollTo(0, 0);
        return most;
      },
      { steps, far },
    );
  const still = await figures({ collect: false });
  const most = await scroll(100, 120);
  const wheeled = await figures({ collect: false });
  assert.ok(most < 60, `${most} rows in the document while scrolling`);
  assert.ok((await scroll(50)) < 60);
  const jumped = await figures({ collect: false });
  await pour(10_000, 2_000);
  const twice = await figures();
  await nothingAnnounced(page);
  const begun = await figures({ collect: false });
  await pour(12_000, 20, true);
  const told = await figures({ collect: false });
  await nothingAnnounced(page);
  const calm = await figures();
  const asked = [];
  page.on('request', (request) => asked.push(request.url()));
  await new Promise((resolve) => setTimeout(resolve, 6_000));
  const rested = await figures({ collect: false });
  const mib = (bytes) => (bytes / 1_048_576).toFixed(1);
  const ms = (from, to, count) => ((to.tasks - from.tasks) / count) * 1_000;
  const work = { wheel: ms(still, wheeled, 100), jump: ms(wheeled, jumped, 50), toast: ms(begun, told, 20), idle: ms(calm, rested, ((rested.at - calm.at) / 60_000) * 1_000) };
  console.log(
    `    10,000 rows, work of the main thread: a step of the wheel ${work.wheel.toFixed(1)} ms, a jump ${work.jump.toFixed(1)} ms; an event with its row and toast ${work.toast.toFixed(1)} ms; ${work.idle.toFixed(2)} s per idle minute; heap ${mib(full.heap)} MiB after 10,000 events, ${mib(twice.heap)} MiB after 12,000`,
  );
  // Several times what a quiet machine needs: these find what grows with the rows, not a slow machine.
  assert.ok(work.wheel < 60 && work.jump < 120 && work.toast < 150 && work.idle < 2, JSON.stringify(work));
  // A page that polls every six seconds asks for four numbers and a list: here nothing is asked.
  assert.deepEqual(asked, []);
  assert.ok(rested.layouts - calm.layouts < 60, `${rested.layouts - calm.layouts} layouts while nothing happens`);
  assert.ok(twice.heap < full.heap * 1.35 + 4 * 1_048_576, 'memory does not grow with what has passed');
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test('an hour at twenty events a second leaves the memory of the page flat, and a hundred a second its frames', async () => {
  const SOCKET = 'window.WebSocket = class extends WebSocket { constructor(...all) { super(...all); window.socket = this; } };';
  const page = await openPage(browser, system.url, { scripts: [NO_WORKER, SOCKET] });
  const figures = await watch(page);
  // Made in the page itself: what the test would send costs more than what the page does with it.
  const pour = (from, count, portion) =>
    page.evaluate(
      async ({ from, count, portion }) => {
        const began = performance.now();
        let frames = 0;
        for (let n = from; n < from + count; n += 1) {
          const data = { id: `hour-${n}`, customer: 'Ada Yıldız', country: 'TR', category: 'tour', title: 'Balloon flight', amount: n, currency: 'TRY' };
          const event = { specversion: '1.0', id: `h${n}`, source: 'test', type: 'booking:new', time: new Date().toISOString(), room: 'bookings', audience: 'staff', data };
          window.socket.dispatchEvent(new MessageEvent('message', { data: JSON.stringify({ event: { room: 'bookings', event } }) }));
          if (n % portion !== portion - 1) continue;
          frames += 1;
          await new Promise(requestAnimationFrame);
        }
        return { frames, ms: performance.now() - began };
      },
      { from, count, portion },
    );
  await pour(0, 12_000, 1_000);
  const full = await figures();
  await pour(12_000, 60_000, 1_000);
  const hour = await figures();
  // A hundred a second is five in three frames. A second of them says what a minute would.
  const begun = await figures({ collect: false });
  const { frames } = await pour(72_000, 120, 2);
  const busy = await figures({ collect: false });
  const frame = ((busy.tasks - begun.tasks) / frames) * 1_000;
  const mib = (bytes) => (bytes / 1_048_576).toFixed(1);
  console.log(`    heap ${mib(full.heap)} MiB after 12,000 events, ${mib(hour.heap)} MiB after 72,000: an hour at 20 a second; at 120 events a second ${frame.toFixed(1)} ms of the main thread a frame`);
  assert.ok(hour.heap < full.heap * 1.2 + 2 * 1_048_576, 'memory does not grow with what has passed');
  // Several times what a quiet machine needs.
  assert.ok(frame < 100, `${frame} ms`);
  await page.context().close();
});

test('without a gateway it tries on and on, and offers to try at once after five attempts', async () => {
  const AWAY = `
    window.away = false;
    const { WebSocket: Socket, fetch: ask } = window;
    const Gone = class { constructor() { setTimeout(() => this.onclose?.({ code: 1006, reason: '' }), 0); } close() {} send() {} };
    window.WebSocket = function (...all) { return window.away ? new Gone() : new Socket(...all); };
    window.fetch = (...all) => (window.away ? Promise.reject(new TypeError('away')) : ask(...all));`;
  const page = await openPage(browser, system.url, { scripts: [NO_WORKER, AWAY] });
  const retry = page.getByTestId('retry-now');
  assert.equal(await retry.count(), 0);
  // Waits are random up to a bound that doubles; chance says little at first.
  await page.evaluate(() => {
    window.away = true;
    Math.random = () => 0.001;
  });
  system.kill9('gateway-1');
  await retry.waitFor({ timeout: 60_000 });
  // Now the waits are long, and the button stands still.
  await page.evaluate(() => (Math.random = () => 0.999));
  await page.locator('[data-testid=badge][data-status=waiting]').getByText(/in \d\d s/).waitFor();
  assert.equal(await page.getByTestId('badge').getAttribute('data-face'), 'connecting');
  // Numbers and rows stay where they are.
  await page.locator('[data-testid=card][data-state=live]').first().waitFor();
  assert.ok((await rows(page)).length > 0);
  await page.evaluate(() => (window.away = false));
  await retry.click();
  await face(page, 'live', 30_000);
  await arrives(page);
  await page.context().close();
});

test('a slow line shows the numbers all the same', async () => {
  const slow = async (page) => {
    const session = await page.context().newCDPSession(page);
    await session.send('Network.enable');
    await session.send('Network.emulateNetworkConditions', { offline: false, latency: 400, downloadThroughput: 102_400, uploadThroughput: 102_400 });
  };
  const page = await openPage(browser, system.url, { scripts: [NO_WORKER], prepare: slow }).catch((error) => error);
  assert.ok(!(page instanceof Error), String(page));
  await page.locator('[data-testid=card][data-state=live]').first().waitFor({ timeout: 60_000 });
  await arrives(page);
  await page.context().close();
});

test('a sign-in that ends while nobody looks is asked for again, and nothing is missed', async () => {
  const page = short;
  const banner = page.locator('[data-testid=banner][data-banner=expired], [data-testid=sign-in]');
  await banner.waitFor({ timeout: 120_000 });
  const missed = booking();
  await system.publish('booking:new', missed);
  await page.evaluate(() => {
    delete document.visibilityState;
    document.dispatchEvent(new Event('visibilitychange'));
  });
  await banner.getByLabel('Token').fill(system.urlFor('short', ['admin']));
  await banner.getByRole('button', { name: 'Sign in' }).click();
  await face(page, 'live');
  await row(page, missed.id).waitFor();
  await page.context().close();
});
