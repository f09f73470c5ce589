/** Each business on the one page, against the real system: what its people see, do and are told. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { bridge } from '../../clients/socketio/bridge.mjs';
import { cards, eventually, face, goTo, lookAt, openPage, row, rows, startBrowser, still, violations } from './browser.mjs';
import { startSystem } from './system.mjs';

const { io: connect } = createRequire(resolve(import.meta.dirname, '../../clients/socketio/bridge.mjs'))('socket.io-client');
const HANDLER = resolve(import.meta.dirname, '../../clients/commands/python/handler.py');
const VIEWS = {
  property: ['dashboard', 'properties', 'activity', 'connection', 'admin'],
  repair: ['shop', 'tickets', 'customers'],
  deliveries: ['dashboard', 'customers', 'analytics', 'users'],
  restaurant: ['today', 'reservations'],
};

let browser;
let system;
let page;
let number = 0;
const id = (kind) => `${kind}-test-${String((number += 1)).padStart(3, '0')}`;

before(async () => {
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await system?.stop();
});

/** Ends one business and begins another. */
async function begin(scenario) {
  await page?.context().close();
  await system?.stop();
  system = undefined;
  system = await startSystem(scenario);
  page = await openPage(browser, system.url);
}

/** Every view: complete, and without a complaint. */
async function everyView(scenario) {
  const seen = await openPage(browser, system.url, { reducedMotion: 'reduce' });
  for (const view of VIEWS[scenario]) {
    await goTo(seen, view);
    await seen.locator('.panel, .blank').first().waitFor();
    await still(seen);
    await eventually(`${scenario} ${view}: charts have loaded`, async () => (await seen.locator('[data-testid=chart]:not([data-state=ready])').count()) === 0);
    await lookAt(seen, `${scenario}-${view}`);
  }
  assert.deepEqual(seen.complaints, [], scenario);
  await seen.context().close();
}

/** The number on the bell. */
const unread = (on) => on.getByTestId('bell').getAttribute('data-unread').then(Number);

test('property: every view, light, dark and on a phone', async () => {
  await begin('property');
  for (const metric of ['revenue', 'bookings', 'guests', 'active_users']) await page.locator(`[data-testid=card][data-metric=${metric}][data-state=live]`).waitFor();
  await everyView('property');
});

test('property: owners and managers see their own properties alone, and no money', async () => {
  const manager = await openPage(browser, system.urlFor('m1', ['PROPERTY_MANAGER'], '--claim', 'property_ids=4,7'));
  await goTo(manager, 'dashboard');
  const stay = { booking: id('bk'), property: '4', title: 'Cave suite, Göreme', change: 'new', nights: 2, amount: 5000, currency: 'TRY', guest: { name: 'Ada Yıldız', email: 'ada@guests.example' } };
  await system.publish('booking_update', stay, { room: 'property.4', audience: 'all' });
  const other = { ...stay, booking: id('bk'), property: '5' };
  await system.publish('booking_update', other, { room: 'property.5', audience: 'all' });
  await row(page, other.booking).waitFor();
  await row(page, stay.booking).waitFor();
  assert.match(await row(page, stay.booking).innerText(), /5,000/);
  await row(manager, stay.booking).waitFor();
  assert.doesNotMatch(await row(manager, stay.booking).innerText(), /5,000/, 'the amount is taken out');
  assert.equal(await row(manager, other.booking).count(), 0, 'somebody else’s property');
  await manager.locator('[data-testid=card][data-metric=revenue][data-state=forbidden]').waitFor();
  // Somebody else's address in the same tab: nothing is left of who was there.
  const next = await openPage(browser, system.urlFor('m3', ['PROPERTY_MANAGER'], '--claim', 'property_ids=4,7'));
  await goTo(next, 'admin');
  await next.getByLabel('Admin token').fill(system.env.ROOMCAST_ADMIN_TOKEN);
  await next.keyboard.press('Enter');
  await next.getByTestId('admin').waitFor();
  await goTo(next, 'dashboard');
  await row(next, stay.booking).getByRole('button').first().click();
  await next.getByTestId('sheet').waitFor();
  await next.evaluate((hash) => (location.hash = hash), new URL(system.urlFor('m2', ['PROPERTY_MANAGER'], '--claim', 'property_ids=5')).hash);
  await row(next, other.booking).waitFor();
  assert.deepEqual([await row(next, stay.booking).count(), await next.getByTestId('sheet').count()], [0, 0], 'of whoever was signed in before');
  await goTo(next, 'admin');
  await next.getByTestId('admin-sign-in').waitFor();
  await next.context().close();
  // A row changes where it stands.
  await system.publish('booking_update', { booking: stay.booking, property: '4', title: stay.title, change: 'check_in' }, { room: 'property.4', audience: 'all' });
  await row(page, stay.booking).and(page.locator('[data-mark=check_in]')).waitFor();
  assert.match(await row(page, stay.booking).innerText(), /Ada Yıldız[\s\S]*5,000/, 'what the later event left out still holds');
  await manager.context().close();
});

