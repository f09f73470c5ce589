/** Names of metrics in a room's state, and what their statuses add. Pure; the updates themselves are read by the SDK. */

import type { CloudEvent } from 'roomcast';
import { isJson } from './json.js';

/** What `metric.status` adds. */
export interface MetricStatus {
  /** Skipped events by reason, cumulative. */
  readonly skipped: readonly (readonly [reason: string, count: number])[];
}

/** What a state key names: a metric, perhaps one group of it, perhaps a window that is over. Undefined for statuses and others. */
export function readKey(key: string): { metric: string; group: string | undefined; closed: boolean } | undefined {
  // A metric's name is of letters, digits, - and _.
  const found = /^([\w-]+)(?:\/([^@]*))?(@.+)?$/.exec(key);
  if (found === null || found[1] === undefined || found[1] === 'status' || found[1] === 'notification') return undefined;
  return { metric: found[1], group: found[2], closed: found[3] !== undefined };
}

/** Reads `metric.status`; undefined when it is none. */
export function readStatus(event: CloudEvent): MetricStatus | undefined {
  if (!isJson(event.data) || event.type !== 'metric.status') return undefined;
  const { skipped } = event.data;
  return { skipped: Object.entries(isJson(skipped) ? skipped : {}).filter((entry): entry is [string, number] => typeof entry[1] === 'number' && entry[1] > 0) };
}

/** An instant of the wire in milliseconds since the Unix epoch; null where there is none. */
export function instant(text: string | null | undefined): number | null {
  const time = Date.parse(text ?? '');
  return Number.isNaN(time) ? null : time;
}
