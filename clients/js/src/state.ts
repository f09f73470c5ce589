/**
 * The latest value of every key of one room. Pure: the time is an argument.
 * Fed by the room; read by the application through the subscription.
 */

import type { CloudEvent } from './event.js';

/** What applying an event changed. */
export type StateEffect = 'set' | 'withdrawn' | 'expired' | 'unchanged';

/** Keys one room may hold; the server keeps to the same bound. */
export const KEYS_MAX = 10_000;

/** Latest values by key. */
export class StateStore {
  readonly #values = new Map<string, CloudEvent>();
  readonly #expiry = new Map<string, number>();

  /** The values, live: the map changes with the room. */
  get values(): ReadonlyMap<string, CloudEvent> {
    return this.#values;
  }

  /**
   * Applies one state event. `now` is the server's time in milliseconds since the Unix epoch. A withdrawn key and a
   * value that has expired are removed; the same event again changes nothing, unless other rights show more or less of it; a new key beyond `KEYS_MAX` is refused
   * as unchanged.
   */
  apply(event: CloudEvent, now: number): StateEffect {
    const key = event.statekey;
    if (key === undefined) return 'unchanged';
    const before = this.#values.get(key);
    if (event.withdrawn === true) return this.#remove(key) ? 'withdrawn' : 'unchanged';
    const expiry = expiryOf(event);
    if (expiry !== undefined && expiry <= now) return this.#remove(key) ? 'expired' : 'unchanged';
    if (before === undefined ? this.#values.size >= KEYS_MAX : isSame(before, event)) return 'unchanged';
    this.#values.set(key, event);
    if (expiry === undefined) this.#expiry.delete(key);
    else this.#expiry.set(key, expiry);
    return 'set';
  }

  /** Removes what has expired at `now` and names the keys: the stream sends nothing at expiry. */
  expire(now: number): string[] {
    const gone = [...this.#expiry].filter(([, at]) => at <= now).map(([key]) => key);
    for (const key of gone) this.#remove(key);
    return gone;
  }

  /** The next instant at which something expires; Infinity for never. */
  nextExpiry(): number {
    return Math.min(...this.#expiry.values());
  }

  /** Forgets everything. */
  clear(): void {
    this.#values.clear();
    this.#expiry.clear();
  }

  #remove(key: string): boolean {
    this.#expiry.delete(key);
    return this.#values.delete(key);
  }
}

/** The same event, with the same members. */
export function isSame(a: CloudEvent, b: CloudEvent): boolean {
  return a.id === b.id && a.source === b.source && JSON.stringify(a) === JSON.stringify(b);
}

/** When an event stops to hold, in milliseconds since the Unix epoch; undefined when never or unreadable. */
export function expiryOf(event: CloudEvent): number | undefined {
  if (event.expirytime === undefined) return undefined;
  const at = Date.parse(event.expirytime);
  return Number.isNaN(at) ? undefined : at;
}
