/** The page in a real browser, against the real system: one story, told in order. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { cards, eventually, face, NO_WORKER, openPage, row, rows, startBrowser, violations } from './browser.mjs';
import { takePictures } from './pictures.mjs';
import { startSystem } from './system.mjs';

const METRICS = ['revenue', 'bookings', 'customers', 'conversion'];

let system;
let browser;
/** The page that stays open through the whole story. */
let page;
/** A number that no other booking of this run has. */
let number = 0;

before(async () => {
  browser = await startBrowser();
  system = await startSystem();
});

after(async () => {
  await browser?.close();
  const code = await system?.stop();
  assert.ok(code === 0 || code === undefined, `roomcast dev ended with ${code}:\n${system?.log().slice(-4_000)}`);
});

/** A booking that reads like one. */
function booking(more = {}) {
  number += 1;
  return {
    id: `test-${String(number).padStart(4, '0')}`,
    customer: 'Ada Yıldız',
    country: 'TR',
    category: 'tour',
    title: 'Balloon flight over Cappadocia',
    duration: '3 hours',
    amount: 4250.5,
    currency: 'TRY',
    ...more,
  };
}

/** Every id of a row is there once. */
async function nothingTwice(on) {
  const ids = (await rows(on)).map((text) => text.split(' ')[0]);
  assert.deepEqual(ids.filter((id, index) => ids.indexOf(id) !== index), [], 'rows that are there twice');
}

test('opens already signed in, and the address keeps no token', async () => {
  const asked = Date.now();
  page = await openPage(browser, system.url);
  console.log(`    live ${Date.now() - asked} ms after the address was opened, the browser's own start of a page included`);
  assert.ok(system.url.includes('#token='));
  assert.equal(new URL(page.url()).hash, '');
  assert.equal(await page.evaluate(() => document.body.innerText.includes('Sign in')), false);
});

test('four cards show value, change and trend at once', async () => {
  for (const metric of METRICS) {
    const card = page.locator(`[data-testid=card][data-metric=${metric}]`);
    await card.and(page.locator('[data-state=live]')).waitFor({ timeout: 20_000 });
    assert.match(await card.locator('[data-testid=card-value]').innerText(), /\d/, metric);
    assert.match(await card.locator('.change').innerText(), /\d/, `${metric} has a change`);
    assert.ok((await card.locator('.sparkline path, .sparkline polyline').count()) > 0, `${metric} has a sparkline`);
    assert.equal((await cards(page))[metric], (await system.metric(metric)).value, `${metric} is what the gateway says`);
  }
  assert.ok((await rows(page)).length >= 20, 'the history is there');
  await nothingTwice(page);
});

// Before the list is full of what only tests would book.
test('pictures for people', async () => {
  await takePictures(browser, system, booking);
});

test('a booking that is published appears, is announced, and the cards move', async () => {
  const data = booking();
  const sent = Date.now();
  const { position } = await system.publish('booking:new', data);
  await row(page, data.id).waitFor();
  const seen = Date.now() - sent;
  const toast = page.locator('[data-testid=toast]', { hasText: data.customer });
  await toast.first().waitFor();
  const shown = Date.now();
  assert.equal(await row(page, data.id).getAttribute('data-mark'), 'booking:new');
  assert.equal((await rows(page))[0], `${data.id} booking:new`, 'the newest is on top');
  await eventually('the number has taken the event in and the card shows it', async () => {
    const metric = await system.metric('bookings');
    return metric.revision >= position && (await cards(page)).bookings === metric.value;
  });

  // The same row changes where it stands.
  const confirmed = await system.publish('booking:confirmed', data);
  await row(page, data.id).and(page.locator('[data-mark="booking:confirmed"]')).waitFor();
  assert.equal(await row(page, data.id).count(), 1);
  await eventually('revenue has taken it in', async () => {
    const metric = await system.metric('revenue');
    return metric.revision >= confirmed.position && (await cards(page)).revenue === metric.value;
  });
  await toast.first().waitFor();
  await eventually('the toasts are gone after ten seconds', async () => (await toast.count()) === 0, 30_000);
  const stayed = Date.now() - shown;
  assert.ok(stayed > 8_000, `a toast stays ten seconds, not ${stayed} ms`);
  console.log(`    event on the screen ${seen} ms after its publishing began`);
});

