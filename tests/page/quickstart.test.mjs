/** The React quick start of the SDK's README, followed to the letter in a fresh folder, against the real system. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { eventually, startBrowser } from './browser.mjs';
import { startProxy } from './proxy.mjs';
import { startSystem } from './system.mjs';

const ROOT = resolve(import.meta.dirname, '../..');
const CLIENTS = join(ROOT, 'clients');
const README = readFileSync(join(CLIENTS, 'js/README.md'), 'utf8');

let system;
let browser;
let proxy;
let app;

/** What a fresh Vite application has beside the files of the README, which has some for Next and Vue as well. */
const TEMPLATE = {
  'index.html': '<!doctype html><meta charset="utf-8"><title>desk</title><div id="root"></div><script type="module" src="/src/main.tsx"></script>',
  'tsconfig.json': JSON.stringify({
    compilerOptions: { target: 'ES2022', lib: ['ES2023', 'DOM', 'DOM.Iterable'], module: 'ESNext', moduleResolution: 'bundler', jsx: 'react-jsx', strict: true, noEmit: true, skipLibCheck: true, noUnusedLocals: true, types: [] },
    include: ['src', 'app'],
  }),
  // As every Next application has it.
  'app/next-env.d.ts': 'declare const process: { readonly env: Record<string, string | undefined> };',
};

function run(command, args, cwd = app) {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, npm_config_loglevel: 'error' } });
}

before(async () => {
  app = mkdtempSync(join(tmpdir(), 'roomcast-quickstart-'));
  const files = { ...TEMPLATE };
  for (const [, name, code] of README.matchAll(/^```tsx? (\S+)\n([\s\S]*?)^```$/gm)) files[name] = code;
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(app, name)), { recursive: true });
    writeFileSync(join(app, name), text);
  }
  // The package as it would be published, beside what the dashboard has from the registry already.
  const packed = run('npm', ['pack', '--silent', '--pack-destination', app], join(CLIENTS, 'js')).trim().split('\n').at(-1);
  const version = (name) => JSON.parse(readFileSync(join(CLIENTS, 'node_modules', name, 'package.json'), 'utf8')).version;
  const needs = ['react', 'react-dom', '@types/react', '@types/react-dom', '@vitejs/plugin-react', 'typescript', 'vite', 'vue'];
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'desk', private: true, type: 'module', dependencies: { roomcast: `file:${packed}`, ...Object.fromEntries(needs.map((name) => [name, version(name)])) } }));
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error']);
  run(join(ROOT, 'target/debug/roomcast'), ['types', '--scenario', join(ROOT, 'deploy/scenarios/deliveries'), '--out', join(app, 'src/events.ts')]);
  [system, browser] = await Promise.all([startSystem('deliveries'), startBrowser()]);
});
after(async () => {
  await proxy?.stop();
  await browser?.close();
  await system?.stop();
  rmSync(app, { recursive: true, force: true });
});

test('the files of the README are typed: an event by its type; those for Next and Vue compile', () => {
  for (const file of ['src/App.tsx', 'src/hooks.ts', 'app/live.tsx', 'src/use-store.ts']) assert.ok(existsSync(join(app, file)), file);
  run('npx', ['tsc', '--noEmit']);
  const path = join(app, 'src/App.tsx');
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replace('event.data.delivery', 'event.data.payment'));
  assert.throws(() => run('npx', ['tsc', '--noEmit']), (error) => /Property 'payment' does not exist/.test(error.stdout));
  writeFileSync(path, text);
});

test('the page has typed events, cards, a feed, a bell and presence, live', async () => {
  run('npx', ['vite', 'build', '--logLevel', 'error']);
  proxy = await startProxy(system.gateway, join(app, 'dist'));
  const page = await (await browser.newContext()).newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.goto(proxy.url + new URL(system.url).hash);
  await page.locator('main[data-status=live]').waitFor({ timeout: 30_000 });
  await eventually('two cards with numbers', async () => (await page.locator('[data-card] b').allTextContents()).every((text) => /^[\d.]+$/.test(text)), 30_000);
  await eventually('a feed', () => page.locator('[data-delivery]').count().then((n) => n > 0), 30_000);
  await eventually('who is here', () => page.locator('[data-here="1"]').count(), 30_000);
  const unread = Number(await page.locator('[data-unread]').getAttribute('data-unread'));

  await system.publish('delivery:updated', { delivery: 'd-quick', vendor: 'v-01', title: 'Quick start', status: 'new' }, { room: 'deliveries', audience: 'vendor' });
  await page.locator('[data-delivery="d-quick"]').waitFor({ timeout: 20_000 });
  await system.publish('notification.note', { title: 'Rain at six' }, { room: 'notifications', audience: 'all', priority: 'high' });
  await page.locator(`[data-unread="${unread + 1}"]`).waitFor({ timeout: 20_000 });
  assert.equal(await page.title(), 'Rain at six');
  await page.locator('[data-unread]').click();
  await page.locator('[data-unread="0"]').waitFor({ timeout: 20_000 });
  // The same after F5, and nothing is announced again.
  await page.reload();
  await page.locator('main[data-status=live]').waitFor({ timeout: 30_000 });
  await page.locator('[data-delivery="d-quick"]').waitFor({ timeout: 20_000 });
  await page.locator('[data-unread="0"]').waitFor({ timeout: 20_000 });
  assert.equal(await page.title(), 'desk');
  assert.deepEqual(complaints, []);
});
