/**
 * The client: rooms over one connection. Ties the link (socket), the rooms (what is delivered) and HTTP (first paint)
 * together. This is the file to read first; `index.ts` exports it.
 */

import { Credentials, type TokenSource } from './credentials.js';
import type { CommandOptions, NotificationPush, QueuedCommand, RoomcastClient, RoomStanding, Subscription } from './api.js';
import { Commands, type CommandStorage } from './commands.js';
import { newCounters, type Counters } from './counters.js';
import { asError, offline, RoomcastError } from './error.js';
import type { EventMap } from './event.js';
import { readPresence, type Json, type Presence, type ServerFrame } from './frame.js';
import { TRANSPORTS, type Transport } from './follow.js';
import { gatewayAt, Http, HTTP_TIMEOUT_MS, type HistoryPage, type Series, type SeriesOptions, type Snapshot } from './http.js';
import { Link, SUBPROTOCOL, type SocketClass, type SocketLike } from './link.js';
import { isUp, type ConnectionState } from './machine.js';
import { Poll } from './poll.js';
import { Requests } from './requests.js';
import type { RoomHandlers } from './room.js';
import { Rooms } from './rooms.js';
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

/** A refresh that failed for a passing reason is tried again after this, in milliseconds, unless the server says when. */
const REFRESH_MS = 5_000;
/** What an answer may need beyond the time its backend was given, in milliseconds. */
const ANSWER_GRACE_MS = 5_000;
/** A connection to Roomcast and the rooms on it. Nothing happens before {@link connect}. */
export class Client<M extends EventMap = EventMap> implements RoomcastClient<M> {
  /** What was delivered and what was not, and why. */
  readonly counters: Counters = newCounters();
  readonly #options: ClientOptions;
  readonly #base = (): string => gatewayAt(this.#options.url);
  readonly #credentials: Credentials;
  readonly #http: Http;
  readonly #link: Link;
  readonly #rooms: Rooms;
  #tokenSent: string | undefined;
  readonly #requests = new Requests();
  readonly #commands: Commands;
  readonly #pushed = new Set<(push: NotificationPush) => void>();
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  /** Server's clock minus ours, in milliseconds. */
  #clockOffset = 0;

