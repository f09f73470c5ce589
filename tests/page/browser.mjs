/** A real Chromium, and what tests ask of a page. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { chromium } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const OUTPUT = resolve(import.meta.dirname, 'output');
/** Largest picture, in bytes. */
const PICTURE_BYTES_MAX = 200 * 1024;

export const WIDE = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };
const NARROWEST = 360;

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts the browser. */
export function startBrowser() {
  return chromium.launch({ executablePath: process.env.ROOMCAST_CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
}

/** A script for pages whose WebSockets, requests or clock a test takes into its hands: the connection lives in the page itself, not in a worker. */
export const NO_WORKER = 'delete window.SharedWorker;';

/** What a page may complain about while its gateway is away, or back but not ready yet (503): the browser says it by itself. */
const GATEWAY_AWAY = /WebSocket connection to .* failed|the server responded with a status of 503|net::ERR_CONNECTION_REFUSED|net::ERR_EMPTY_RESPONSE|net::ERR_CONNECTION_RESET|net::ERR_INTERNET_DISCONNECTED/;

/** Opens the page in a context of its own and waits until it is live. Complaints of the page are collected in `page.complaints`. */
export async function openPage(browser, url, options = {}) {
  const { context, shows = 'live', scripts = [], prepare, ...rest } = options;
  const own = context ?? (await browser.newContext({ locale: 'en-GB', timezoneId: 'Europe/Istanbul', viewport: WIDE, ...rest }));
  const page = await own.newPage();
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !GATEWAY_AWAY.test(message.text())) page.complaints.push(message.text());
  });
  // Every face the badge ever had, also those too short for a look from outside.
  await page.addInitScript(() => {
    window.faces = [];
    const look = () => {
      const face = document.querySelector('[data-testid=badge]')?.dataset.face;
      if (face !== undefined && window.faces.at(-1) !== face) window.faces.push(face);
    };
    // Every announcement ever made.
    window.announced = [];
    const listen = (records) => {
      look();
      for (const { addedNodes } of records)
        for (const node of addedNodes)
          if (node instanceof Element)
            for (const toast of [node, ...node.querySelectorAll('[data-testid=toast]')])
              if (toast.dataset?.testid === 'toast') window.announced.push(toast.dataset.toast);
    };
    new MutationObserver(listen).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ['data-face'] });
  });
  for (const script of scripts) await page.addInitScript(script);
  await prepare?.(page);
  await page.goto(url);
  await face(page, shows, 60_000);
  return page;
}

/** Goes to a view and waits until it is there. */
export async function goTo(page, view) {
  await page.evaluate((id) => (location.hash = `/${id}`), view);
  await page.locator(`.frame[data-view=${view}]`).waitFor();
}

/** What axe finds wrong once nothing moves, because half a fade has no contrast: nothing is the only good answer. */
export async function violations(page) {
  await eventually('no animation runs', () => page.evaluate(() => document.getAnimations().every((one) => one.playState !== 'running' || one.effect?.getComputedTiming().endTime === Infinity)), 60_000);
  await page.evaluate(AXE);
  const { violations: found } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html }) => html).join(' | ')}`);
}

/** Waits until nothing is wider than the screen: a chart takes its new width when the browser tells it. */
export function fits(page, name) {
  return eventually(`${name}: no wider than the screen`, () => page.evaluate((most) => document.documentElement.scrollWidth <= most, page.viewportSize().width));
}

/** Takes a picture into `output`. */
export async function picture(page, name, { fullPage = false } = {}) {
  mkdirSync(OUTPUT, { recursive: true });
  const path = join(OUTPUT, `${name}.png`);
  await page.screenshot({ path, fullPage });
  assert.ok(statSync(path).size <= PICTURE_BYTES_MAX, `${path}: ${statSync(path).size} bytes`);
}

/** What is on the screen, light, dark and on a phone: right for screen readers, no wider than the screen; with its pictures. */
export async function lookAt(page, name, options) {
  const looks = [['1440-light', WIDE, 'light'], ['1440-dark', WIDE, 'dark'], ['390-dark', PHONE, 'dark'], ['390-light', PHONE, 'light']];
  for (const [look, size, colorScheme] of looks) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await still(page);
    assert.deepEqual(await violations(page), [], `${name}, ${look}`);
    await fits(page, `${name}, ${look}`);
    await picture(page, `${name}-${look}`, options);
  }
  await page.setViewportSize({ ...PHONE, width: NARROWEST });
  await fits(page, `${name}, ${NARROWEST} px`);
  await page.setViewportSize(WIDE);
}

/** Waits until nothing moves any more. */
export function still(page) {
  return eventually('everything stands still', () =>
    page.evaluate(() => {
      const runs = (one) => one.playState === 'running' && one.effect?.getComputedTiming().endTime !== Infinity;
      return document.getAnimations().filter(runs).length + document.querySelectorAll('[data-tint], .skeleton').length === 0;
    }),
    60_000,
  );
}

/** Waits until the badge has this face. */
export function face(page, name, timeout = 20_000) {
  return page.locator(`[data-testid=badge][data-face=${name}]`).waitFor({ timeout });
}

/** The row of a thing. */
export function row(page, id) {
  return page.locator(`[data-testid=row][data-row="${id}"]`);
}

/** Ids and states of all rows, top first. */
export function rows(page) {
  return page.locator('[data-testid=row]').evaluateAll((all) => all.map((one) => `${one.dataset.row} ${one.dataset.mark}`));
}

/** Values of all cards by metric. */
export async function cards(page) {
  const all = await page.locator('[data-testid=card]').evaluateAll((found) => found.map((one) => [one.dataset.metric, one.dataset.value]));
  return Object.fromEntries(all);
}

/** Asks until the answer is truthy; answers it. */
export async function eventually(what, ask, within = 20_000) {
  const end = Date.now() + within;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`after ${within} ms still not: ${what}`);
    await pause(50);
  }
}
