/** The reads that go over HTTP: first paint and history. Same rights, same cursors as the socket. */

import { readHint } from './backoff.js';
import type { Credentials } from './credentials.js';
import { RoomcastError } from './error.js';
import type { CloudEvent } from './event.js';
import { isEvent, isObject } from './frame.js';

/** A room at one instant: all state, the last events ascending, and the cursor to go on from. */
export interface Snapshot {
  readonly room: string;
  readonly cursor: string | undefined;
  readonly state: CloudEvent[];
  readonly events: CloudEvent[];
}

/** A page of past events, ascending. `complete` is false when the server stopped before the limit; go on with `cursor`. */
export interface HistoryPage {
  readonly events: readonly { readonly cursor: string; readonly event: CloudEvent }[];
  readonly cursor: string | undefined;
  readonly complete: boolean;
}

/** Longest wait for an answer, in milliseconds. */
export const HTTP_TIMEOUT_MS = 10_000;

/** Asks one gateway. */
export class Http {
  readonly #base: () => string;
  readonly #credentials: Credentials;
  readonly #fetch: typeof fetch | undefined;

  constructor(base: () => string, credentials: Credentials, fetcher: typeof fetch | undefined) {
    this.#base = base;
    this.#credentials = credentials;
    this.#fetch = fetcher;
  }

  /** `GET /v1/rooms/{room}/snapshot`. Throws `RoomcastError`. */
  async snapshot(room: string, events: number, signal?: AbortSignal): Promise<Snapshot> {
    const body = await this.#get(`/v1/rooms/${encodeURIComponent(room)}/snapshot?events=${events}`, signal);
    return {
      room,
      cursor: typeof body['cursor'] === 'string' ? body['cursor'] : undefined,
      state: listOf(body['state'], isEvent),
      events: listOf(body['events'], isEvent),
    };
  }

  /** `GET /v1/rooms/{room}/events`, the page before a cursor. Throws `RoomcastError`. */
  async history(room: string, options: { before?: string; limit?: number } = {}, signal?: AbortSignal): Promise<HistoryPage> {
    const query = new URLSearchParams({ limit: String(options.limit ?? 50) });
    if (options.before !== undefined) query.set('before', options.before);
    const body = await this.#get(`/v1/rooms/${encodeURIComponent(room)}/events?${query}`, signal);
    return {
      events: listOf(body['events'], isPlaced),
      cursor: typeof body['cursor'] === 'string' ? body['cursor'] : undefined,
      complete: body['complete'] === true,
    };
  }

  async #get(path: string, signal?: AbortSignal): Promise<Record<string, unknown>> {
    let token = await this.#credentials.get();
    let response = await this.#send(path, token, signal);
    if (response.status === 401) {
      token = await this.#credentials.renew('expired', token);
      response = await this.#send(path, token, signal);
    }
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw problem(response.status, body);
    if (!isObject(body)) throw new RoomcastError('network', 'The answer was not JSON.', { temporary: true, status: response.status });
    return body;
  }

  async #send(path: string, token: string | undefined, signal: AbortSignal | undefined): Promise<Response> {
    const fetcher = this.#fetch ?? globalThis.fetch;
    const timeout = AbortSignal.timeout(HTTP_TIMEOUT_MS);
    try {
      return await fetcher(this.#base() + path, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
        cache: 'no-store',
        credentials: 'omit',
      });
    } catch (error) {
      throw new RoomcastError('network', `The gateway could not be reached: ${String(error)}`, { temporary: true });
    }
  }
}

/** An RFC 9457 problem as an error; a proxy's page without a code is judged by its status. */
function problem(status: number, body: unknown): RoomcastError {
  const facts = isObject(body) ? body : {};
  const code = typeof facts['code'] === 'string' ? facts['code'] : (CODE_OF_STATUS[status] ?? (status >= 500 ? 'unavailable' : 'unknown'));
  const said = facts['detail'] ?? facts['title'];
  return new RoomcastError(code, typeof said === 'string' ? said : `The gateway answered ${status}.`, {
    status,
    temporary: status >= 500 || status === 429,
    retryAfterMs: readHint(facts['retryAfterMs']),
  });
}

const CODE_OF_STATUS: Readonly<Record<number, string>> = { 401: 'unauthenticated', 403: 'forbidden', 429: 'rate' };

function isPlaced(value: unknown): value is { cursor: string; event: CloudEvent } {
  return isObject(value) && typeof value['cursor'] === 'string' && isEvent(value['event']);
}

function listOf<T>(value: unknown, is: (item: unknown) => item is T): T[] {
  return Array.isArray(value) ? value.filter(is) : [];
}
