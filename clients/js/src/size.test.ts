import { gzipSync } from 'node:zlib';
import { build, type Rolldown } from 'vite';
import { describe, expect, it } from 'vitest';

const ROOT = new URL('.', import.meta.url).pathname;

/** A file that is not there. */
const ENTRY = `${ROOT}entry-of-size.ts`;

/** Bytes after gzip of what a bundler makes of a line of code. */
async function bytes(code: string, external: string[] = []): Promise<number> {
  const made = (await build({
    configFile: false,
    logLevel: 'silent',
    root: ROOT,
    plugins: [{ name: 'entry', enforce: 'pre', resolveId: (id) => (id === ENTRY ? id : undefined), load: (id) => (id === ENTRY ? code : undefined) }],
    build: { write: false, minify: 'oxc', modulePreload: false, rolldownOptions: { input: ENTRY, preserveEntrySignatures: 'strict', external: (id) => external.some((one) => id === one || id.endsWith(one)) } },
  })) as Rolldown.RolldownOutput;
  const text = made.output.map((chunk) => (chunk.type === 'chunk' ? chunk.code : '')).join('');
  return gzipSync(text, { level: 9 }).length;
}

const WHOLE = { all: "export * from './index.js';", client: "export { Client } from './index.js';" };

/** What a page loads, after gzip, in KiB. The budget: the client with all its ways 14, the hooks 3 more. */
describe('sizes', () => {
  it.each([
    ['the client alone', WHOLE.client, [], 14],
    ['client, stores, bell', "export { Client, connectionStore, roomStore, metricStore, eventsStore, notifications, select } from './index.js';", [], 18],
    ['everything', WHOLE.all, [], 25],
    ['the hooks beside it', "export * from './react/index.js';", ['react', '../index.js'], 3],
    ['pushes', "export * from './push.js';", [], 2.5],
    ['an error class', "export { RoomcastError } from './index.js';", [], 0.6],
  ])('%s', { timeout: 60_000 }, async (name, code, external, most) => {
    const found = await bytes(code, external);
    console.log(`${name}: ${(found / 1_024).toFixed(2)} KiB of ${most}`);
    expect(found).toBeLessThanOrEqual(most * 1_024);
  });
});
