/**
 * The client of a tab that shares its connection: it looks like any other, and forgets nothing when the place changes where
 * the connection lives.
 */

import type { CommandOptions, NotificationPush, QueuedCommand, RoomcastClient, RoomStanding, Subscription } from './api.js';
import { newCounters, type Counters } from './counters.js';
import { claimsOf, Credentials } from './credentials.js';
import { offline, RoomcastError } from './error.js';
import type { EventMap } from './event.js';
import type { Json, Presence } from './frame.js';
import { listenToPage } from './hints.js';
import { gatewayAt, type HistoryPage, type Series, type SeriesOptions, type Snapshot } from './http.js';
import { received, sent, type HubOptions, type Method, type Pipe, type ToHub, type ToTab } from './pipe.js';
import { holdLock, tabLock } from './locks.js';
import { INITIAL, type ConnectionState } from './machine.js';
import { findPlace, type Hello, type Serving } from './place.js';
import { randomId } from './random-id.js';
import type { RoomHandlers } from './room.js';
import type { SharedOptions } from './shared.js';
import { TabAsks } from './tab-asks.js';
import { TabRooms } from './tab-rooms.js';

/** The hub is asked what it counted no more often than this, in milliseconds. */
const COUNT_MS = 1_000;
/** A token that could not be had for a passing reason is asked for again after this, in milliseconds. */
const AGAIN_MS = 5_000;

