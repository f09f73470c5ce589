/**
 * The client: rooms over one connection. Ties the link (socket), the rooms (what is delivered) and HTTP (first paint)
 * together. This is the file to read first; `index.ts` exports it.
 */

import { Credentials, type TokenSource } from './credentials.js';
import type { CommandOptions, NotificationPush, QueuedCommand, RoomcastClient, RoomStanding, Subscription } from './api.js';
import { Commands, type CommandStorage } from './commands.js';
import { newCounters, type Counters } from './counters.js';
import { asError, RoomcastError } from './error.js';
import type { CloudEvent, EventMap } from './event.js';
import { readPresence, type Json, type Presence, type RoomAnswer, type ServerFrame } from './frame.js';
import { TRANSPORTS, type Transport } from './follow.js';
import { Http, HTTP_TIMEOUT_MS, type HistoryPage, type Series, type SeriesOptions, type Snapshot } from './http.js';
import { Link, SUBPROTOCOL, type SocketClass, type SocketLike } from './link.js';
import type { ConnectionState } from './machine.js';
import type { Place } from './missed.js';
import { Poll } from './poll.js';
import { Feed, Room, type Loading, type RoomHandlers } from './room.js';
import { Stream } from './stream.js';

/** Release of this package, told to the server. */
export const VERSION = '0.1.0';

/** Hears what a connection does, in words; `console` is one. */
export interface Logger {
  info(message: string, ...facts: unknown[]): void;
}

/** How to make a client. */
export interface ClientOptions {
  /** The gateway, `https://live.example.com`. Default: where the page came from. */
  url?: string;
  /** A token or a callback that brings one; asked again when it expires. */
  token?: TokenSource;
  /** Ways that may be used, the best first; a lower one only while the better ones do not work. Default: all. */
  transports?: readonly Transport[];
  /** For Node before 22: `import { WebSocket } from 'ws'`. */
  webSocket?: SocketClass;
  /** Default: the global `fetch`. */
  fetch?: typeof fetch;
  /** What happens while nobody sees the page, for subscriptions that do not say it themselves. Default `deliver`. */
  whileHidden?: 'deliver' | 'hold';
  /** Where commands wait for a connection. Default: memory; {@link indexedDbCommands} survives a reload. */
  commands?: CommandStorage;
  /** Told what the connection does; `console` fits. Default: nobody. */
  log?: Logger;
  /** What the server's logs call this client, ≤ 128 characters. */
  name?: string;
  /** Told what a listener threw and what could not be read. Default: `console.error` for the former. */
  onProblem?: (problem: RoomcastError | unknown) => void;
  /** Uniform in [0, 1); for tests. */
  random?: () => number;
}

/** How long `connect` waits for history that is on its way, in milliseconds; then the socket goes first. */
const HISTORY_WAIT_MS = 3_000;
/** A room refused for a passing reason is asked for again after this, in milliseconds, unless the server says when. */
const REJOIN_MS = 5_000;
/** A refresh that failed for a passing reason is tried again after this, in milliseconds, unless the server says when. */
const REFRESH_MS = 5_000;
/** What an answer may need beyond the time its backend was given, in milliseconds. */
const ANSWER_GRACE_MS = 5_000;
/** Longest timer that browsers keep, with room to spare, in milliseconds. */
const TIMER_MAX_MS = 3_600_000;

/** Beside `from`, for whoever kept it: the room's values at that place. */
export interface Kept {
  readonly values?: readonly CloudEvent[];
}

/** A request that waits for its answer. */
interface Asked {
  /** The room it opens. */
  readonly room?: Room;
  readonly answered?: (body: Json) => void;
  readonly refused?: (error: RoomcastError) => void;
}

