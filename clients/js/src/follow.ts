/**
 * What the ways over HTTP have in common: they look like a socket to the link, and get the same frames. A socket's
 * messages become requests; what ends one becomes a close, so that the machine need not know the difference.
 */

import { readHint } from './backoff.js';
import { problem, send } from './http.js';
import type { SocketLike } from './link.js';
import type { Json } from './frame.js';

/** A way on which frames come. */
export type Transport = 'websocket' | 'sse' | 'longpoll' | 'poll';

/** All of them, the best first. */
export const TRANSPORTS: readonly Transport[] = ['websocket', 'sse', 'longpoll', 'poll'];

/** Our own close code: this way does not work here, try the next one. Never sent. */
export const CLOSE_UNFIT = 4901;

/** A room to follow, from a cursor or fresh. */
export interface Followed {
  readonly room: string;
  readonly cursor?: string | undefined;
}

/** What a way over HTTP needs from its client. */
export interface FollowHost {
  base(): string;
  /** The rooms as they stand now. */
  rooms(): readonly Followed[];
  readonly fetch: typeof fetch;
}

/** The query that gives each room its own cursor. */
export function followQuery(rooms: readonly Followed[]): URLSearchParams {
  const query = new URLSearchParams();
  for (const { room } of rooms) query.append('room', room);
  if (rooms.every(({ cursor }) => cursor === undefined)) return query;
  for (const { cursor } of rooms) query.append('cursor', cursor ?? '');
  // A single cursor would count for all rooms, those that the policy joins too: naming the room twice makes it the room's own.
  const [only] = rooms;
  if (rooms.length === 1 && only !== undefined) {
    query.append('room', only.room);
    query.append('cursor', only.cursor ?? '');
  }
  return query;
}

/** The base of both: a socket as far as the link can tell. */
export abstract class Follower implements SocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  protected token: string | undefined;
  /** The client wants to know how many notifications are unread. */
  #counts = false;
  /** The rooms of which it wants to know who is there. */
  readonly #watched = new Set<unknown>();
  protected readonly host: FollowHost;
  /** Ends the request under way. */
  protected stop = new AbortController();
  protected isClosed = false;

  constructor(host: FollowHost) {
    this.host = host;
    queueMicrotask(() => this.isClosed || this.onopen?.({} as never));
  }

  /** A message of the client, as on a socket. */
  send(data: string): void {
    const { id, ...frame } = JSON.parse(data) as Json & { id?: number };
    const [name = '', body] = Object.entries(frame)[0] ?? [];
    const told = (body ?? {}) as Json;
    if (name === 'counters' || told['counters']) this.#counts = true;
    for (const { room, presence } of [told, ...((told['rooms'] ?? []) as Json[])]) if (presence) this.#watched.add(room);
    this.told(name, told, id);
  }

  /** What is asked of these rooms; `counted`: the version of the counters that are known. */
  protected query(rooms: readonly Followed[], counted: number): URLSearchParams {
    const query = followQuery(rooms);
    if (this.#counts) query.set('counters', String(counted));
    for (const room of this.#watched) query.append('presence', room as string);
    return query;
  }

  close(): void {
    this.isClosed = true;
    this.stop.abort();
  }

  protected abstract told(name: string, body: Json, id: number | undefined): void;

  /** Hands a frame to the link. */
  protected say(frame: unknown): void {
    this.sayText(JSON.stringify(frame));
  }

  protected sayText(data: string): void {
    if (!this.isClosed) this.onmessage?.({ data } as never);
  }

  /** Ends like a socket that closed. */
  protected end(code: number, reason = ''): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.stop.abort();
    this.onclose?.({ code, reason } as never);
  }

  /** Asks the gateway with the token. */
  protected ask(path: string, signal: AbortSignal, post?: Json): Promise<Response> {
    return send(this.host.fetch, this.host.base() + path, this.token, signal, post);
  }

  /** What an answer that is no success means for the connection; the code of a 403 is the caller's to judge first. */
  protected async refused(response: Response): Promise<void> {
    const { status } = response;
    const error = problem(status, await response.json().catch(() => undefined));
    if (status === 401) return this.end(error.code === 'expired' ? 4003 : 4500, error.message);
    if (status === 403) return this.end(4502, error.message);
    if (status === 429 || status === 408 || status >= 500) {
      const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
      const retryAfterMs = error.retryAfterMs ?? readHint(seconds * 1_000);
      const code = status === 429 ? 4006 : 4005;
      return this.say({ disconnect: { code, reason: error.message, reconnect: true, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) } });
    }
    // Something on the way that knows no such address, or the gateway itself would not have it so: asking again is of no use.
    this.end(CLOSE_UNFIT, error.message);
  }
}

/** The answer about rooms none of which is open to the user. */
export function forbidden(rooms: readonly Followed[]): Json[] {
  return rooms.map(({ room }) => ({ room, error: { code: 'forbidden', message: 'not there, or not yours', temporary: false } }));
}