test('a toast can be closed, and stays while the pointer is on it', async () => {
  const data = booking({ customer: 'Hover Test' });
  await system.publish('booking:new', data);
  const toast = page.locator('[data-testid=toast]', { hasText: data.customer });
  await toast.hover();
  await page.locator('[data-testid=toasts][data-paused]').waitFor();
  await toast.locator('[data-testid=toast-close]').click();
  await toast.waitFor({ state: 'detached' });
  await page.mouse.move(10, 500);
});

test('whoever closes announcements by keyboard goes on with the next, and nothing stays paused behind the last', async () => {
  for (let n = 0; n < 3; n += 1) await system.publish('booking:new', booking({ customer: 'Keyboard Test' }));
  await eventually('three are there', async () => (await page.getByTestId('toast').count()) >= 3);
  await page.getByTestId('toast-close').first().focus();
  await page.locator('[data-testid=toasts][data-paused]').waitFor();
  for (let left = await page.getByTestId('toast').count(); left > 0; left -= 1) {
    assert.equal(await page.evaluate(() => document.activeElement?.dataset.testid), 'toast-close');
    await page.keyboard.press(left % 2 === 0 ? 'Enter' : 'Escape');
    await eventually('one less', async () => (await page.getByTestId('toast').count()) === left - 1);
  }
  await system.publish('booking:new', booking({ customer: 'Goes Again' }));
  await page.getByTestId('toast').waitFor();
  assert.equal(await page.locator('[data-testid=toasts][data-paused]').count(), 0);
  await page.getByTestId('toast').waitFor({ state: 'detached' });
});

test('at most five announcements stand at once, and the rest is counted', async () => {
  for (let n = 0; n < 7; n += 1) await system.publish('booking:new', booking({ customer: 'One of Many' }));
  await page.getByTestId('toast-more').getByText(/\+\d+ more/).waitFor();
  assert.equal(await page.getByTestId('toast').count(), 5);
  await page.getByRole('button', { name: 'Close all' }).click();
  await page.getByTestId('toast').first().waitFor({ state: 'detached' });
});

test('the badge says more when it is asked: since when, by which way, how long the way takes', async () => {
  await page.getByTestId('badge').click();
  const details = page.getByTestId('badge-details');
  await details.getByText(/WebSocket|stream/).first().waitFor();
  await page.locator('[data-testid=badge-details][data-latency]').waitFor();
  assert.match(await details.innerText(), /There and back\s+\d/);
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press('Escape');
  await details.waitFor({ state: 'detached' });
});

test('customers are counted once however often they book, and conversion is the share that was confirmed', async () => {
  const taken = async (name, position) => eventually(`${name} has taken it in, and the card shows it`, async () => {
    const metric = await system.metric(name);
    return metric.revision >= position && (await cards(page))[name] === metric.value ? Number(metric.value) : undefined;
  });
  const data = booking({ customer: 'Twice A Guest' });
  const first = await system.publish('booking:new', data);
  const [customers, bookings] = [await taken('customers', first.position), await taken('bookings', first.position)];
  const second = await system.publish('booking:new', booking({ customer: 'Twice A Guest' }));
  // The window slides meanwhile: what leaves it makes both less, and nothing makes them more.
  const booked = await taken('bookings', second.position);
  assert.ok(booked <= bookings + 1 && (await system.metric('customers')).value <= customers, 'the same customer again is no other one');
  const { position } = await system.publish('booking:confirmed', data);
  const share = await taken('conversion', position);
  assert.ok(share > 0 && share <= 1, `${share}`);
  assert.match(await page.locator('[data-testid=card][data-metric=conversion] [data-testid=card-value]').innerText(), /%/);
});

test('connect, disconnect, refresh: nothing is lost and nothing there twice', async () => {
  await page.getByTestId('badge').click();
  await page.getByTestId('disconnect').click();
  await face(page, 'offline');
  const missed = booking({ customer: 'While Disconnected' });
  await system.publish('booking:new', missed);
  assert.equal(await row(page, missed.id).count(), 0);
  assert.ok((await rows(page)).length > 0, 'what was there stays');
  await page.getByTestId('connect').click();
  await face(page, 'live');
  await row(page, missed.id).waitFor();
  await page.getByTestId('refresh').click();
  await face(page, 'live');
  const after = booking({ customer: 'After Refresh' });
  await system.publish('booking:new', after);
  await row(page, after.id).waitFor();
  await nothingTwice(page);
  await page.keyboard.press('Escape');
  await page.getByTestId('badge-details').waitFor({ state: 'detached' });
});

