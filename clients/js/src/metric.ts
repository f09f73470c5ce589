/** Metric updates as an application wants them: the members of `metric.updated`, checked, with numbers beside their exact text. */

import type { CloudEvent } from './event.js';
import { isObject } from './frame.js';

/** The values a metric is grouped by, in order; `[]` where nothing is grouped, `'~other'` for everything beyond the bound. */
export type MetricGroup = readonly (string | number | boolean | null)[] | '~other';

/** One number in one window. Decimal text is exact; `number` is for charts. */
export interface Metric {
  readonly metric: string;
  readonly group: MetricGroup;
  /** `[start, end)`, RFC 3339 in UTC. Both null: all time. */
  readonly window: { readonly start: string | null; readonly end: string | null };
  /** Decimal text, or what `first` and `last` carry; null: no number. */
  readonly value: string | null;
  /** The value as a number, as near as a float comes; null where it is none. */
  readonly number: number | null;
  readonly previous: string | null;
  readonly change: string | null;
  readonly changePercent: string | null;
  readonly direction: 'up' | 'down' | 'flat' | null;
  /** The last 24 windows, oldest first; null: nothing was folded there. */
  readonly sparkline: readonly (number | null)[];
  /** Of `top`: what came most often. */
  readonly top: readonly { readonly key: string; readonly count: number }[] | undefined;
  readonly events: number;
  /** The instant the value is true for. */
  readonly asOf: string;
  readonly revision: number;
  readonly approximate: boolean;
  readonly stalled: boolean;
  readonly noData: boolean;
  readonly error: string | undefined;
  readonly incompleteSince: string | undefined;
}

/** Reads a state event of type `metric.updated`; undefined for anything else. */
export function readMetric(event: CloudEvent | undefined): Metric | undefined {
  return event?.type === 'metric.updated' ? readUpdate(event.data) : undefined;
}

/** Reads an update as it stands in an event's data, or in an answer of `/v1/metrics/{name}`. */
export function readUpdate(data: unknown): Metric | undefined {
  if (!isObject(data) || typeof data['metric'] !== 'string') return undefined;
  const span = isObject(data['window']) ? data['window'] : {};
  const value = text(data['value']);
  const direction = data['direction'];
  const group = data['group'];
  const list = <T>(name: string, read: (item: unknown) => T[]): T[] => (Array.isArray(data[name]) ? data[name].flatMap(read) : []);
  return {
    metric: data['metric'],
    group: Array.isArray(group) ? (group as MetricGroup) : group === '~other' ? group : [],
    window: { start: text(span['start']), end: text(span['end']) },
    value,
    number: numberOf(value),
    previous: text(data['previous']),
    change: text(data['change']),
    changePercent: text(data['change_percent']),
    direction: direction === 'up' || direction === 'down' || direction === 'flat' ? direction : null,
    sparkline: list('sparkline', (item) => [numberOf(text(item))]),
    top: Array.isArray(data['top']) ? list('top', (item) => (isObject(item) && typeof item['key'] === 'string' ? [{ key: item['key'], count: Number(item['count']) || 0 }] : [])) : undefined,
    events: Number(data['events']) || 0,
    asOf: text(data['as_of']) ?? '',
    revision: Number(data['revision']) || 0,
    approximate: data['approximate'] === true,
    stalled: data['stalled'] === true,
    noData: data['no_data'] === true,
    error: text(data['error']) ?? undefined,
    incompleteSince: text(data['incomplete_since']) ?? undefined,
  };
}

/** True for the state key of a closed window, `<metric>…@<start>`: the current one has no `@` (values that hold one are escaped). */
export function isClosedWindow(key: string): boolean {
  return key.includes('@');
}

/** Whether two groups are the same. */
export function sameGroup(a: MetricGroup, b: MetricGroup): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function text(value: unknown): string | null {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return typeof value === 'string' ? value : null;
}

function numberOf(value: string | null): number | null {
  if (value === null || value.trim() === '') return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}
