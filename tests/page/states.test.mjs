/** What the page says when there is nothing to show, or something is wrong: each state designed, right for screen readers, on its picture. Before a gateway that only plays. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually, fits, NO_WORKER, PHONE, picture, startBrowser, still, violations, WIDE } from './browser.mjs';

const DASHBOARD = resolve(import.meta.dirname, '../../clients/dashboard');
const LOOKS = [
  ['1440-light', { viewport: WIDE, colorScheme: 'light' }],
  ['390-dark', { viewport: PHONE, colorScheme: 'dark', isMobile: true, hasTouch: true }],
];

let preview;
let address;
let browser;

before(async () => {
  // As strict as a gateway may be: under the tightest content security policy.
  preview = spawn(process.execPath, [resolve(DASHBOARD, '../node_modules/vite/bin/vite.js'), 'preview', '--port', '0'], { cwd: DASHBOARD, stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, NO_COLOR: '1' } });
  let said = '';
  preview.stdout.on('data', (chunk) => (said += chunk));
  address = await eventually('the page is served', () => /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0], 60_000);
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  preview?.kill();
});

/** Opens the page with what the gateway is to play, light and wide, dark and on a phone; each is looked at. */
async function look(name, plays, there, { scripts = [], prepare, live = false, timezoneId = 'Europe/Istanbul' } = {}) {
  for (const [look, options] of LOOKS) {
    const context = await browser.newContext({ locale: 'en-GB', timezoneId, reducedMotion: 'reduce', ...options });
    const page = await context.newPage();
    for (const script of scripts) await page.addInitScript(script);
    await prepare?.(page);
    await page.goto(plays === undefined ? address : `${address}/#token=${plays}`);
    await there(page);
    if (live) await still(page);
    await page.evaluate(() => document.fonts.ready);
    assert.deepEqual(await violations(page), [], `${name}, ${look}`);
    await fits(page, `${name}, ${look}`);
    await picture(page, `state-${name}-${look}`);
    await context.close();
  }
}

const card = (page, state) => page.locator(`[data-testid=card][data-state=${state}]`).first().waitFor();

test('a full page', () => look('full', 'quiet', (page) => card(page, 'live'), { live: true }));

test('nobody is signed in', () => look('sign-in', undefined, (page) => page.getByTestId('sign-in').waitFor()));

test('a sign-in that has ended', () => look('expired', 'expired', (page) => page.locator('[data-testid=sign-in], [data-banner=expired]').first().waitFor()));

test('loading: the shape of what comes', () => look('loading', 'slow', (page) => card(page, 'loading'), { scripts: [NO_WORKER] }));

test('empty: how the first thing is published', () => look('empty', 'empty', (page) => page.getByTestId('empty').waitFor()));

test('forbidden: what is missing and whom to ask', () => look('forbidden', 'forbidden', (page) => page.getByTestId('forbidden').waitFor()));

test('stale: the gateway has lost its source', () => look('stale', 'stale', (page) => page.locator('[data-testid=banner]').waitFor()));

test('stalled: a number that does not move, and one without data', () => look('stalled', 'stalled', (page) => card(page, 'stalled')));

test('connecting: the gateway answers nothing', () => look('down', 'down', (page) => page.locator('[data-testid=badge][data-face=connecting]').waitFor()));

test('offline: the data stays, with its age', () =>
  look('offline', 'quiet', async (page) => {
    await card(page, 'live');
    await page.locator('[data-testid=chart] canvas').waitFor();
    await page.context().setOffline(true);
    await page.evaluate(() => window.dispatchEvent(new Event('offline')));
    await page.locator('[data-testid=badge][data-face=offline]').waitFor();
  }, { scripts: [NO_WORKER] }));

test('paused: what waits is counted', () =>
  look('paused', 'quiet', async (page) => {
    await card(page, 'live');
    await page.getByTestId('pause').click();
    await page.locator('[data-testid=badge][data-face=paused]').waitFor();
  }));

test('without its configuration the page says what to do', () =>
  look('broken', 'quiet', (page) => page.getByTestId('page-error').waitFor(), { prepare: (page) => page.route(/page\.json/, (route) => route.fulfill({ json: { title: 'x', timezone: 'Europe/Istanbul', metrics: 'm', views: [] } })) }));

test('times are of another zone, and the page says so, on a phone as well', () =>
  look('zone', 'quiet', async (page) => {
    await page.getByTestId('zone').getByText('Times in Istanbul').waitFor();
    await card(page, 'live');
  }, { live: true, timezoneId: 'America/New_York' }));

test('a range of time goes on with the clock', async () => {
  const context = await browser.newContext({ locale: 'en-GB', timezoneId: 'Europe/Istanbul', viewport: WIDE });
  const page = await context.newPage();
  await page.clock.install();
  await page.addInitScript(NO_WORKER);
  await page.goto(`${address}/#token=quiet`);
  const points = () => page.getByTestId('chart').first().getAttribute('data-points').then(Number);
  await card(page, 'live');
  await page.getByTestId('range').selectOption('1h');
  const all = await eventually('an hour is there', points);
  // The clock goes on, and nothing else happens.
  await page.clock.setSystemTime(Date.now() + 2 * 3_600_000);
  await eventually('it is over', async () => (await points()) < all);
  await context.close();
});

test('the menu, with sounds', () =>
  look('menu', 'quiet', async (page) => {
    await card(page, 'live');
    await page.getByTestId('menu').click();
    await page.getByTestId('sounds').check();
  }));

test('the keys', () =>
  look('keys', 'quiet', async (page) => {
    await card(page, 'live');
    await page.keyboard.press('?');
    await page.getByRole('heading', { name: 'Keys' }).waitFor();
  }));

test('the diagnosis of a connection that works', () =>
  look('connection', 'quiet', async (page) => {
    await card(page, 'live');
    await page.evaluate(() => (location.hash = '/connection'));
    await page.getByTestId('findings').waitFor();
  }, { live: true }));