test('the desktop is told when nobody looks at the page, if the reader wished so', async () => {
  const HEARD = `
    window.told = [];
    window.Notification = class { static permission = 'granted'; static requestPermission = async () => 'granted'; constructor(title, { body }) { window.told.push(title + ': ' + body); } close() {} };`;
  const seen = await openPage(browser, system.url, { scripts: [HEARD] });
  const look = (state) =>
    seen.evaluate((now) => {
      Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => now });
      document.dispatchEvent(new Event('visibilitychange'));
    }, state);
  const told = (customer) => seen.evaluate((name) => window.told.some((text) => text.startsWith(name)), customer);
  await system.publish('booking:new', booking({ customer: 'Unasked Guest' }));
  await seen.locator('[data-testid=toast]', { hasText: 'Unasked Guest' }).waitFor();
  await seen.getByTestId('menu').click();
  await seen.getByTestId('desktop').check();
  await look('hidden');
  await system.publish('booking:new', booking({ customer: 'Desktop Guest' }));
  await eventually('the desktop is told', () => told('Desktop Guest'));
  assert.equal(await told('Unasked Guest'), false, 'off until wished');
  await look('visible');
  await seen.context().close();
});

test('the connection lives in a worker, and in one of the tabs where there are none', async () => {
  const COUNT = 'window.made = 0; window.WebSocket = class extends WebSocket { constructor(...all) { super(...all); window.made += 1; } };';
  for (const [scripts, sockets] of [[[COUNT], 0], [[NO_WORKER, COUNT], 1]]) {
    const first = await openPage(browser, system.url, { scripts });
    const second = await openPage(browser, system.url, { scripts, context: first.context() });
    const data = booking();
    await system.publish('booking:new', data);
    for (const tab of [first, second]) await row(tab, data.id).waitFor();
    assert.equal((await first.evaluate(() => window.made)) + (await second.evaluate(() => window.made)), sockets);
    // Whoever came first goes: the other one has what comes.
    await first.close();
    const later = booking();
    await system.publish('booking:new', later);
    await row(second, later.id).waitFor();
    assert.equal(await row(second, later.id).count(), 1);
    await second.context().close();
  }
});

test('a time range narrows charts, and is part of the address', async () => {
  const chart = page.getByTestId('chart').first();
  const points = () => chart.getAttribute('data-points').then(Number);
  await eventually('all of its past is there', async () => (await points()) > 24);
  await page.getByTestId('range').selectOption('24h');
  await eventually('a day is left', async () => (await points()) > 0 && (await points()) <= 25);
  assert.match(new URL(page.url()).hash, /last=24h/);
  await page.reload();
  await face(page, 'live');
  await eventually('a reload keeps it', async () => (await points()) > 0 && (await points()) <= 25);
  await page.getByTestId('range').selectOption('all');
  await eventually('all of it again', async () => (await points()) > 24);
});

test('the badge goes through its faces while the gateway is killed, and nothing is missed or shown twice', async () => {
  await page.evaluate(() => (window.faces = []));
  const count = (await rows(page)).length;
  const missed = [booking(), booking(), booking()];
  system.kill9('gateway-1');
  for (const data of missed) await system.publish('booking:new', data);
  await system.publish('booking:cancelled', missed[2]);
  await eventually('the badge says that it is connecting', () => page.evaluate(() => window.faces.includes('connecting')));
  // Data stays on the screen meanwhile.
  assert.ok((await rows(page)).length >= Math.min(count, 20));
  await face(page, 'live', 30_000);
  for (const data of missed) {
    await row(page, data.id).waitFor({ timeout: 20_000 });
    assert.equal(await row(page, data.id).count(), 1, data.id);
  }
  assert.equal(await row(page, missed[2].id).getAttribute('data-mark'), 'booking:cancelled');
  await nothingTwice(page);
  const after = booking();
  await system.publish('booking:new', after);
  await row(page, after.id).waitFor();
  const seen = await page.evaluate(() => window.faces);
  assert.deepEqual([seen.includes('connecting'), seen.at(-1)], [true, 'live'], `faces: ${seen.join(' → ')}`);
});

