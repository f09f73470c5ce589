import { gzipSync } from 'node:zlib';
import { build, type Rolldown } from 'vite';
import { expect, it, vi } from 'vitest';

/** Scripts and styles until the first numbers are on the screen, with the worker that brings them, in KB (1,000 bytes) after gzip: what a browser fetches first. */
const FIRST_KB = 145;
/** And everything there is, with what is fetched later. */
const ALL_KB = 195;

/** The size of a page decides when its first number is seen: views, charts and dialogs come later, each in a file of its own. */
it('the page is small, and its first part smaller', { timeout: 120_000 }, async () => {
  // React's own checks belong to development, and tests count as that.
  vi.stubEnv('NODE_ENV', 'production');
  const made = (await build({ root: new URL('..', import.meta.url).pathname, logLevel: 'silent', build: { write: false } })) as Rolldown.RolldownOutput;
  const sizes = new Map(made.output.map((file) => [file.fileName, gzipSync(file.type === 'chunk' ? file.code : file.source, { level: 9 }).length]));
  const chunks = made.output.filter((file) => file.type === 'chunk');
  const first = new Set<string>();
  const needs = (name: string): void => {
    const chunk = chunks.find(({ fileName }) => fileName === name);
    if (chunk === undefined || first.has(name)) return;
    first.add(name);
    for (const style of chunk.viteMetadata?.importedCss ?? []) first.add(style);
    chunk.imports.forEach(needs);
  };
  needs(chunks.find(({ isEntry }) => isEntry)?.fileName ?? '');
  // The connection's worker starts with the page.
  for (const name of sizes.keys()) if (/worker-.*\.js$/.test(name)) first.add(name);
  const kb = (names: Iterable<string>): number => [...names].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0) / 1_000;
  const all = [...sizes.keys()].filter((name) => /\.(js|css)$/.test(name));
  console.log(`first ${kb(first).toFixed(1)} KB of ${FIRST_KB}, all ${kb(all).toFixed(1)} KB of ${ALL_KB}: ${all.map((name) => `${name} ${kb([name]).toFixed(1)}`).join(', ')}`);
  expect(first.size).toBeGreaterThanOrEqual(2);
  expect(kb(first)).toBeLessThanOrEqual(FIRST_KB);
  expect(kb(all)).toBeLessThanOrEqual(ALL_KB);
});