test('property: one call of the backend reaches a role and users', async () => {
  await system.trigger({ type: 'alert_update', role: 'STAFF', priority: 'high', data: { severity: 'warning', title: 'Loft, Galata', words: 'A tap drips.' } });
  await page.locator('[data-testid=toast]', { hasText: 'Loft, Galata' }).waitFor();
});

test('property: the bell counts, groups, filters, and two tabs and a reload agree', async () => {
  const before = await unread(page);
  const other = await openPage(browser, system.url, { context: page.context() });
  await eventually('both tabs count the same', async () => (await unread(other)) === before);
  const say = (title, category, priority) => system.publish('notification.test', { title, category }, { id: id('n'), room: 'notifications', audience: 'STAFF', priority });
  await say('A low one', 'cleaning', 'low');
  await say('A critical one', 'safety', 'critical');
  for (const tab of [page, other]) await eventually('the bell counts two more', async () => (await unread(tab)) === before + 2);
  await page.locator('[data-testid=toast][role=alert]', { hasText: 'A critical one' }).waitFor();
  await page.getByTestId('bell').click();
  const groups = page.getByTestId('notice-group');
  await groups.first().waitFor();
  assert.equal(await groups.first().getAttribute('data-group'), 'safety', 'critical first');
  await lookAt(page, 'property-centre');
  await page.getByTestId('notice').filter({ hasText: 'A critical one' }).getByTestId('read').click();
  for (const tab of [page, other]) await eventually('one was read', async () => (await unread(tab)) === before + 1);
  await page.getByTestId('notice').filter({ hasText: 'A low one' }).getByTestId('archive').click();
  for (const tab of [page, other]) await eventually('one was archived', async () => (await unread(tab)) === before);
  await page.getByText('Archived', { exact: true }).click();
  await page.getByTestId('notice').filter({ hasText: 'A low one' }).waitFor();
  await page.getByText('All', { exact: true }).last().click();
  if (before > 0) await page.getByTestId('read-all').click();
  for (const tab of [page, other]) await eventually('all were read', async () => (await unread(tab)) === 0);
  await page.keyboard.press('Escape');
  await page.getByTestId('centre').waitFor({ state: 'detached' });
  await page.reload();
  await face(page, 'live');
  await eventually('a reload counts the same', async () => (await unread(page)) === 0);
  await other.close();
});

test('property: a notification that is over cleans itself up, everywhere', async () => {
  const before = await unread(page);
  const expirytime = new Date(Date.now() + 8_000).toISOString();
  await system.publish('notification.test', { title: 'The lift is slow today', category: 'cleaning' }, { id: id('n'), room: 'notifications', audience: 'STAFF', priority: 'low', expirytime });
  await eventually('the bell counts it', async () => (await unread(page)) === before + 1);
  await page.getByTestId('bell').click();
  const notice = page.getByTestId('notice').filter({ hasText: 'The lift is slow today' });
  await notice.waitFor();
  await notice.waitFor({ state: 'detached', timeout: 40_000 });
  await eventually('and does not count it any more', async () => (await unread(page)) === before, 40_000);
  await page.keyboard.press('Escape');
  await page.getByTestId('centre').waitFor({ state: 'detached' });
});