test('again and again: two more kills, and the page and the stream agree', async () => {
  const all = [];
  for (let kill = 0; kill < 2; kill += 1) {
    system.kill9('gateway-1');
    for (let n = 0; n < 4; n += 1) {
      const data = booking();
      await system.publish('booking:new', data);
      all.push(data.id);
    }
    await page.locator('[data-testid=badge]:not([data-face=live])').waitFor();
    await face(page, 'live', 30_000);
  }
  for (const id of all) await row(page, id).waitFor({ timeout: 20_000 });
  await nothingTwice(page);
  const shown = (await rows(page)).map((text) => text.split(' ')[0]).filter((id) => all.includes(id));
  assert.deepEqual(shown, [...all].reverse(), 'newest first, as they were published');
});

test('a pause keeps everything back, and gives it all on return', async () => {
  await page.getByTestId('pause').click();
  await face(page, 'paused');
  const data = booking({ customer: 'While Paused' });
  await system.publish('booking:new', data);
  assert.equal(await row(page, data.id).count(), 0);
  await page.getByTestId('pause').click();
  await face(page, 'live');
  await row(page, data.id).waitFor();
  await nothingTwice(page);
});

test('after a reload everything is there and nothing is announced again', async () => {
  const told = await rows(page);
  await page.reload();
  await face(page, 'live');
  await eventually('all rows are there', async () => {
    const now = new Set((await rows(page)).map((text) => text.split(' ')[0]));
    return told.slice(0, 20).every((text) => now.has(text.split(' ')[0]));
  });
  // One that comes now is announced, so whatever came before it would have been announced by now too.
  const data = booking({ customer: 'After Reload' });
  const { id } = await system.publish('booking:new', data);
  await page.locator('[data-testid=toast]', { hasText: data.customer }).waitFor();
  const announced = await page.evaluate(() => window.announced);
  assert.deepEqual(announced.filter((toast) => !toast.endsWith(id)), [], 'announced again');
  assert.equal(announced.length, 1);
  await nothingTwice(page);
});

test('two tabs agree', async () => {
  const other = await openPage(browser, system.url, { context: page.context() });
  const data = booking();
  await system.publish('booking:new', data);
  await system.publish('booking:confirmed', data);
  for (const tab of [page, other]) await row(tab, data.id).and(tab.locator('[data-mark="booking:confirmed"]')).waitFor();
  await eventually('both show the same rows and numbers', async () => {
    const [a, b] = [await rows(page), await rows(other)];
    const both = Math.min(a.length, b.length, 30);
    const same = JSON.stringify(a.slice(0, both)) === JSON.stringify(b.slice(0, both));
    return same && both >= 20 && JSON.stringify(await cards(page)) === JSON.stringify(await cards(other));
  });
  assert.deepEqual(other.complaints, []);
  await other.close();
});

test('a phone has everything and nothing to scroll sideways', async () => {
  for (const width of [390, 360]) {
    const phone = await openPage(browser, system.url, { viewport: { width, height: 844 }, hasTouch: true, isMobile: true });
    const data = booking({ customer: 'Aleksandra Konstantinopolitańska-Wierzbicka', title: 'A title that is longer than any phone is wide, and then some more' });
    await system.publish('booking:new', data);
    await row(phone, data.id).waitFor();
    await eventually(`nothing is wider than ${width} px`, () => phone.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth));
    for (const metric of METRICS) await phone.locator(`[data-testid=card][data-metric=${metric}]`).waitFor();
    assert.deepEqual(phone.complaints, []);
    await phone.context().close();
  }
});

test('nothing wrong for those who cannot see or use a pointer', async () => {
  for (const [colorScheme, viewport] of [['light', { width: 1440, height: 900 }], ['dark', { width: 390, height: 844 }]]) {
    const seen = await openPage(browser, system.url, { colorScheme, viewport, reducedMotion: 'reduce' });
    await system.publish('booking:new', booking());
    await seen.getByTestId('toast').first().waitFor();
    assert.deepEqual(await violations(seen), [], `${colorScheme} ${viewport.width}`);
    await seen.getByTestId('toast-close').first().click();
    await seen.getByTestId('menu').click();
    assert.deepEqual(await violations(seen), [], `menu, ${colorScheme} ${viewport.width}`);
    await seen.context().close();
  }
});

test('the keyboard reaches the list', async () => {
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'filter');
  await page.keyboard.type('Ada');
  await eventually('only matching rows', async () => {
    const found = await page.locator('[data-testid=row]').allInnerTexts();
    return found.length > 0 && found.every((text) => text.includes('Ada'));
  });
  await page.locator('#filter').fill('');
});

test('the page complained about nothing', () => {
  assert.deepEqual(page.complaints, []);
});