  constructor(options: ClientOptions = {}) {
    this.#options = options;
    this.#credentials = new Credentials(options.token);
    this.#http = new Http(this.#base, this.#credentials, options.fetch);
    this.#link = new Link({
      transports: options.transports ?? TRANSPORTS,
      carrier: (transport) => this.#carrier(transport),
      connectBody: (fresh, isTrial) => this.#connectBody(fresh, isTrial),
      refresh: () => void this.#refresh(),
      frame: (frame) => this.#frame(frame),
      changed: (state, before) => this.#changed(state, before),
      seen: (isHidden) => this.#rooms.seen(isHidden),
      random: options.random ?? Math.random,
    });
    this.#rooms = new Rooms({
      http: this.#http,
      link: this.#link,
      requests: this.#requests,
      counters: this.counters,
      holds: options.whileHidden === 'hold',
      now: () => this.serverNow(),
      pushed: (push) => this.#push(push),
      listenerFailed: (error) => this.#listenerFailed(error),
    });
    this.#commands = new Commands({
      send: ({ name, data, key, timeoutMs }) => this.request('command', { name, data, key, timeoutMs }, timeoutMs + ANSWER_GRACE_MS),
      ready: () => this.#link.state.status === 'live',
      user: () => this.#link.state.session?.user,
      random: options.random ?? Math.random,
      failed: (error) => this.report(error),
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
    this.#rooms.close();
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

  subscribe<E extends EventMap = M>(room: string, handlers: RoomHandlers<E>): Subscription {
    return this.#rooms.subscribe(room, handlers);
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
    const body = { kind, detail };
    // Over a socket nobody answers. It is about now: what does not come through is gone.
    if (this.#link.transport === 'websocket') this.#link.request('activity', body);
    else this.request('activity', body).catch(() => undefined);
  }

  request(name: string, body: Json, timeoutMs: number = HTTP_TIMEOUT_MS): Promise<Json> {
    if (this.#link.state.status !== 'live') return Promise.reject(offline());
    if (this.#link.transport !== 'websocket') return this.#http.request(name, body, timeoutMs);
    return this.#requests.answer(this.#link.request(name, body) as number, name, timeoutMs);
  }

  onNotification(listener: (push: NotificationPush) => void): () => void {
    // A connection that was made before anybody wanted to know is asked for them.
    if (this.#pushed.size === 0) this.#link.request('counters', {});
    this.#pushed.add(listener);
    for (const push of this.#rooms.notifications()) this.#call(listener, push);
    return () => this.#pushed.delete(listener);
  }

  report(problem: unknown): void {
    if (this.#options.onProblem !== undefined) this.#options.onProblem(problem);
    else if (!(problem instanceof RoomcastError)) console.error(problem);
  }

  rooms(): RoomStanding[] {
    return this.#rooms.standing();
  }

  #push(push: NotificationPush): void {
    for (const listener of [...this.#pushed]) this.#call(listener, push);
  }

  #call<T>(listener: (value: T) => void, value: T): void {
    try {
      listener(value);
    } catch (error) {
      this.#listenerFailed(error);
    }
  }

  #listenerFailed(error: unknown): void {
    this.counters.listenerErrors += 1;
    this.report(error);
  }

  #carrier(transport: Transport): SocketLike {
    if (transport === 'websocket') {
      const make = this.#options.webSocket ?? (globalThis as { WebSocket?: SocketClass }).WebSocket;
      if (make === undefined) throw new RoomcastError('unsupported', 'There is no WebSocket here; pass one as `webSocket`.');
      return new make(`${this.#base().replace(/^http/, 'ws')}/v1/ws`, [SUBPROTOCOL]);
    }
    const host = { base: this.#base, fetch: this.#options.fetch ?? globalThis.fetch, rooms: () => this.#rooms.standing() };
    return transport === 'sse' ? new Stream(host) : new Poll(host, transport === 'longpoll');
  }

  async #connectBody(fresh: boolean, isTrial: boolean): Promise<Record<string, unknown>> {
    const token = fresh ? await this.#credentials.renew('expired', this.#tokenSent) : await this.#credentials.get();
    this.#tokenSent = token;
    return {
      token,
      client: (this.#options.name ?? `roomcast-js/${VERSION}`).slice(0, 128),
      rooms: await this.#rooms.toConnect(isTrial),
      counters: this.#pushed.size > 0 || undefined,
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
      this.report(thrown);
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
        return this.#rooms.event(frame.room, frame.event, frame.cursor);
      case 'caughtUp':
        return this.#rooms.caughtUp(frame.room, frame.cursor);
      case 'connected':
        // Rooms are answered by name; what asked for them on another way has its answer.
        this.#requests.roomsAnswered();
        this.#rooms.connected(frame.rooms);
        return this.#commands.flush();
      case 'subscribed':
        this.#requests.done(frame.id);
        return this.#rooms.answered(frame.answer);
      case 'unsubscribed':
        // With an id it answers our own wish; without, the server took the room away.
        return frame.id === undefined ? this.#rooms.removed(frame.room, frame.error) : undefined;
      case 'refreshed':
        this.#requests.done(frame.id)?.answered?.({});
        return this.#rooms.joinAll();
      case 'roles':
        return this.#rooms.joinAll();
      case 'error': {
        const error = new RoomcastError(frame.error.code, frame.error.message, frame.error);
        const asked = this.#requests.done(frame.id);
        asked?.refused?.(error);
        if (asked?.room !== undefined) return this.#rooms.refused(asked.room, error);
        return asked === undefined ? this.report(error) : undefined;
      }
      case 'presence': {
        const asked = this.#requests.done(frame.id);
        if (asked !== undefined) return asked.answered?.({ ...frame.presence });
        return this.#rooms.present(frame.presence);
      }
      case 'counters':
        return this.#push({ kind: 'counters', counters: frame.counters });
      case 'thinned':
        this.counters.thinned += frame.count;
        return;
      case 'other': {
        const asked = this.#requests.done(frame.id);
        if (frame.name === 'preferences') this.#push({ kind: 'preferences', body: frame.body });
        else if (asked === undefined) this.counters.unknown += 1;
        asked?.answered?.(frame.body);
        return;
      }
      case 'malformed':
        this.counters.malformed += 1;
        return this.report(new RoomcastError('protocol', `A message could not be read: ${frame.why}.`));
      default:
        return;
    }
  }

  #changed(state: ConnectionState, before: ConnectionState): void {
    if (state.status !== before.status || state.transport !== before.transport) {
      this.#options.log?.info(`roomcast ${state.status} (${state.transport})`, state.error ?? '');
    }
    // Before anybody hears of the connection: what they show is by the server's clock.
    const { serverTime } = state.session ?? {};
    if (serverTime !== before.session?.serverTime) this.#clockOffset = (Date.parse(serverTime ?? '') || Date.now()) - Date.now();
    if (state.status === 'live' && before.status !== 'live') this.counters.connects += 1;
    if (before.status === 'live' && state.status === 'waiting') this.counters.losses += 1;
    if (!isUp(state) || (before.status === 'live' && state.status !== 'live')) {
      this.#requests.abandon();
      this.#rooms.leaveAll();
    }
    for (const listener of [...this.#listeners]) this.#call(listener, state);
  }
}