test('property: what is muted is not announced, on any device, and is there all the same', async () => {
  const other = await openPage(browser, system.url);
  await page.getByTestId('menu').click();
  await page.getByTestId('open-preferences').click();
  const dialog = page.getByTestId('preferences');
  // Kinds and rooms are called what people call them.
  await dialog.getByLabel('Bookings, check-in and check-out').waitFor();
  await dialog.getByTestId('family-property').getByText('Property', { exact: true }).click();
  await dialog.getByLabel('Property 4', { exact: true }).waitFor();
  assert.doesNotMatch(await dialog.innerText(), /alert_update|property\.4/);
  await dialog.getByTestId('prefer-alert_update').uncheck();
  await dialog.getByTestId('prefer-quiet').check();
  await dialog.getByTestId('quiet-from').waitFor();
  await dialog.getByTestId('prefer-quiet').uncheck();
  await dialog.getByTestId('quiet-from').waitFor({ state: 'detached' });
  await lookAt(page, 'property-preferences');
  await dialog.getByRole('button', { name: 'Close' }).click();
  // The other device has been told.
  await other.getByTestId('menu').click();
  await other.getByTestId('open-preferences').click();
  await other.locator('[data-testid=prefer-alert_update]:not(:checked)').waitFor();
  await other.keyboard.press('Escape');
  await system.trigger({ type: 'alert_update', role: 'STAFF', priority: 'high', data: { severity: 'warning', title: 'A muted alert', words: 'It drips on.' } });
  const stay = { booking: id('bk'), property: '4', title: 'An announced stay', change: 'new', nights: 2, amount: 5000, currency: 'TRY', guest: { name: 'Ada Yıldız', email: 'ada@guests.example' } };
  await system.publish('booking_update', stay, { room: 'property.4', audience: 'all' });
  for (const device of [page, other]) {
    await device.locator('[data-testid=toast]', { hasText: stay.title }).waitFor();
    assert.equal(await device.locator('[data-testid=toast]', { hasText: 'A muted alert' }).count(), 0);
    await goTo(device, 'properties');
    await device.locator('[data-testid=row]', { hasText: 'A muted alert' }).first().waitFor();
    await goTo(device, 'dashboard');
  }
  await page.getByTestId('menu').click();
  await page.getByTestId('open-preferences').click();
  await dialog.getByTestId('prefer-alert_update').check();
  await eventually('it is kept', () => dialog.getByTestId('prefer-alert_update').isChecked());
  await page.keyboard.press('Escape');
  await other.context().close();
});

test('property: who is here, and who looks at which page', async () => {
  const other = await openPage(browser, system.urlFor('berna', ['ADMIN']));
  await eventually('both are shown', async () => Number(await page.getByTestId('people').getAttribute('data-total')) === 2);
  await goTo(page, 'activity');
  await row(page, 'berna').and(page.locator('[data-mark="user.activity"]')).waitFor();
  await goTo(other, 'connection');
  await eventually('and now looks at another', async () => (await row(page, 'berna').innerText()).includes('Connection'));
  await other.context().close();
  await eventually('has gone', async () => Number(await page.getByTestId('people').getAttribute('data-total')) === 1, 30_000);
});

