import { describe, expect, it } from 'vitest';
import { BACKOFF_CAP_MS, BACKOFF_FLOOR_MS, backoffMs, HINT_MAX_MS, readHint, retryDelayMs } from './backoff.js';

describe('back-off', () => {
  it.each([
    [0, 0, BACKOFF_FLOOR_MS],
    [0, 0.999999, 999],
    [1, 0.5, 1_000],
    [2, 0.5, 2_000],
    [4, 0.999999, 15_999],
    [5, 0.999999, BACKOFF_CAP_MS - 1],
    [1_000_000, 0.999999, BACKOFF_CAP_MS - 1],
  ])('attempt %i with chance %f waits %i ms', (attempt, random, expected) => {
    expect(backoffMs(attempt, random)).toBe(expected);
  });

  it('stays within its bounds for every attempt and chance', () => {
    for (let attempt = 0; attempt < 200; attempt += 1) {
      for (const random of [0, 0.001, 0.25, 0.5, 0.75, 0.999999]) {
        const ms = backoffMs(attempt, random);
        expect(ms).toBeGreaterThanOrEqual(BACKOFF_FLOOR_MS);
        expect(ms).toBeLessThanOrEqual(Math.min(BACKOFF_CAP_MS, 1_000 * 2 ** Math.min(attempt, 20)));
      }
    }
  });

  it('keeps to the hint on the first attempt and never comes sooner later', () => {
    expect(retryDelayMs(0, 0.9, 1_800)).toBe(1_800);
    expect(retryDelayMs(3, 0, 1_800)).toBe(1_800);
    expect(retryDelayMs(3, 0.5, 1_800)).toBe(4_000);
  });

  it.each([[-1, undefined], [Number.NaN, undefined], ['5', undefined], [Infinity, undefined], [0, 0], [1e12, HINT_MAX_MS]])(
    'reads the hint %s as %s',
    (hint, expected) => {
      expect(readHint(hint)).toBe(expected);
    },
  );
});