/** One of the tabs. */
export class Tab<M extends EventMap> implements RoomcastClient<M> {
  connection: ConnectionState = INITIAL;
  readonly #counters: Counters = newCounters();
  /** When the hub was asked what it counted. */
  #countedAt = 0;
  readonly #options: SharedOptions;
  readonly #credentials: Credentials;
  readonly #id = randomId();
  readonly #rooms: TabRooms;
  readonly #asks = new TabAsks((message) => {
    this.#say(message);
    return this.#pipe !== undefined;
  });
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  readonly #notes = new Set<(push: NotificationPush) => void>();
  /** Notifications that hold, as the hub said them. */
  readonly #noted = new Map<string, NotificationPush & { kind: 'value' }>();
  /** Of those, what this hub has not said yet. */
  #old = new Map<string, NotificationPush & { kind: 'value' }>();
  readonly #queueListeners = new Set<(commands: readonly QueuedCommand[]) => void>();
  #pipe: Pipe | undefined;
  #place: Serving | undefined;
  #key = '';
  /** What it brought the hub. */
  #brought: string | undefined;
  #offset = 0;
  #next = 1;
  #isPaused = false;
  #unlisten: (() => void) | undefined;
  #turn = 0;
  #hubState: ConnectionState | undefined;

  constructor(options: SharedOptions) {
    this.#options = options;
    this.#credentials = new Credentials(options.token);
    this.#rooms = new TabRooms((message) => this.#say(message), (listener) => this.#call(listener), options.whileHidden);
  }

  /** As the hub last said; who looks has it asked for newer ones. */
  get counters(): Counters {
    const now = Date.now();
    if (now - this.#countedAt >= COUNT_MS) {
      this.#countedAt = now;
      this.#say({ t: 'count' });
    }
    return this.#counters;
  }

  serverNow(): number {
    return Date.now() + this.#offset;
  }

  connect(): void {
    this.#unlisten ??= listenToPage((what) => this.#say({ t: 'do', what }), (isHidden) => this.#rooms.seen(isHidden));
    if (this.#place !== undefined) return this.#say({ t: 'do', what: 'connect' });
    void this.#settle();
  }

  close(): void {
    this.#turn += 1;
    this.#unlisten?.();
    this.#unlisten = undefined;
    this.#say({ t: 'bye' });
    this.#pipe = undefined;
    this.#place?.stop();
    this.#place = undefined;
    this.#show({ ...INITIAL, status: 'closed' });
  }

  pause(): void {
    if (this.#isPaused || this.connection.status === 'idle' || this.connection.status === 'closed') return;
    this.#isPaused = true;
    this.#rooms.paused(true);
    this.#show({ ...this.connection, status: 'paused' });
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#rooms.paused(false);
    this.#show(this.#hubState ?? this.connection);
    this.#asks.release();
  }

  retryNow(): void {
    if (this.connection.status === 'closed') return this.connect();
    this.#say({ t: 'do', what: 'retryNow' });
  }

  onConnection(listener: (state: ConnectionState) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  subscribe<E extends EventMap = M>(room: string, handlers: RoomHandlers<E>): Subscription {
    return this.#rooms.subscribe(this.#next++, room, handlers as RoomHandlers);
  }

  snapshot(room: string, events = 50): Promise<Snapshot> {
    return this.#ask('snapshot', room, events);
  }

  history(room: string, options: { before?: string; limit?: number } = {}): Promise<HistoryPage> {
    return this.#ask('history', room, options);
  }

  series(room: string, metric: string, options: SeriesOptions = {}): Promise<Series> {
    return this.#ask('series', room, metric, options);
  }

  async command<R = unknown>(name: string, data: unknown = null, options: CommandOptions = {}): Promise<R> {
    // The key is this tab's: whoever holds the connection next is asked with the same one.
    return this.#ask<R>('command', name, data, { key: randomId(), ...options });
  }

  queued(): readonly QueuedCommand[] {
    if (this.connection.status === 'live') return [];
    return this.#asks.commands();
  }

  onQueued(listener: (commands: readonly QueuedCommand[]) => void): () => void {
    this.#queueListeners.add(listener);
    return () => this.#queueListeners.delete(listener);
  }

  publish(room: string, type: string, data: unknown, id: string = randomId()): Promise<string> {
    return this.#ask('publish', room, type, data, id);
  }

  presence(room: string): Promise<Presence> {
    return this.#ask('presence', room);
  }

  activity(kind: string, detail = ''): void {
    this.#say({ t: 'activity', kind, detail });
  }

  request(name: string, body: Json, timeoutMs?: number): Promise<Json> {
    if (this.connection.status !== 'live') return Promise.reject(offline());
    return this.#ask('request', name, body, timeoutMs);
  }

  onNotification(listener: (push: NotificationPush) => void): () => void {
    this.#notes.add(listener);
    for (const push of this.#noted.values()) this.#call(() => listener(push));
    this.#say({ t: 'notes' });
    return () => this.#notes.delete(listener);
  }

  rooms(): RoomStanding[] {
    return this.#rooms.standing(this.connection.status === 'live');
  }

  report(problem: unknown): void {
    if (this.#options.onProblem !== undefined) this.#options.onProblem(problem);
    else if (!(problem instanceof RoomcastError)) console.error(problem);
  }

  /** Finds where the connection lives, or makes it. */
  async #settle(): Promise<void> {
    const turn = (this.#turn += 1);
    let token: string | undefined;
    this.#show({ ...INITIAL, status: 'connecting' });
    try {
      token = await this.#credentials.get();
    } catch (thrown) {
      if (turn !== this.#turn) return;
      const error = thrown as RoomcastError;
      if (!error.temporary) return this.#show({ ...INITIAL, status: 'closed', error });
      this.#show({ ...INITIAL, status: 'waiting', error });
      setTimeout(() => turn === this.#turn && void this.#settle(), AGAIN_MS);
      return;
    }
    const url = this.#url();
    const key = keyOf(url, token);
    if (this.#key !== '' && this.#key !== key) {
      this.#rooms.forget();
      this.#old = new Map(this.#noted);
      this.#forgetOld();
      if (!this.#key.startsWith(userOf(url, token))) this.#asks.refuse();
    }
    this.#key = key;
    const { name, transports, commands } = this.#options;
    const options: HubOptions = { url, name, transports, commands };
    await holdLock(tabLock(this.#id));
    if (turn !== this.#turn) return;
    const hello: Hello = { t: 'hello', tab: this.#id, key: this.#key, options };
    const lost = (): void => {
      if (turn === this.#turn) this.#moved();
    };
    const place = await findPlace(this.#options.worker, hello, (pipe) => turn === this.#turn && this.#attached(pipe), lost);
    if (turn === this.#turn) this.#place = place;
    else place.stop();
  }

  /** Whatever held the connection is gone: another place is found, and everything goes on there. */
  #moved(): void {
    this.#pipe = undefined;
    this.#place?.stop();
    this.#place = undefined;
    void this.#settle();
  }

  /** A hub answered: it learns what this tab wants, and where it stands. */
  #attached(pipe: Pipe): void {
    this.#pipe = pipe;
    pipe.onmessage = (message: ToTab) => this.#pipe === pipe && this.#hear(message);
    this.#say({ t: 'do', what: 'connect' });
    this.#rooms.begin();
    // What does not hold any more this hub will not say: it says what does, once it has a connection.
    this.#old = new Map(this.#noted);
    if (this.#notes.size > 0) this.#say({ t: 'notes' });
    this.#asks.giveAgain(this.#isPaused);
  }

  #hear(message: ToTab): void {
    switch (message.t) {
      case 'state': {
        const { error, ...state } = message.state;
        this.#offset = message.offset;
        this.#counted(message.counters);
        this.#hubState = { ...state, ...(error === undefined ? {} : { error: received(error) }) };
        if (!this.#isPaused) this.#show(this.#hubState);
        return;
      }
      case 'answer':
      case 'refused':
        this.#asks.answered(message);
        return this.#tellQueue();
      case 'counted':
        return this.#counted(message.counters);
      case 'wantToken':
        return void this.#bring(message);
      case 'note':
        return this.#note(message.push);
      case 'here':
        return;
      default:
        this.#rooms.hear(message);
    }
  }

  /** Brings the hub a token of the same user; with another one this tab goes elsewhere. */
  async #bring({ id, reason, used }: ToTab & { t: 'wantToken' }): Promise<void> {
    try {
      // What this tab has from before may have ended like the one in use: its application knows.
      const token = await (reason === 'connect' ? this.#credentials.get() : this.#credentials.ask(reason));
      if (reason === 'expired' && (token === used || token === this.#brought)) throw new RoomcastError('expired', 'The token has expired.');
      this.#brought = token;
      if (keyOf(this.#url(), token) === this.#key) return this.#say({ t: 'token', id, token });
      this.close();
      this.connect();
    } catch (thrown) {
      this.#say({ t: 'token', id, error: sent(thrown) });
    }
  }

  #note(push: NotificationPush): void {
    if (push.kind === 'value') {
      const name = `${push.room}\n${push.key}`;
      this.#old.delete(name);
      if (push.event === undefined) this.#noted.delete(name);
      else this.#noted.set(name, { ...push, live: false });
    } else if (push.kind === 'caughtUp') this.#forgetOld();
    for (const listener of [...this.#notes]) this.#call(() => listener(push));
  }

  #forgetOld(): void {
    for (const push of this.#old.values()) this.#note({ ...push, event: undefined });
  }

  #ask<T>(method: Method, ...args: unknown[]): Promise<T> {
    // A command that is given while this tab is paused waits for its return, as without a connection.
    const answer = this.#asks.ask<T>(this.#next++, method, args, method === 'command' && this.#isPaused);
    this.#tellQueue();
    return answer;
  }

  #counted(counters: Counters): void {
    // Listeners are this tab's own.
    Object.assign(this.#counters, counters, { listenerErrors: this.#counters.listenerErrors });
  }

  #tellQueue(): void {
    if (this.#queueListeners.size === 0) return;
    const queued = this.queued();
    for (const listener of [...this.#queueListeners]) this.#call(() => listener(queued));
  }

  #say(message: ToHub): void {
    this.#pipe?.post(message);
  }

  #show(state: ConnectionState): void {
    this.connection = state;
    for (const listener of [...this.#listeners]) this.#call(() => listener(state));
    this.#tellQueue();
  }

  #call(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#counters.listenerErrors += 1;
      this.report(error);
    }
  }

  #url(): string {
    return gatewayAt(this.#options.url);
  }
}

/** Who may share: the same gateway, issuer, tenant, user and roles. */
function keyOf(url: string, token: string | undefined): string {
  const { roles } = claimsOf(token);
  return userOf(url, token) + JSON.stringify(Array.isArray(roles) ? [...roles].sort() : []);
}

/** Whose token it is: the beginning of the key. */
function userOf(url: string, token: string | undefined): string {
  const { iss, tenant, sub } = claimsOf(token);
  return JSON.stringify([url, iss ?? '', tenant ?? '', sub ?? token ?? '']);
}