test('property: the operators’ view lists, explains, says something to everybody, tries a policy, ends a connection', async () => {
  await goTo(page, 'admin');
  await page.getByTestId('admin-sign-in').waitFor();
  await page.getByLabel('Admin token').fill('not a token');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByTestId('admin-error').first().waitFor();
  await page.getByRole('button', { name: 'Forget the token' }).click();
  await page.getByLabel('Admin token').fill(system.env.ROOMCAST_ADMIN_TOKEN);
  await page.getByRole('button', { name: 'Sign in' }).click();
  const connections = page.getByTestId('admin-connections');
  await connections.getByText('demo').first().waitFor();
  await lookAt(page, 'property-operators');
  assert.equal(await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]).includes('roomcast-admin')), false, 'the admin token is not stored');
  const part = async (name) => {
    await page.locator('.admin-head').getByText(name, { exact: true }).click();
  };
  await part('Rooms');
  await page.getByTestId('admin-rooms').getByText('main/os_dashboard').waitFor();
  await part('Explain');
  await page.getByRole('textbox', { name: 'Room' }).fill('financial_updates');
  await page.getByRole('button', { name: 'Explain', exact: true }).click();
  await page.getByTestId('admin-explain').getByRole('cell', { name: 'yes' }).first().waitFor();
  await part('Broadcast');
  await page.getByRole('textbox', { name: 'Title' }).fill('The office closes at six');
  await page.getByRole('textbox', { name: /^Priority/ }).fill('high');
  await page.getByRole('button', { name: 'Broadcast', exact: true }).click();
  await page.locator('[data-testid=toast]', { hasText: 'The office closes at six' }).waitFor();
  await part('Policy');
  await page.locator('textarea').fill('version: 1\nroles: {}\nrooms: nonsense\n');
  await page.getByRole('button', { name: 'Try it' }).click();
  await page.locator('.mistakes li').first().waitFor();
  await part('Metrics');
  await page.getByTestId('admin-metrics').getByRole('cell', { name: 'active_users' }).waitFor();
  await tryMetrics();
  await part('Dead letters');
  await page.getByTestId('admin-letters').waitFor();
  // An entry says who may see it, to those who may know.
  await goTo(page, 'dashboard');
  await page.locator('[data-testid=row] .row-button').first().click();
  await page.getByTestId('who-sees').click();
  await page.getByTestId('who-sees-table').getByRole('cell', { name: 'demo' }).first().waitFor();
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press('Escape');
  await goTo(page, 'admin');
  await part('Connections');
  await page.getByRole('button', { name: /^Kick/ }).first().click();
  await page.getByRole('button', { name: /^Really end it/ }).click();
  await eventually('the page was put out and came back', () => page.evaluate(() => window.faces.includes('connecting')));
  await face(page, 'live');
  await goTo(page, 'dashboard');
});

/** Mistakes with their line, then what the metrics would have shown. */
async function tryMetrics() {
  const trial = page.getByTestId('admin-metrics-trial');
  const good = 'version: 1\ntimezone: Europe/Istanbul\nmetrics:\n  - name: stays\n    from: { room: property.*, type: booking_update }\n    value: count()\n    window: { sliding: 24h, step: 1m }\n    publish: { room: os_dashboard, audience: all }\n';
  await trial.locator('textarea').fill(good.replace('count()', 'most()'));
  await trial.getByRole('button', { name: 'Try them' }).click();
  await trial.locator('.mistakes').getByText('Line 6').waitFor();
  await trial.locator('.mistake-source').getByText('most()').waitFor();
  await trial.locator('textarea').fill(good);
  await trial.getByRole('button', { name: 'Try them' }).click();
  await trial.getByRole('cell', { name: 'stays', exact: true }).waitFor();
  const [, shows] = await trial.getByRole('row').filter({ hasText: 'stays' }).getByRole('cell').allInnerTexts();
  assert.ok(Number(shows) > 0, `it would have shown ${shows}`);
  await lookAt(page, 'property-trial', { fullPage: true });
}

test('repair: every view, light, dark and on a phone', async () => {
  await begin('repair');
  await everyView('repair');
});

test('repair: the revenue chart loads its history and goes on live, without a hole or a double', async () => {
  const chart = page.locator('[data-testid=chart][data-metric=revenue_by_hour]');
  await chart.and(page.locator('[data-state=ready]')).waitFor();
  const total = async () => Number((await system.metric('revenue', 'dashboard'))?.value ?? 0);
  const before = await total();
  await eventually('the card shows it', async () => Number((await cards(page)).revenue) === before);
  assert.ok(Number(await chart.getAttribute('data-points')) > 5, 'its past is there');
  const hour = Number(await chart.getAttribute('data-last'));
  const order = { op: 'insert', table: 'public.orders', row: { id: id('o'), ticket: 't-1', product: 'display', quantity: 1, total: 1250 } };
  await system.publish('order:placed', order, { room: 'orders', audience: 'clerk' });
  await eventually('the card has taken it in', async () => Number((await cards(page)).revenue) === before + 1250);
  const last = await eventually('the chart has taken it in', async () => {
    const now = Number(await chart.getAttribute('data-last'));
    return now === hour + 1250 || now === 1250 ? now : undefined;
  });
  assert.ok([hour + 1250, 1250].includes(last));
  await page.locator('[data-testid=toast]', { hasText: 'display' }).waitFor();
});