/** A connection to Roomcast and the rooms on it. Nothing happens before {@link connect}. */
export class Client<M extends EventMap = EventMap> implements RoomcastClient<M> {
  /** What was delivered and what was not, and why. */
  readonly counters: Counters = newCounters();
  readonly #options: ClientOptions;
  readonly #credentials: Credentials;
  readonly #http: Http;
  readonly #link: Link;
  readonly #rooms = new Map<string, Room>();
  #tokenSent: string | undefined;
  readonly #requests = new Map<number, Asked>();
  readonly #commands: Commands;
  readonly #pushed = new Set<(push: NotificationPush) => void>();
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  /** Server's clock minus ours, in milliseconds. */
  #clockOffset = 0;
  #expiryTimer: ReturnType<typeof setTimeout> | undefined;
  #expiryAt = Infinity;
  /** Nobody sees the page, for a while already. */
  #isHidden = false;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
    this.#credentials = new Credentials(options.token);
    this.#http = new Http(() => this.#base(), this.#credentials, options.fetch);
    this.#link = new Link({
      transports: options.transports ?? TRANSPORTS,
      carrier: (transport) => this.#carrier(transport),
      connectBody: (fresh, isTrial) => this.#connectBody(fresh, isTrial),
      refresh: () => void this.#refresh(),
      frame: (frame) => this.#frame(frame),
      changed: (state, before) => this.#changed(state, before),
      seen: (isHidden) => this.#seen(isHidden),
      random: options.random ?? Math.random,
    });
    this.#commands = new Commands({
      send: ({ name, data, key, timeoutMs }) => this.request('command', { name, data, key, timeoutMs }, timeoutMs + ANSWER_GRACE_MS),
      ready: () => this.#link.state.status === 'live',
      user: () => this.#link.state.session?.user,
      random: options.random ?? Math.random,
      failed: (error) => this.#problem(error),
    }, options.commands);
  }

  get connection(): ConnectionState {
    return this.#link.state;
  }

  serverNow(): number {
    return Date.now() + this.#clockOffset;
  }

  connect(): void {
    this.#link.listen();
    this.#link.input({ type: 'start' });
  }

  close(): void {
    this.#link.unlisten();
    this.#link.input({ type: 'stop' });
    clearTimeout(this.#expiryTimer);
    this.#expiryAt = Infinity;
  }

  pause(): void {
    this.#link.input({ type: 'pause' });
  }

  resume(): void {
    this.#link.input({ type: 'resume' });
  }

  retryNow(): void {
    this.#link.input({ type: 'retryNow' });
  }

  /** What a page says of its network and its reader, where this client lives outside of one. */
  hint(hint: 'online' | 'offline' | 'wake'): void {
    this.#link.input({ type: hint });
  }

  onConnection(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  subscribe<E extends EventMap = M>(name: string, handlers: RoomHandlers<E>): Subscription {
    const room = this.#room(name);
    const feed = new Feed(handlers as RoomHandlers, this.#roomHost);
    const { values } = handlers as Kept;
    // Nobody has been in the room, and what it held at this place is known: its place is the room's.
    if (feed.from !== undefined && values !== undefined && room.feeds.size === 0 && room.cursor === undefined && !room.joined && !room.asked) {
      room.goOn(feed.from.cursor, values);
      feed.from = undefined;
    } else if (feed.from !== undefined) feed.waitFor();
    room.feeds.add(feed);
    if (this.#isHidden && this.#holds(feed)) feed.sleep();
    queueMicrotask(() => {
      if (!room.feeds.has(feed)) return;
      room.welcome(feed);
      this.#watchPresence(room);
      this.#bridgeAll(room);
      if (feed.holding && feed.from === undefined) void this.#load(room).then(() => this.#join(room));
      else this.#join(room);
    });
    return {
      room: name,
      state: room.store.values,
      get cursor() {
        return feed.from?.cursor ?? room.cursor;
      },
      hold: () => this.#hold(room, feed),
      release: () => this.#release(room, feed),
      unsubscribe: () => this.#leave(room, feed),
    };
  }

  /** Once the room has caught up nothing more can be missed: then it is fetched what lies between a subscription's place and the room's. */
  #bridgeAll(room: Room): void {
    if (!room.joined || room.recovering) return;
    for (const feed of room.feeds) if (feed.from !== undefined && !feed.isBridging) void this.#bridge(room, feed, feed.from);
  }

  async #bridge(room: Room, feed: Feed, from: Place): Promise<void> {
    feed.isBridging = true;
    try {
      const { recovery, reason, events } = await from.missed(this.#http, room.name, from.cursor);
      feed.from = undefined;
      if (!room.feeds.has(feed)) return;
      if (recovery === 'complete') feed.missed(events);
      else {
        feed.reset({ recovery: 'incomplete', ...(reason === undefined ? {} : { reason }) });
        if (feed.history > 0) return void this.#load(room);
      }
      feed.release();
    } catch (thrown) {
      const error = asError(thrown);
      if (!room.feeds.has(feed)) return;
      // News wait meanwhile; what cannot be had for good ends the waiting.
      if (error.temporary) return void setTimeout(() => room.feeds.has(feed) && void this.#bridge(room, feed, from), error.retryAfterMs ?? REJOIN_MS);
      feed.from = undefined;
      feed.release();
      feed.error(error);
    }
  }

  #holds(feed: Feed): boolean {
    return (feed.whileHidden ?? this.#options.whileHidden ?? 'deliver') === 'hold';
  }

  #hold(room: Room, feed: Feed): void {
    feed.sleep();
    this.#park(room);
  }

  /** A room of which nobody wants anything is left, with its place. */
  #park(room: Room): void {
    if (!room.isAsleep || !room.joined || room.recovering || room.cursor === undefined) return;
    this.#link.request('unsubscribe', { room: room.name });
    room.leave();
  }

  #release(room: Room, feed: Feed): void {
    if (!feed.wake(room.store.values)) void this.#load(room);
    this.#join(room);
  }

  /** Nobody sees the page, or somebody does again. */
  #seen(isHidden: boolean): void {
    if (isHidden === this.#isHidden) return;
    this.#isHidden = isHidden;
    for (const room of this.#rooms.values()) {
      for (const feed of room.feeds) {
        if (!this.#holds(feed)) continue;
        if (isHidden) this.#hold(room, feed);
        else this.#release(room, feed);
      }
    }
  }

  snapshot(room: string, events = 50, signal?: AbortSignal): Promise<Snapshot> {
    return this.#http.snapshot(room, events, signal);
  }

  history(room: string, options: { before?: string; limit?: number } = {}, signal?: AbortSignal): Promise<HistoryPage> {
    return this.#http.history(room, options, signal);
  }

  series(room: string, metric: string, options: SeriesOptions = {}, signal?: AbortSignal): Promise<Series> {
    return this.#http.series(room, metric, options, signal);
  }

  async command<R = unknown>(name: string, data: unknown = null, options: CommandOptions = {}): Promise<R> {
    return (await this.#commands.run(name, data, options)) as R;
  }

  queued(): readonly QueuedCommand[] {
    return this.#commands.waiting;
  }

  onQueued(listener: (commands: readonly QueuedCommand[]) => void): () => void {
    return this.#commands.listen(listener);
  }

  async publish(room: string, type: string, data: unknown, id: string = crypto.randomUUID()): Promise<string> {
    await this.request('publish', { room, type, data, eventId: id });
    return id;
  }

  async presence(room: string): Promise<Presence> {
    return readPresence(await this.request('presence', { room })) as Presence;
  }

  activity(kind: string, detail = ''): void {
    // Ways over HTTP let it pass: it is about now.
    this.#link.request('activity', { kind, detail });
  }

  request(name: string, body: Json, timeoutMs: number = HTTP_TIMEOUT_MS): Promise<Json> {
    if (this.#link.state.status !== 'live') return Promise.reject(new RoomcastError('offline', 'There is no connection.', { temporary: true }));
    if (this.#link.transport !== 'websocket') return this.#http.request(name, body, timeoutMs);
    return new Promise<Json>((resolve, reject) => {
      const id = this.#link.request(name, body) as number;
      const timer = setTimeout(() => {
        this.#requests.delete(id);
        reject(new RoomcastError('timeout', `${name}: The server fell silent.`, { temporary: true }));
      }, timeoutMs);
      this.#requests.set(id, {
        answered: (answer) => {
          clearTimeout(timer);
          resolve(answer);
        },
        refused: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  onNotification(listener: (push: NotificationPush) => void): () => void {
    this.#pushed.add(listener);
    for (const room of this.#rooms.values()) {
      for (const [key, event] of room.store.values) if (isNotification(key)) this.#call(listener, { kind: 'value', room: room.name, key, cursor: undefined, event, live: false });
    }
    return () => this.#pushed.delete(listener);
  }

  report(problem: unknown): void {
    this.#problem(problem);
  }

  rooms(): RoomStanding[] {
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
    valueChanged: (room: string, key: string, event: CloudEvent | undefined, cursor: string | undefined, live: boolean): void => {
      if (isNotification(key)) this.#push({ kind: 'value', room, key, cursor, event, live });
    },
  };

  #push(push: NotificationPush): void {
    for (const listener of [...this.#pushed]) this.#call(listener, push);
  }

  #call<T>(listener: (value: T) => void, value: T): void {
    try {
      listener(value);
    } catch (error) {
      this.#roomHost.listenerFailed(error);
    }
  }

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
      const error = asError(thrown);
      if (!error.temporary) room.fail(error);
      // News must not wait behind a history that does not come while the socket works.
      if (!error.temporary || room.joined) room.unloaded();
    }
  }

  /** Asks the present connection for a room that it does not carry yet. */
  #join(room: Room): void {
    if (room.joined || room.asked || room.feeds.size === 0 || (room.isAsleep && room.cursor !== undefined) || this.#link.state.status !== 'live') return;
    const id = this.#link.request('subscribe', roomRequest(room));
    if (id === undefined) return;
    this.#ask(room);
    this.#requests.set(id, { room });
  }

  /** Asks for pushes about who is in a room, once it has caught up: then opening it again costs nothing. */
  #watchPresence(room: Room): void {
    if (room.presenceAsked || !room.wantsPresence || !room.joined || room.recovering || room.cursor === undefined) return;
    const id = this.#link.transport === 'websocket' ? this.#link.request('subscribe', { ...roomRequest(room), presence: true }) : undefined;
    if (id === undefined) return;
    room.presenceAsked = true;
    this.#requests.set(id, { room });
  }

  /** New rights may open what was refused. */
  #joinAll(): void {
    for (const room of this.#rooms.values()) this.#join(room);
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

  #carrier(transport: Transport): SocketLike {
    if (transport === 'websocket') {
      const make = this.#options.webSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
      if (make === undefined) throw new RoomcastError('unsupported', 'There is no WebSocket here; pass one as `webSocket`.');
      return new make(`${this.#base().replace(/^http/, 'ws')}/v1/ws`, [SUBPROTOCOL]);
    }
    const fetcher = this.#options.fetch ?? globalThis.fetch.bind(globalThis);
    const host = { base: () => this.#base(), fetch: fetcher, rooms: () => [...this.#rooms.values()].map(({ name, cursor }) => ({ room: name, cursor })) };
    return transport === 'sse' ? new Stream(host) : new Poll(host, transport === 'longpoll');
  }

  async #connectBody(fresh: boolean, isTrial: boolean): Promise<Record<string, unknown>> {
    const token = fresh ? await this.#credentials.renew('expired', this.#tokenSent) : await this.#credentials.get();
    this.#tokenSent = token;
    const waiting = [...this.#rooms.values()].filter((room) => room.wantsHistory && room.cursor === undefined);
    if (waiting.length > 0 && !isTrial) await settled(waiting.map((room) => this.#load(room)), HISTORY_WAIT_MS);
    const rooms = [...this.#rooms.values()];
    if (!isTrial) for (const room of rooms) this.#ask(room);
    return {
      ...(token === undefined ? {} : { token }),
      client: (this.#options.name ?? `roomcast-js/${VERSION}`).slice(0, 128),
      rooms: rooms.map(roomRequest),
    };
  }

  async #refresh(): Promise<void> {
    const connection = this.#link.state.session?.connection;
    try {
      const token = await this.#credentials.renew('expiring', this.#tokenSent);
      this.#tokenSent = token;
      if (token === undefined) return;
      // Ways over HTTP do it by themselves.
      if (this.#link.transport !== 'websocket') return void this.#link.request('refresh', { token });
      await this.request('refresh', { token });
    } catch (thrown) {
      // The connection lasts until the token ends; then 4003 asks again.
      this.#problem(thrown);
      const error = asError(thrown);
      if (!error.temporary) return;
      // The key of the new token is on its way to the gateway, or the callback had a bad moment.
      setTimeout(() => {
        const { status, session } = this.#link.state;
        if (status === 'live' && session?.connection === connection) void this.#refresh();
      }, error.retryAfterMs ?? REFRESH_MS);
    }
  }

  #frame(frame: ServerFrame): void {
    this.counters.frames += 1;
    switch (frame.kind) {
      case 'event':
        return this.#event(frame.room, frame.event, frame.cursor);
      case 'caughtUp':
        return this.#caughtUp(frame.room, frame.cursor);
      case 'connected':
        return this.#connected(frame.session.serverTime, frame.rooms);
      case 'subscribed':
        this.#requestDone(frame.id);
        return this.#answered(frame.answer);
      case 'unsubscribed':
        // With an id it answers our own wish; without, the server took the room away.
        return frame.id === undefined ? this.#removed(frame.room, frame.error) : undefined;
      case 'refreshed':
        this.#requestDone(frame.id)?.answered?.({});
        return this.#joinAll();
      case 'roles':
        return this.#joinAll();
      case 'error': {
        const error = new RoomcastError(frame.error.code, frame.error.message, frame.error);
        const asked = this.#requestDone(frame.id);
        asked?.refused?.(error);
        if (asked?.room !== undefined) return this.#refused(asked.room, error);
        return asked === undefined ? this.#problem(error) : undefined;
      }
      case 'presence': {
        const asked = this.#requestDone(frame.id);
        if (asked !== undefined) return asked.answered?.({ ...frame.presence });
        return this.#rooms.get(frame.presence.room)?.present(frame.presence);
      }
      case 'counters':
        return this.#push({ kind: 'counters', counters: frame.counters });
      case 'thinned':
        this.counters.thinned += frame.count;
        return;
      case 'other': {
        const asked = this.#requestDone(frame.id);
        if (asked === undefined) this.counters.unknown += 1;
        asked?.answered?.(frame.body);
        return;
      }
      case 'malformed':
        this.counters.malformed += 1;
        return this.#problem(new RoomcastError('protocol', `A message could not be read: ${frame.why}.`));
      default:
        return;
    }
  }

  #caughtUp(name: string, cursor: string): void {
    const room = this.#rooms.get(name);
    room?.caughtUp(cursor);
    if (room === undefined) return;
    this.#bridgeAll(room);
    this.#watchPresence(room);
    // Opened by the server, or with a connection: nobody wants it yet.
    this.#park(room);
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
    // Rooms are answered by name; what asked for them on another way has its answer.
    for (const [id, asked] of this.#requests) if (asked.room !== undefined) this.#requests.delete(id);
    for (const room of this.#rooms.values()) room.presenceAsked = false;
    for (const answer of answers) this.#answered(answer);
    for (const room of this.#rooms.values()) {
      // Not answered, or subscribed while the connection was being made.
      if (!named.has(room.name)) room.leave();
      if (room.loading === undefined && !named.has(room.name)) this.#join(room);
    }
    this.#commands.flush();
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

  #requestDone(id: number | undefined): Asked | undefined {
    if (id === undefined) return undefined;
    const asked = this.#requests.get(id);
    this.#requests.delete(id);
    return asked;
  }

  /** The connection is gone, and with it every answer. What was asked may have been done. */
  #abandon(): void {
    const asked = [...this.#requests.values()];
    this.#requests.clear();
    for (const { refused } of asked) refused?.(new RoomcastError('network', 'The connection ended.', { temporary: true }));
  }

  #changed(state: ConnectionState, before: ConnectionState): void {
    if (state.status !== before.status || state.transport !== before.transport) {
      this.#options.log?.info(`roomcast ${state.status} (${state.transport})`, state.error ?? '');
    }
    if (state.status === 'live' && before.status !== 'live') this.counters.connects += 1;
    if (before.status === 'live' && state.status !== 'live') {
      if (state.status === 'waiting') this.counters.losses += 1;
    }
    if (state.status === 'waiting' || state.status === 'paused' || state.status === 'closed' || (before.status === 'live' && state.status !== 'live')) {
      this.#abandon();
      for (const room of this.#rooms.values()) room.leave();
    }
    for (const listener of [...this.#listeners]) this.#call(listener, state);
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

function isNotification(key: string): boolean {
  return key.startsWith('notification/');
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
