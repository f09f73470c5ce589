/** The reads that go over HTTP: first paint and history. Same rights, same cursors as the socket. */

import { readHint } from './backoff.js';
import type { Credentials } from './credentials.js';
import { passing, RoomcastError } from './error.js';
import type { CloudEvent } from './event.js';
import { isEvent, isObject, list, text, type Json } from './frame.js';

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

/** Which windows of a metric: those that share an instant with `[from, to)`, RFC 3339; of one group as keys name it, or of all. */
export interface SeriesOptions {
  from?: string;
  to?: string;
  group?: string;
}

/** Windows of a metric, the oldest first, at one instant; the cursor goes on from there. */
export interface Series {
  readonly cursor: string | undefined;
  /** Updates as they stand: {@link readUpdate} reads one. */
  readonly windows: readonly unknown[];
}

/** Longest wait for an answer, in milliseconds. */
export const HTTP_TIMEOUT_MS = 10_000;

/** Where the gateway is, default: where the page came from. Throws `RoomcastError`. */
export function gatewayAt(url = (globalThis as { location?: { origin: string } }).location?.origin): string {
  if (url === undefined) throw new RoomcastError('unsupported', 'Outside a page the client needs `url`.');
  return url.replace(/\/+$/, '');
}

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
    const body = await this.get(`/v1/rooms/${encodeURIComponent(room)}/snapshot?events=${events}`, signal);
    return {
      room,
      cursor: text(body['cursor']),
      state: list(body['state']).filter(isEvent),
      events: list(body['events']).filter(isEvent),
    };
  }

  /** `GET /v1/rooms/{room}/events`, the page before a cursor. Throws `RoomcastError`. */
  async history(room: string, options: { before?: string; limit?: number } = {}, signal?: AbortSignal): Promise<HistoryPage> {
    const query = new URLSearchParams({ limit: String(options.limit ?? 50) });
    if (options.before !== undefined) query.set('before', options.before);
    const body = await this.get(`/v1/rooms/${encodeURIComponent(room)}/events?${query}`, signal);
    return {
      events: list(body['events']).filter(isPlaced),
      cursor: text(body['cursor']),
      complete: body['complete'] === true,
    };
  }

  /** `GET /v1/metrics/{name}`. Throws `RoomcastError`. */
  async series(room: string, metric: string, options: SeriesOptions = {}, signal?: AbortSignal): Promise<Series> {
    const query = new URLSearchParams({ room, ...options });
    const body = await this.get(`/v1/metrics/${encodeURIComponent(metric)}?${query}`, signal);
    return { cursor: text(body['cursor']), windows: list(body['windows']) };
  }

  /**
   * What a socket's request would do, over HTTP: `command`, `publish`, `activity`, `presence`, `mark`, `feed`, `preferences`. Answers
   * the body of the socket's answer. Throws `RoomcastError`, `not_found` for requests that only a socket takes.
   */
  request(name: string, body: Json, timeoutMs: number): Promise<Json> {
    if (name === 'command') {
      const { name: command, ...rest } = body;
      return this.#ask(`/v1/commands/${encodeURIComponent(String(command))}`, timeoutMs, rest);
    }
    if (name !== 'feed' && name !== 'presence') return this.#ask(`/v1/${name === 'mark' ? 'marks' : name}`, timeoutMs, body);
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(body)) query.set(key, typeof value === 'object' ? JSON.stringify(value) : String(value));
    return this.#ask(`/v1/${name}?${query}`, timeoutMs);
  }

  /** Any address of the gateway that answers JSON. Throws `RoomcastError`. */
  get(path: string, signal?: AbortSignal): Promise<Json> {
    return this.#ask(path, HTTP_TIMEOUT_MS, undefined, signal);
  }

  async #ask(path: string, timeoutMs: number, post?: Json, signal?: AbortSignal): Promise<Json> {
    const answerTo = async (token: string | undefined): Promise<Response> => {
      const timeout = AbortSignal.timeout(timeoutMs);
      try {
        return await send(this.#fetch ?? globalThis.fetch, this.#base() + path, token, signal === undefined ? timeout : AbortSignal.any([signal, timeout]), post);
      } catch (error) {
        throw passing('network', String(error));
      }
    };
    const token = await this.#credentials.get();
    let response = await answerTo(token);
    if (response.status === 401) response = await answerTo(await this.#credentials.renew('expired', token));
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw problem(response.status, body);
    if (!isObject(body)) throw passing('network', 'The answer was not JSON.', { status: response.status });
    return body;
  }
}

/** One request of ours, by GET, or with `post` by POST. */
export function send(fetcher: typeof fetch, url: string, token: string | undefined, signal: AbortSignal, post?: Json): Promise<Response> {
  const headers: Record<string, string> = {};
  if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
  const init: RequestInit = { headers, signal, cache: 'no-store', credentials: 'omit' };
  if (post !== undefined) {
    headers['content-type'] = 'application/json';
    init.method = 'POST';
    init.body = JSON.stringify(post);
  }
  return fetcher(url, init);
}

/** An RFC 9457 problem as an error; a proxy's page without a code is judged by its status. */
export function problem(status: number, body: unknown): RoomcastError {
  const facts = isObject(body) ? body : {};
  const code = text(facts['code']) ?? CODE_OF_STATUS[status] ?? (status >= 500 ? 'unavailable' : 'unknown');
  return new RoomcastError(code, text(facts['detail'] ?? facts['title']) ?? `The gateway answered ${status}.`, {
    status,
    temporary: typeof facts['temporary'] === 'boolean' ? facts['temporary'] : status >= 500 || (status === 429 && code !== 'limit') || status === 408,
    retryAfterMs: readHint(facts['retryAfterMs']),
  });
}

const CODE_OF_STATUS: Readonly<Record<number, string>> = { 401: 'unauthenticated', 403: 'forbidden', 429: 'rate' };

function isPlaced(value: unknown): value is { cursor: string; event: CloudEvent } {
  return isObject(value) && typeof value['cursor'] === 'string' && isEvent(value['event']);
}