test('repair: a ticket changes where it stands, and the feed tells each step', async () => {
  await goTo(page, 'tickets');
  const ticket = (status, op, old) => ({ op, table: 'public.tickets', row: { id: 'tk-1', device: 'phone', fault: 'broken glass', status }, ...(old === undefined ? {} : { old: { status: old } }) });
  await system.publish('ticket:created', ticket('open', 'insert'), { room: 'tickets', audience: 'technician' });
  await row(page, 'tk-1').and(page.locator('[data-mark=open]')).waitFor();
  await system.publish('ticket:changed', ticket('done', 'update', 'open'), { room: 'tickets', audience: 'technician' });
  await row(page, 'tk-1').and(page.locator('[data-mark=done]')).waitFor();
  assert.equal(await row(page, 'tk-1').count(), 1);
  await goTo(page, 'shop');
  const feed = page.locator('[data-testid=list][data-list=activity]');
  assert.equal(await feed.getByText('phone: broken glass').filter({ visible: true }).count() >= 2, true, 'both steps are told');
});

test('repair: contacts are for those who may see them', async () => {
  const clerk = await openPage(browser, system.urlFor('clerk-1', ['clerk']));
  for (const tab of [page, clerk]) await goTo(tab, 'customers');
  const customer = { op: 'insert', table: 'public.customers', row: { id: id('c'), name: 'Ada Yıldız', email: 'ada@customers.example', phone: '+90 212 555 0199' } };
  await system.publish('customer:registered', customer, { room: 'customers', audience: 'clerk' });
  for (const tab of [page, clerk]) await row(tab, customer.row.id).waitFor();
  assert.match(await row(page, customer.row.id).innerText(), /ada@customers/);
  assert.doesNotMatch(await row(clerk, customer.row.id).innerText(), /@|555/);
  await clerk.context().close();
});

test('deliveries: every view, light, dark and on a phone', async () => {
  await begin('deliveries');
  await everyView('deliveries');
});

test('deliveries: several admins are in step, and vendors are ranked', async () => {
  const other = await openPage(browser, system.urlFor('aylin', ['admin']));
  const delivery = { delivery: id('d'), vendor: 'v-01', title: 'Bakery Fener', item: '3 bread', town: 'Kadıköy', status: 'new' };
  await system.publish('delivery:updated', delivery, { room: 'deliveries', audience: 'vendor' });
  await system.publish('delivery:updated', { ...delivery, status: 'on_the_road' }, { room: 'deliveries', audience: 'vendor' });
  for (const tab of [page, other]) await row(tab, delivery.delivery).and(tab.locator('[data-mark=on_the_road]')).waitFor();
  await eventually('rows and numbers agree', async () => JSON.stringify([(await rows(page)).slice(0, 10), await cards(page)]) === JSON.stringify([(await rows(other)).slice(0, 10), await cards(other)]));
  await goTo(other, 'analytics');
  await other.locator('[data-testid=ranking] .ranking-name', { hasText: 'Bakery Fener' }).waitFor();
  await other.context().close();
});

test('deliveries: a command says what came of it; without a connection it waits and is sent once', async () => {
  await goTo(page, 'dashboard');
  const command = page.locator('[data-testid=command][data-command="stats:request"]');
  await command.getByRole('button').click();
  // No backend runs here: certainly nothing was done, and the page says so.
  await command.and(page.locator('[data-state=failed]')).waitFor();
  assert.match(await command.innerText(), /Nobody was there[\s\S]*|Try again[\s\S]*Nobody was there/);
  await page.getByTestId('pause').click();
  await face(page, 'paused');
  await command.getByRole('button').click();
  await command.and(page.locator('[data-state=waiting]')).waitFor();
  await page.getByTestId('pause').click();
  await face(page, 'live');
});

