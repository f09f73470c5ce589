/** What a chart draws of a metric's windows. Pure. */

import type { Metric } from 'roomcast';

/** One window. */
export interface Point {
  /** First instant inside, milliseconds since the Unix epoch. */
  readonly start: number;
  readonly end: number;
  readonly value: number | null;
}

/** The windows of the metric as a whole, oldest first, of those that ended after `since`; what has no window is no point. */
export function pointsOf(windows: readonly Metric[], since = -Infinity): Point[] {
  return windows.flatMap(({ group, window, number }): Point[] => {
    const [start, end] = [Date.parse(window.start ?? ''), Date.parse(window.end ?? '')];
    return group.length > 0 || Number.isNaN(start) || Number.isNaN(end) || end <= since ? [] : [{ start, end, value: number }];
  });
}
