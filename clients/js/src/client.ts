/**
 * The client: rooms over one connection. Ties the link (socket), the rooms (what is delivered) and HTTP (first paint)
 * together. This is the file to read first; `index.ts` exports it.
 */

import { Credentials, type TokenSource } from './credentials.js';
import { newCounters, type Counters } from './counters.js';
import { RoomcastError } from './error.js';
import type { CloudEvent, EventMap } from './event.js';
import type { RoomAnswer, ServerFrame } from './frame.js';
import { Http, type HistoryPage, type Snapshot } from './http.js';
import { Link, type SocketClass } from './link.js';
import type { ConnectionState } from './machine.js';
import { Feed, Room, type Loading, type RoomHandlers } from './room.js';

/** Release of this package, told to the server. */
export const VERSION = '0.1.0';

/** How to make a client. */
export interface ClientOptions {
  /** The gateway, `https://live.example.com`. Default: where the page came from. */
  url?: string;
  /** A token or a callback that brings one; asked again when it expires. */
  token?: TokenSource;
  /** For Node before 22: `import { WebSocket } from 'ws'`. */
  webSocket?: SocketClass;
  /** Default: the global `fetch`. */
  fetch?: typeof fetch;
  /** What the server's logs call this client, ≤ 128 characters. */
  name?: string;
  /** Told what a listener threw and what could not be read. Default: `console.error` for the former. */
  onProblem?: (problem: RoomcastError | unknown) => void;
  /** Uniform in [0, 1); for tests. */
  random?: () => number;
}

/** A listener's hold on a room. */
export interface Subscription {
  readonly room: string;
  /** The latest value of every key, live: the map changes with the room. */
  readonly state: ReadonlyMap<string, CloudEvent>;
  /** Ends it; the last one of a room leaves the room. */
  unsubscribe(): void;
}

/** How long `connect` waits for history that is on its way, in milliseconds; then the socket goes first. */
const HISTORY_WAIT_MS = 3_000;
/** A room refused for a passing reason is asked for again after this, in milliseconds, unless the server says when. */
const REJOIN_MS = 5_000;
/** Longest timer that browsers keep, with room to spare, in milliseconds. */
const TIMER_MAX_MS = 3_600_000;

