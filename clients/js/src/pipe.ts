/** What tabs and the hub say to each other, and what carries it. */

import type { NotificationPush } from './api.js';
import type { Counters } from './counters.js';
import { RoomcastError, type ErrorFacts } from './error.js';
import type { CloudEvent, Delivery, Reset } from './event.js';
import type { Transport } from './follow.js';
import type { Presence } from './frame.js';
import type { ConnectionState } from './machine.js';

/** Carries messages between a tab and the hub; what is posted arrives as a copy, in order. */
export interface Pipe {
  post(message: unknown): void;
  onmessage: ((message: never) => void) | null;
}

/** How the shared client is made; the first tab's word counts. */
export interface HubOptions {
  readonly url: string;
  readonly name?: string | undefined;
  readonly transports?: readonly Transport[] | undefined;
  /** Commands wait in IndexedDB, under this name. */
  readonly commands?: string | undefined;
}

/** An error as it travels. */
export interface SentError extends ErrorFacts {
  readonly code: string;
  readonly message: string;
}

/** A connection's state as it travels. */
export type SentState = Omit<ConnectionState, 'error'> & { readonly error?: SentError };

/** What tabs say. */
export type ToHub =
  | { t: 'hello'; tab: string; key: string; options: HubOptions }
  | { t: 'do'; what: 'connect' | 'retryNow' | 'online' | 'offline' | 'wake' }
  | { t: 'sub'; n: number; room: string; history: number; presence: boolean; from?: string; values?: CloudEvent[] }
  | { t: 'unsub' | 'hold' | 'release'; n: number }
  | { t: 'ask'; id: number; method: Method; args: unknown[] }
  | { t: 'activity'; kind: string; detail: string }
  | { t: 'notes' | 'count' }
  | { t: 'token'; id: number; token?: string | undefined; error?: SentError }
  | { t: 'bye' };

/** What the hub says. */
export type ToTab =
  /** `life`: the lock that a worker holds as long as it lives. */
  | { t: 'here'; life?: string }
  | { t: 'state'; state: SentState; offset: number; counters: Counters }
  | { t: 'counted'; counters: Counters }
  | { t: 'event'; n: number; event: CloudEvent; delivery: Delivery; cursor: string | undefined }
  | { t: 'value'; n: number; key: string; event: CloudEvent | undefined; gone: 'withdrawn' | 'expired' | undefined; live: boolean }
  | { t: 'caughtUp'; n: number; cursor: string | undefined }
  | { t: 'reset'; n: number; reset: Reset }
  | { t: 'presence'; n: number; presence: Presence }
  | { t: 'error'; n: number; error: SentError }
  | { t: 'answer'; id: number; value: unknown }
  | { t: 'refused'; id: number; error: SentError }
  /** `used`: the token there was. */
  | { t: 'wantToken'; id: number; reason: 'connect' | 'expiring' | 'expired'; used: string | undefined }
  | { t: 'note'; push: NotificationPush };

/** What a tab may ask of the shared client. */
export type Method = 'snapshot' | 'history' | 'series' | 'command' | 'publish' | 'presence' | 'request';

/** An error as something that can be copied. */
export function sent(thrown: unknown): SentError {
  if (!(thrown instanceof RoomcastError)) return { code: 'unknown', message: String(thrown) };
  const { code, message, temporary, retryAfterMs, status, closeCode, room } = thrown;
  return { code, message, temporary, retryAfterMs, status, closeCode, room };
}

/** An error out of a copy. */
export function received({ code, message, ...facts }: SentError): RoomcastError {
  return new RoomcastError(code, message, facts);
}

/** Two ends of a pipe inside one page. */
export function pair(): [Pipe, Pipe] {
  const ends: Pipe[] = [0, 1].map((own) => ({
    onmessage: null,
    post: (message) => queueMicrotask(() => ends[1 - own]?.onmessage?.(message as never)),
  }));
  return ends as [Pipe, Pipe];
}
