import { describe, expect, it } from 'vitest';
import { spanOf } from './rows-on-screen.js';

describe('rows on the screen', () => {
  it.each([
    ['an empty list', 0, 0, 900, [0, 0]],
    ['a short one is drawn whole', 5, 0, 900, [0, 5]],
    ['the top of a long one', 10_000, -300, 600, [0, 20]],
    ['a list below the screen keeps its first rows', 10_000, -5_000, -4_100, [0, 8]],
    ['the middle', 10_000, 44_000, 44_900, [992, 1_028]],
    ['a few pixels further the same', 10_000, 44_050, 44_960, [992, 1_028]],
    ['the end', 10_000, 439_100, 440_000, [9_972, 10_000]],
    ['beyond the end, after the list became short', 20, 44_000, 44_900, [16, 20]],
  ])('%s', (_, count, from, to, [first, end]) => {
    expect(spanOf(count as number, 44, from as number, to as number)).toEqual({ first, end });
  });

  it('always holds what is seen, and a bounded number beside it', () => {
    for (let count = 0; count < 200; count += 7) {
      for (let from = -500; from < 10_000; from += 33) {
        const { first, end } = spanOf(count, 44, from, from + 900);
        for (let row = 0; row < count; row += 1) {
          const seen = (row + 1) * 44 > from && row * 44 < from + 900;
          if (seen) expect(row >= first && row < end, `row ${row} of ${count} at ${from}`).toBe(true);
        }
        expect(end - first).toBeLessThanOrEqual(22 + 2 * (6 + 4));
        expect(first).toBeGreaterThanOrEqual(0);
      }
    }
  });
});
