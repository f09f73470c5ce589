import { describe, expect, it } from 'vitest';
import { merge, POINTS_MAX, readPoint, type Point } from './series.js';

const point = (start: number, value: number, revision: number): Point => ({ start, end: start + 10, value, revision });

describe('a series', () => {
  it.each([
    ['the current window moves', [point(0, 1, 1)], [point(0, 2, 2)], [[0, 2]]],
    ['an older revision is left out', [point(0, 2, 2)], [point(0, 1, 1)], [[0, 2]]],
    ['the next window begins', [point(0, 1, 1)], [point(10, 5, 2)], [[0, 1], [10, 5]]],
    ['a late event corrects a closed one', [point(0, 1, 1), point(10, 5, 2)], [point(0, 3, 3)], [[0, 3], [10, 5]]],
    ['its past comes after what is live', [point(10, 6, 9)], [point(0, 1, 1), point(10, 5, 2)], [[0, 1], [10, 6]]],
    ['nothing comes', [point(0, 1, 1)], [], [[0, 1]]],
  ])('%s', (_, points, more, expected) => {
    expect(merge(points, more).map(({ start, value }) => [start, value])).toEqual(expected);
  });

  it('is bounded', () => {
    let points: readonly Point[] = [];
    for (let n = 0; n < POINTS_MAX + 3; n += 1) points = merge(points, [point(n * 10, n, n)]);
    expect([points.length, points[0]?.start]).toEqual([POINTS_MAX, 30]);
  });

  it('reads windows out of updates and nothing else', () => {
    const update = { specversion: '1.0', id: '1', source: 's', type: 'metric.updated', data: { value: '7', window: { start: '2026-01-01T00:00:00Z', end: '2026-01-01T01:00:00Z' }, revision: 3 } };
    expect(readPoint(update)).toEqual({ start: Date.UTC(2026, 0, 1), end: Date.UTC(2026, 0, 1, 1), value: 7, revision: 3 });
    expect(readPoint({ ...update, data: { value: '7', window: { start: null, end: null } } })).toBeUndefined();
    expect(readPoint({ ...update, type: 'x' })).toBeUndefined();
  });
});
