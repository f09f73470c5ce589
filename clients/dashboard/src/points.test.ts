import type { Metric } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { pointsOf } from './points.js';

const window = (start: string | null, end: string | null, number: number | null, group: unknown = []): Metric => ({ group, window: { start, end }, number }) as Metric;

describe('points', () => {
  it('are the windows of the metric as a whole, gaps included', () => {
    const hours = ['2026-01-01T00:00:00Z', '2026-01-01T01:00:00Z', '2026-01-01T02:00:00Z'] as const;
    expect(pointsOf([window(hours[0], hours[1], 3), window(hours[0], hours[1], 1, ['a']), window(hours[1], hours[2], null), window(null, null, 9), window('soon', 'later', 2)])).toEqual([
      { start: Date.parse(hours[0]), end: Date.parse(hours[1]), value: 3 },
      { start: Date.parse(hours[1]), end: Date.parse(hours[2]), value: null },
    ]);
  });

  it('are those that reach into the time that is looked at', () => {
    const hours = ['2026-01-01T00:00:00Z', '2026-01-01T01:00:00Z', '2026-01-01T02:00:00Z'] as const;
    const both = [window(hours[0], hours[1], 1), window(hours[1], hours[2], 2)];
    const after = (since: string): (number | null)[] => pointsOf(both, Date.parse(since)).map(({ value }) => value);
    expect([after('2026-01-01T00:59:59Z'), after(hours[1]), after('2026-01-01T01:30:00Z'), after(hours[2])]).toEqual([[1, 2], [2], [2], []]);
  });
});