/** A connection to Roomcast and the rooms on it. Nothing happens before {@link connect}. */
export class Client<M extends EventMap = EventMap> {
  /** What was delivered and what was not, and why. */
  readonly counters: Counters = newCounters();
  readonly #options: ClientOptions;
  readonly #credentials: Credentials;
  readonly #http: Http;
  readonly #link: Link;
  readonly #rooms = new Map<string, Room>();
  #tokenSent: string | undefined;
  readonly #requests = new Map<number, Room>();
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  /** Server's clock minus ours, in milliseconds. */
  #clockOffset = 0;
  #expiryTimer: ReturnType<typeof setTimeout> | undefined;
  #expiryAt = Infinity;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
    this.#credentials = new Credentials(options.token);
    this.#http = new Http(() => this.#base(), this.#credentials, options.fetch);
    this.#link = new Link({
      socketUrl: () => `${this.#base().replace(/^http/, 'ws')}/v1/ws`,
      socketClass: options.webSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket,
      connectBody: (fresh) => this.#connectBody(fresh),
      refresh: () => void this.#refresh(),
      frame: (frame) => this.#frame(frame),
      changed: (state, before) => this.#changed(state, before),
      random: options.random ?? Math.random,
    });
  }

  /** Where the connection stands. A change is a new object. */
  get connection(): ConnectionState {
    return this.#link.state;
  }

  /** The server's clock as far as we know it, in milliseconds since the Unix epoch. */
  serverNow(): number {
    return Date.now() + this.#clockOffset;
  }

  /** Starts, or starts again after an end. */
  connect(): void {
    this.#link.listen();
    this.#link.input({ type: 'start' });
  }

  /** Ends the connection for good; `connect` begins anew with the same cursors. */
  close(): void {
    this.#link.unlisten();
    this.#link.input({ type: 'stop' });
    clearTimeout(this.#expiryTimer);
    this.#expiryAt = Infinity;
  }

  /** Stops by the user's wish. What happens meanwhile is delivered on {@link resume}. */
  pause(): void {
    this.#link.input({ type: 'pause' });
  }

  /** Goes on where {@link pause} stopped. */
  resume(): void {
    this.#link.input({ type: 'resume' });
  }

  /** Ends a wait. */
  retryNow(): void {
    this.#link.input({ type: 'retryNow' });
  }

  /** Tells every change of {@link connection}. Returns how to stop. */
  onConnection(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Listens to a room: history over HTTP first, then live from exactly there. May be called before {@link connect} and
   * several times for one room; each subscription gets every event once. Handlers are never called before this returns.
   */
  subscribe<E extends EventMap = M>(name: string, handlers: RoomHandlers<E>): Subscription {
    const room = this.#room(name);
    const feed = new Feed(handlers as RoomHandlers, this.#roomHost);
    room.feeds.add(feed);
    queueMicrotask(() => {
      if (!room.feeds.has(feed)) return;
      room.welcome(feed);
      if (feed.holding) void this.#load(room).then(() => this.#join(room));
      else this.#join(room);
    });
    return { room: name, state: room.store.values, unsubscribe: () => this.#leave(room, feed) };
  }

  /** The room at one instant, over HTTP. Throws `RoomcastError`. */
  snapshot(room: string, events = 50, signal?: AbortSignal): Promise<Snapshot> {
    return this.#http.snapshot(room, events, signal);
  }

  /** Past events before a cursor, over HTTP. Throws `RoomcastError`. */
  history(room: string, options: { before?: string; limit?: number } = {}, signal?: AbortSignal): Promise<HistoryPage> {
    return this.#http.history(room, options, signal);
  }

  /** Where each room stands: for views that explain the connection. */
  rooms(): { room: string; cursor: string | undefined; joined: boolean; caughtUp: boolean; keys: number; subscriptions: number }[] {
    return [...this.#rooms.values()].map((room) => ({
      room: room.name,
      cursor: room.cursor,
      joined: room.joined,
      caughtUp: room.joined && !room.recovering,
      keys: room.store.values.size,
      subscriptions: room.feeds.size,
    }));
  }

  readonly #roomHost = {
    counters: this.counters,
    now: (): number => this.serverNow(),
    listenerFailed: (error: unknown): void => {
      this.counters.listenerErrors += 1;
      this.#problem(error);
    },
    expiryAt: (at: number): void => this.#armExpiry(at),
  };

  #room(name: string): Room {
    let room = this.#rooms.get(name);
    if (room === undefined) {
      room = new Room(name, this.#roomHost);
      this.#rooms.set(name, room);
    }
    return room;
  }

  /** Loads the history that subscriptions of this room wait for. A temporary failure leaves them waiting for the next connection. */
  #load(room: Room): Promise<void> {
    if (room.loading !== undefined) return room.loading.done;
    if (!room.wantsHistory) return Promise.resolve();
    const stop = new AbortController();
    const loading: Loading = { stop, done: Promise.resolve() };
    room.loading = loading;
    loading.done = this.#fetchHistory(room, loading);
    return loading.done;
  }

  async #fetchHistory(room: Room, loading: Loading): Promise<void> {
    try {
      const snapshot = await this.#http.snapshot(room.name, room.historyLength, loading.stop.signal);
      if (room.loading !== loading) return;
      room.loading = undefined;
      room.loaded(snapshot);
    } catch (thrown) {
      if (room.loading !== loading) return;
      room.loading = undefined;
      const error = thrown instanceof RoomcastError ? thrown : new RoomcastError('network', String(thrown), { temporary: true });
      if (!error.temporary) room.fail(error);
      // News must not wait behind a history that does not come while the socket works.
      if (!error.temporary || room.joined) room.unloaded();
    }
  }

  /** Asks the present connection for a room that it does not carry yet. */
  #join(room: Room): void {
    if (room.joined || room.asked || room.feeds.size === 0 || this.#link.state.status !== 'live') return;
    const id = this.#link.request('subscribe', roomRequest(room));
    if (id === undefined) return;
    this.#ask(room);
    this.#requests.set(id, room);
  }

  /** From here on the socket knows better than a history that was asked for earlier and has no cursor to join at. */
  #ask(room: Room): void {
    room.asked = true;
    room.loading?.stop.abort();
    room.loading = undefined;
  }

  #leave(room: Room, feed: Feed): void {
    if (!room.feeds.delete(feed) || room.feeds.size > 0) return;
    room.loading?.stop.abort();
    room.loading = undefined;
    this.#rooms.delete(room.name);
    if (room.joined || room.asked) this.#link.request('unsubscribe', { room: room.name });
  }

  async #connectBody(fresh: boolean): Promise<Record<string, unknown>> {
    const token = fresh ? await this.#credentials.renew('expired', this.#tokenSent) : await this.#credentials.get();
    this.#tokenSent = token;
    const waiting = [...this.#rooms.values()].filter((room) => room.wantsHistory && room.cursor === undefined);
    if (waiting.length > 0) await settled(waiting.map((room) => this.#load(room)), HISTORY_WAIT_MS);
    const rooms = [...this.#rooms.values()];
    for (const room of rooms) this.#ask(room);
    return {
      ...(token === undefined ? {} : { token }),
      client: (this.#options.name ?? `roomcast-js/${VERSION}`).slice(0, 128),
      rooms: rooms.map(roomRequest),
    };
  }

  async #refresh(): Promise<void> {
    try {
      const token = await this.#credentials.renew('expiring', this.#tokenSent);
      this.#tokenSent = token;
      if (token !== undefined) this.#link.request('refresh', { token });
    } catch (error) {
      // The connection lasts until the token ends; then 4003 asks again.
      this.#problem(error);
    }
  }

  #frame(frame: ServerFrame): void {
    this.counters.frames += 1;
    switch (frame.kind) {
      case 'event':
        return this.#event(frame.room, frame.event, frame.cursor);
      case 'caughtUp':
        return this.#rooms.get(frame.room)?.caughtUp(frame.cursor);
      case 'connected':
        return this.#connected(frame.session.serverTime, frame.rooms);
      case 'subscribed':
        this.#requestDone(frame.id);
        return this.#answered(frame.answer);
      case 'unsubscribed':
        // With an id it answers our own wish; without, the server took the room away.
        return frame.id === undefined ? this.#removed(frame.room, frame.error) : undefined;
      case 'refreshed':
      case 'roles':
        // New rights may open what was refused.
        for (const room of this.#rooms.values()) this.#join(room);
        return;
      case 'error': {
        const error = new RoomcastError(frame.error.code, frame.error.message, frame.error);
        const room = this.#requestDone(frame.id);
        if (room === undefined) return this.#problem(error);
        return this.#refused(room, error);
      }
      case 'thinned':
        this.counters.thinned += frame.count;
        return;
      case 'unknown':
        this.counters.unknown += 1;
        return;
      case 'malformed':
        this.counters.malformed += 1;
        return this.#problem(new RoomcastError('protocol', `A message could not be read: ${frame.why}.`));
      default:
        return;
    }
  }

  #event(name: string, event: CloudEvent, cursor: string | undefined): void {
    const room = this.#rooms.get(name);
    // Left a moment ago, and perhaps entered again: what still comes from before is not part of the new stay.
    if (room === undefined || !room.joined) this.counters.unheard += 1;
    else room.take(event, cursor);
  }

  #connected(serverTime: string | undefined, answers: readonly RoomAnswer[]): void {
    const server = serverTime === undefined ? Number.NaN : Date.parse(serverTime);
    if (!Number.isNaN(server)) this.#clockOffset = server - Date.now();
    const named = new Set(answers.map((answer) => answer.room));
    for (const answer of answers) this.#answered(answer);
    for (const room of this.#rooms.values()) {
      // Not answered, or subscribed while the connection was being made.
      if (!named.has(room.name)) room.asked = false;
      if (room.loading === undefined && !named.has(room.name)) this.#join(room);
    }
  }

  #answered(answer: RoomAnswer): void {
    if (answer.error !== undefined) {
      const room = this.#rooms.get(answer.room);
      if (room === undefined) return;
      return this.#refused(room, new RoomcastError(answer.error.code, answer.error.message, { ...answer.error, room: answer.room }));
    }
    // Rooms the server opens by itself are kept too, so that a later subscription finds their state.
    const room = this.#room(answer.room);
    room.asked = true;
    room.begin(answer);
    if (room.wantsHistory) void this.#load(room);
  }

  /** The server would not let us in. */
  #refused(room: Room, error: RoomcastError): void {
    room.leave();
    room.unloaded();
    room.fail(error);
    if (error.temporary) {
      setTimeout(() => this.#join(room), error.retryAfterMs ?? REJOIN_MS);
    } else {
      // Nothing of what was kept is shown on: the right to it is gone.
      room.forget();
    }
  }

  #removed(name: string, error: { code: string; message: string } | undefined): void {
    const room = this.#rooms.get(name);
    if (room === undefined || room.feeds.size === 0) {
      this.#rooms.delete(name);
      return;
    }
    room.leave();
    room.forget();
    room.fail(new RoomcastError(error?.code ?? 'forbidden', error?.message ?? 'The server closed the room.', { room: name }));
  }

  #requestDone(id: number | undefined): Room | undefined {
    if (id === undefined) return undefined;
    const room = this.#requests.get(id);
    this.#requests.delete(id);
    return room;
  }

  #changed(state: ConnectionState, before: ConnectionState): void {
    if (state.status === 'live' && before.status !== 'live') this.counters.connects += 1;
    if (before.status === 'live' && state.status !== 'live') {
      if (state.status === 'waiting') this.counters.losses += 1;
    }
    if (state.status === 'waiting' || state.status === 'paused' || state.status === 'closed') {
      this.#requests.clear();
      for (const room of this.#rooms.values()) room.leave();
    }
    for (const listener of this.#listeners) {
      try {
        listener(state);
      } catch (error) {
        this.#roomHost.listenerFailed(error);
      }
    }
  }

  #armExpiry(at: number): void {
    if (at >= this.#expiryAt) return;
    clearTimeout(this.#expiryTimer);
    this.#expiryAt = at;
    this.#expiryTimer = setTimeout(() => this.#expire(), Math.min(TIMER_MAX_MS, Math.max(0, at - this.serverNow())));
  }

  #expire(): void {
    this.#expiryAt = Infinity;
    const now = this.serverNow();
    for (const room of this.#rooms.values()) {
      room.expire(now);
      const next = room.store.nextExpiry();
      if (next !== undefined) this.#armExpiry(next);
    }
  }

  #problem(problem: unknown): void {
    if (this.#options.onProblem !== undefined) this.#options.onProblem(problem);
    else if (!(problem instanceof RoomcastError)) console.error(problem);
  }

  #base(): string {
    const url = this.#options.url ?? (globalThis as { location?: { origin: string } }).location?.origin;
    if (url === undefined) throw new RoomcastError('unsupported', 'Outside a page the client needs `url`.');
    return url.replace(/\/+$/, '');
  }
}

function roomRequest(room: Room): Record<string, unknown> {
  return { room: room.name, ...(room.cursor === undefined ? {} : { cursor: room.cursor }) };
}

/** Waits for all, but no longer than `ms`. */
async function settled(promises: readonly Promise<unknown>[], ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([Promise.allSettled(promises), limit]);
  clearTimeout(timer);
}
