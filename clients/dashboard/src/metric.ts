/** Reads the updates and the status of metrics. Pure; numbers stay decimal text so that nothing is rounded on the way. */

import type { CloudEvent } from 'roomcast';

/** Where a number goes. */
export type Direction = 'up' | 'down' | 'flat';

/** One update of a metric's current window. */
export interface Metric {
  readonly value: string | null;
  readonly previous: string | null;
  readonly changePercent: string | null;
  readonly direction: Direction | null;
  /** Oldest first, the current one last; null = nothing there. */
  readonly sparkline: readonly (number | null)[];
  readonly window: { readonly start: number | null; readonly end: number | null };
  /** Events in the window. */
  readonly events: number | null;
  /** Milliseconds since the Unix epoch. */
  readonly asOf: number | null;
  /** Since when no event matched; true when the server did not say since when. */
  readonly stalled: number | boolean;
  readonly noData: boolean;
  readonly incompleteSince: number | null;
  readonly approximate: boolean;
  readonly error: string | null;
  /** Grows with every change of the content. */
  readonly revision: number;
}

/** What `metric.status` adds. */
export interface MetricStatus {
  /** Skipped events by reason, cumulative. */
  readonly skipped: readonly (readonly [reason: string, count: number])[];
}

/** What a state key names: a metric, perhaps one group of it, perhaps a window that is over. Undefined for statuses and others. */
export function readKey(key: string): { metric: string; group: string | undefined; closed: boolean } | undefined {
  const found = /^([a-z][a-z0-9_]*)(?:\/([^@]*))?(@.+)?$/.exec(key);
  if (found === null || found[1] === undefined || found[1] === 'status' || found[1] === 'notification') return undefined;
  return { metric: found[1], group: found[2], closed: found[3] !== undefined };
}

/** A group as people read it: its values as the update names them. */
export function groupNames(event: CloudEvent): string[] {
  const group = record(event.data)?.['group'];
  if (group === '~other') return ['others'];
  return Array.isArray(group) ? group.map((value) => (value === null ? '–' : String(value))) : [];
}

/** Reads `metric.updated`; undefined when it is none. */
export function readMetric(event: CloudEvent): Metric | undefined {
  const data = record(event.data);
  if (data === undefined || event.type !== 'metric.updated') return undefined;
  const window = record(data['window']);
  const stalled = data['stalled'];
  return {
    value: decimal(data['value']),
    previous: decimal(data['previous']),
    changePercent: decimal(data['change_percent']),
    direction: direction(data['direction']),
    sparkline: Array.isArray(data['sparkline']) ? data['sparkline'].map(point) : [],
    window: { start: instant(window?.['start']), end: instant(window?.['end']) },
    events: typeof data['events'] === 'number' ? data['events'] : null,
    asOf: instant(data['as_of']),
    stalled: instant(stalled) ?? (stalled !== undefined && stalled !== null && stalled !== false),
    noData: data['no_data'] === true,
    incompleteSince: instant(data['incomplete_since']),
    approximate: data['approximate'] === true,
    error: typeof data['error'] === 'string' ? data['error'] : null,
    revision: typeof data['revision'] === 'number' ? data['revision'] : 0,
  };
}

/** Reads `metric.status`; undefined when it is none. */
export function readStatus(event: CloudEvent): MetricStatus | undefined {
  const data = record(event.data);
  if (data === undefined || event.type !== 'metric.status') return undefined;
  const skipped = Object.entries(record(data['skipped']) ?? {});
  return { skipped: skipped.filter((entry): entry is [string, number] => typeof entry[1] === 'number' && entry[1] > 0) };
}

/** Decimal text as the wire has it. */
function decimal(value: unknown): string | null {
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  return typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value) ? value : null;
}

function point(value: unknown): number | null {
  const text = decimal(typeof value === 'object' && value !== null ? (value as { value?: unknown }).value : value);
  return text === null ? null : Number(text);
}

function instant(value: unknown): number | null {
  if (typeof value !== 'string') return null;
  const time = Date.parse(value);
  return Number.isNaN(time) ? null : time;
}

function direction(value: unknown): Direction | null {
  return value === 'up' || value === 'down' || value === 'flat' ? value : null;
}

function record(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
}