test('deliveries: clients that speak Socket.IO are told, give commands, and see what is theirs', async () => {
  const server = createServer();
  const io = bridge(server, { gateway: system.gateway, rooms: ['dashboard', 'deliveries', 'payments'], log: { warn: () => undefined } });
  server.listen(0, '127.0.0.1');
  // A colon is escaped where subjects are spelled.
  const backend = spawn('python3', [HANDLER, 'delivery=3Aupdate'], { env: { ...process.env, ...system.env }, stdio: ['ignore', 'pipe', 'inherit'] });
  const tokenOf = (user, role) => new URL(system.urlFor(user, [role])).hash.slice('#token='.length);
  const sockets = [];
  const open = (auth, transport) => {
    const socket = connect(`http://127.0.0.1:${server.address().port}`, { auth, transports: [transport], forceNew: true });
    sockets.push(socket);
    socket.heard = [];
    socket.onAny((name, data) => socket.heard.push(`${name} ${data?.delivery ?? data?.metric ?? data?.code}`));
    return socket;
  };
  try {
    await Promise.all([once(server, 'listening'), once(backend.stdout, 'data')]);
    const clerk = open({ token: tokenOf('clerk', 'clerk') }, 'websocket');
    const vendor = open({ token: tokenOf('vendor', 'vendor') }, 'polling');
    await Promise.all([once(clerk, 'connect'), once(vendor, 'connect')]);
    for (const [auth, code] of [[{}, 'no_token'], [{ token: 'nonsense' }, 'unauthenticated']]) {
      const [error] = await once(open(auth, 'websocket'), 'connect_error');
      assert.equal(error.data.code, code);
    }
    // Values that hold come at the beginning.
    await eventually('the numbers', () => clerk.heard.includes('metric.updated deliveries'));
    const delivery = { delivery: id('d'), vendor: 'Bakery Fener', item: '2 breads', status: 'new' };
    await system.publish('payment:added', { payment: id('p'), delivery: delivery.delivery, amount: 10, currency: 'TRY' }, { room: 'payments', audience: 'admin' });
    await system.publish('delivery:updated', delivery, { room: 'deliveries', audience: 'vendor' });
    for (const socket of [clerk, vendor]) await eventually('the delivery', () => socket.heard.includes(`delivery:updated ${delivery.delivery}`));
    // Sent twice under one key it is carried out once.
    const order = { delivery: delivery.delivery, key: 'press-1' };
    const answers = await Promise.all([1, 2].map(() => clerk.timeout(20_000).emitWithAck('delivery:update', order)));
    for (const answer of answers) assert.deepEqual(answer, { ok: true, data: { delivery: delivery.delivery, updatedBy: 'clerk', asked: 1 } });
    assert.equal((await vendor.timeout(20_000).emitWithAck('delivery:update', order)).error.code, 'forbidden');
    vendor.emit('payment:add', {});
    await eventually('who asks for no answer is told as well', () => vendor.heard.includes('error forbidden'));
    assert.equal(await clerk.timeout(20_000).emitWithAck('ping', 'p'), 'p');
    for (const { heard } of [clerk, vendor]) {
      assert.equal(heard.filter((one) => one.startsWith('delivery:updated')).length, 1);
      assert.ok(!heard.some((one) => one.startsWith('payment:added')), 'nobody may see payments here');
    }
    assert.ok(!vendor.heard.some((one) => one.startsWith('metric')), 'numbers are not the vendor’s');
  } finally {
    for (const socket of sockets) socket.disconnect();
    backend.kill();
    await io.close();
  }
});

test('restaurant: every view, light, dark and on a phone', async () => {
  await begin('restaurant');
  await everyView('restaurant');
});

test('restaurant: an order is announced once, a click opens it, and a reload announces nothing old but everything new', async () => {
  const order = { id: id('o'), customer: 'Ada Yıldız', phone: '+90 212 555 0101', dish: 'Grilled bass', count: 2, total: 960, currency: 'TRY' };
  const sent = await system.publish('orderCreated', order, { room: 'admin', audience: 'waiter' });
  // The same again is the same.
  await system.publish('orderCreated', { ...order, id: id('o'), customer: 'Second Guest' }, { room: 'admin', audience: 'waiter' });
  await page.locator('[data-testid=toast]', { hasText: 'Second Guest' }).waitFor();
  assert.equal((await page.evaluate((event) => window.announced.filter((toast) => toast.endsWith(event)).length, sent.id)), 1);
  await page.locator('[data-testid=toast]', { hasText: order.customer }).getByTestId('toast-open').click();
  const sheet = page.getByTestId('sheet');
  await sheet.getByRole('heading', { name: order.customer }).waitFor();
  await lookAt(page, 'restaurant-sheet');
  await page.keyboard.press('Escape');
  await page.reload();
  await face(page, 'live');
  const fresh = await system.publish('reservationCreated', { id: id('r'), customer: 'Fresh Guest', guests: 4, hour: '19:30', place: 'garden' }, { room: 'admin', audience: 'waiter' });
  await page.locator('[data-testid=toast]', { hasText: 'Fresh Guest' }).waitFor();
  assert.deepEqual(await page.evaluate(() => window.announced.length), 1);
  assert.ok((await page.evaluate(() => window.announced[0])).endsWith(fresh.id));
});

