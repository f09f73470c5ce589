/** A metric over time: windows read once over HTTP and gone on with live updates. Pure; a window's newest revision counts. */

import type { CloudEvent } from 'roomcast';
import { readMetric } from './metric.js';

/** One window. */
export interface Point {
  /** First instant inside, milliseconds since the Unix epoch. */
  readonly start: number;
  readonly end: number;
  readonly value: number | null;
  readonly revision: number;
}

/** How far a chart has come. */
export interface Series {
  readonly state: 'loading' | 'ready' | 'failed';
  /** Why it failed, for people. */
  readonly why: string | undefined;
  /** Ascending by start. */
  readonly points: readonly Point[];
}

/** Nothing yet. */
export const NO_SERIES: Series = { state: 'loading', why: undefined, points: [] };

/** Windows a chart keeps; the oldest leave first. */
export const POINTS_MAX = 1_000;

/** Reads a window out of an update; undefined when it has none. */
export function readPoint(event: CloudEvent): Point | undefined {
  const metric = readMetric(event);
  if (metric === undefined || metric.window.start === null || metric.window.end === null) return undefined;
  const value = metric.value === null ? null : Number(metric.value);
  return { start: metric.window.start, end: metric.window.end, value, revision: metric.revision };
}

/** Puts windows in; of two for one start the higher revision stays, of equal ones the later told. */
export function merge(points: readonly Point[], more: readonly Point[]): readonly Point[] {
  if (more.length === 0) return points;
  const last = points.at(-1);
  const [only] = more;
  // The usual case: the current window moved.
  if (more.length === 1 && only !== undefined && last !== undefined && only.start >= last.start) {
    if (only.start > last.start) return [...points, only].slice(-POINTS_MAX);
    return only.revision < last.revision ? points : [...points.slice(0, -1), only];
  }
  const byStart = new Map(points.map((point) => [point.start, point]));
  for (const point of more) {
    const before = byStart.get(point.start);
    if (before === undefined || point.revision >= before.revision) byStart.set(point.start, point);
  }
  return [...byStart.values()].sort((a, b) => a.start - b.start).slice(-POINTS_MAX);
}
