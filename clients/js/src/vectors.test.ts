import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readFrame } from './frame.js';

/** Every message of the contract that the server may send. */
const vectors = JSON.parse(readFileSync(new URL('../../../proto/vectors/server_frames.json', import.meta.url), 'utf8')) as { text: string }[];
/** Answers, which mean something only to whoever asked. */
const ANSWERS = new Set(['history', 'published', 'result', 'feed', 'preferences']);

describe('golden vectors of the contract', () => {
  it('are there', () => {
    expect(vectors.length).toBeGreaterThan(10);
  });

  it.each(vectors.map(({ text }) => text))('%s', (text) => {
    const name = Object.keys(JSON.parse(text) as object).find((key) => key !== 'id') ?? '';
    const frame = readFrame(text);
    expect(frame.kind).toBe(ANSWERS.has(name) ? 'other' : name);
  });
});