test('restaurant: waiters see neither money nor numbers of guests', async () => {
  const waiter = await openPage(browser, system.urlFor('w1', ['waiter']));
  await waiter.locator('[data-testid=row]').first().waitFor();
  assert.doesNotMatch(await waiter.locator('[data-testid=list]').innerText(), /₺|555/);
  await waiter.context().close();
});

test('restaurant: whose role is taken away sees nothing of before, and all of it when it is given again', async () => {
  const { admin } = await (await fetch(`${system.gateway}/page.json`)).json();
  const ask = async (method, path, body) => {
    const answer = await fetch(`${admin.ingest[0]}/admin/v1${path}`, { method, headers: { authorization: `Bearer ${system.env.ROOMCAST_ADMIN_TOKEN}`, 'content-type': 'application/json' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return answer.text().then((text) => (text === '' ? {} : JSON.parse(text)));
  };
  let { key } = await ask('POST', '/grants', { user: 'g1', role: 'waiter' });
  const guest = await openPage(browser, system.urlFor('g1', ['user']));
  const chart = guest.getByTestId('chart').first();
  const seen = async () => [await guest.getByTestId('row').count() > 0, Number(await chart.getAttribute('data-points')) > 0, await guest.locator('[data-testid=card][data-metric=orders]').getAttribute('data-state')];
  const sees = (what, expected) => eventually(what, async () => String(await seen()) === String(expected));
  await sees('rows, chart and numbers are there', [true, true, 'live']);
  await ask('DELETE', `/acl/${key}`);
  await sees('nothing is left', [false, false, 'forbidden']);
  await guest.getByTestId('forbidden').waitFor();
  await guest.getByTestId('chart-failed').getByText('Your roles do not include this chart.').waitFor();
  await lookAt(guest, 'restaurant-rights-lost');
  ({ key } = await ask('POST', '/grants', { user: 'g1', role: 'waiter' }));
  await sees('everything is there again', [true, true, 'live']);
  // A number of its own role in a room that stays open.
  const sales = await ask('POST', '/grants', { user: 'g1', role: 'admin' });
  await guest.locator('[data-testid=card][data-metric=sales][data-state=live]').waitFor();
  await ask('DELETE', `/acl/${sales.key}`);
  await guest.locator('[data-testid=card][data-metric=sales][data-state=empty]').waitFor();
  await sees('the rest stays', [true, true, 'live']);
  assert.deepEqual(guest.complaints, []);
  await guest.context().close();
});

test('a sound for each kind, off until wished, and remembered', async () => {
  await page.evaluate(() => delete document.documentElement.dataset.sound);
  const say = (name) => system.publish('orderCreated', { id: id('o'), customer: name, dish: 'Meze', count: 1, total: 90, currency: 'TRY' }, { room: 'admin', audience: 'waiter' });
  await say('Quiet Guest');
  await page.locator('[data-testid=toast]', { hasText: 'Quiet Guest' }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.sound), undefined, 'nothing is heard unasked');
  await page.getByTestId('menu').click();
  await page.getByTestId('sounds').check();
  await eventually('it is tried', () => page.evaluate(() => document.documentElement.dataset.sound === 'info'));
  await page.evaluate(() => delete document.documentElement.dataset.sound);
  await page.getByTestId('volume').fill('0.3');
  await eventually('the next one is heard', async () => {
    await say('Loud Guest');
    return page.evaluate(() => document.documentElement.dataset.sound === 'info');
  });
  assert.match(await page.evaluate(() => localStorage.getItem('roomcast.settings')), /"sounds":true,"volume":0.3/);
  assert.deepEqual(page.complaints, []);
});
