/**
 * The client of a tab that shares its connection with the other tabs of the browser. The connection lives in a
 * SharedWorker where there is one, else in one of the tabs (the holder of a Web Lock; the next takes over when it goes),
 * else in this tab alone. Whatever it is, a tab looks the same, and forgets nothing when the place changes.
 */

import type { CommandOptions, NotificationPush, QueuedCommand, RoomcastClient, RoomStanding, Subscription } from './api.js';
import { newCounters, type Counters } from './counters.js';
import { claimsOf, Credentials, type TokenSource } from './credentials.js';
import { offline, RoomcastError } from './error.js';
import type { CloudEvent, EventMap, EventOf } from './event.js';
import type { Transport } from './follow.js';
import type { Json, Presence } from './frame.js';
import type { HistoryPage, Series, SeriesOptions, Snapshot } from './http.js';
import { Hub, pair, received, sent, tabLock, whenGone, type HubOptions, type Method, type Pipe, type ToHub, type ToTab } from './hub.js';
import { listenToPage } from './link.js';
import { INITIAL, type ConnectionState } from './machine.js';
import type { RoomHandlers } from './room.js';
import { Seen } from './seen.js';

/** The part of a SharedWorker that is used. */
export interface WorkerLike {
  readonly port: MessagePort;
  onerror: ((event: never) => void) | null;
}

/** How to share a connection. */
export interface SharedOptions {
  /** The gateway. Default: where the page came from. */
  url?: string;
  /** A token or a callback that brings one. Tabs of different users never share a connection. */
  token?: TokenSource;
  /** Makes the worker from `roomcast/worker`; without, one of the tabs holds the connection. */
  worker?: () => WorkerLike;
  transports?: readonly Transport[];
  name?: string;
  /** What happens while nobody sees this tab. Default `hold`: it costs no frames, and has everything when it is seen again. */
  whileHidden?: 'deliver' | 'hold';
  /** Commands wait in IndexedDB under this name, over reloads. Default: memory. */
  commands?: string;
  onProblem?: (problem: RoomcastError | unknown) => void;
}

/** The hub is asked what it counted no more often than this, in milliseconds. */
const COUNT_MS = 1_000;
/** How long a worker may take to answer before a tab holds the connection instead, in milliseconds. */
const WORKER_MS = 5_000;

/** A client over a connection that all tabs of the browser share, for each user one. */
export function sharedClient<M extends EventMap = EventMap>(options: SharedOptions = {}): RoomcastClient<M> {
  return new Tab<M>(options);
}

class Sub {
  readonly values = new Map<string, CloudEvent>();
  readonly seen = new Seen();
  cursor: string | undefined;
  /** It had caught up: from a new place it goes on where it was. */
  stood = false;
  /** Keys told since it went on elsewhere; the others are gone. */
  coming: Set<string> | undefined;
  isHeld = false;

  constructor(
    readonly n: number,
    readonly room: string,
    readonly handlers: RoomHandlers,
  ) {
    this.cursor = handlers.from?.cursor;
  }
}

interface Asked {
  readonly method: Method;
  readonly args: unknown[];
  readonly settle: (value: never) => void;
  readonly fail: (error: RoomcastError) => void;
}

class Tab<M extends EventMap> implements RoomcastClient<M> {
  connection: ConnectionState = INITIAL;
  readonly #counters: Counters = newCounters();
  /** When the hub was asked what it counted. */
  #countedAt = 0;
  readonly #options: SharedOptions;
  readonly #credentials: Credentials;
  readonly #id = randomId();
  readonly #subs = new Map<number, Sub>();
  readonly #asked = new Map<number, Asked>();
  /** Of those, what the hub was told. */
  readonly #given = new Set<number>();
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  readonly #notes = new Set<(push: NotificationPush) => void>();
  readonly #queueListeners = new Set<(commands: readonly QueuedCommand[]) => void>();
  #pipe: Pipe | undefined;
  #place: { stop(): void } | undefined;
  #key = '';
  #token: string | undefined;
  #offset = 0;
  #next = 1;
  #isPaused = false;
  #isHidden = false;
  #unlisten: (() => void) | undefined;
  #turn = 0;

  constructor(options: SharedOptions) {
    this.#options = options;
    this.#credentials = new Credentials(options.token);
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
    this.#unlisten ??= listenToPage((what) => this.#say({ t: 'do', what }), (isHidden) => this.#seen(isHidden));
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
    for (const sub of this.#subs.values()) this.#holdOrRelease(sub);
    this.#show({ ...this.connection, status: 'paused' });
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    for (const sub of this.#subs.values()) this.#holdOrRelease(sub);
    this.#show(this.#hubState ?? this.connection);
    for (const [id, { method, args }] of this.#asked) if (method === 'command' && !this.#given.has(id)) this.#give(id, method, args);
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
    const sub = new Sub(this.#takeNumber(), room, handlers as RoomHandlers);
    this.#subs.set(sub.n, sub);
    this.#begin(sub);
    return {
      room,
      state: sub.values,
      get cursor() {
        return sub.cursor;
      },
      hold: () => {
        sub.isHeld = true;
        this.#holdOrRelease(sub);
      },
      release: () => {
        sub.isHeld = false;
        this.#holdOrRelease(sub);
      },
      unsubscribe: () => {
        if (this.#subs.delete(sub.n)) this.#say({ t: 'unsub', n: sub.n });
      },
    };
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
    return [...this.#asked.values()].flatMap(({ method, args }): QueuedCommand[] => {
      if (method !== 'command') return [];
      const { key = '', timeoutMs = 10_000 } = args[2] as CommandOptions;
      return [{ key, name: String(args[0]), data: args[1], at: 0, timeoutMs, user: undefined }];
    });
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
    this.#say({ t: 'notes' });
    return () => this.#notes.delete(listener);
  }

  rooms(): RoomStanding[] {
    const standing = new Map<string, RoomStanding>();
    for (const { room, cursor, stood, values } of this.#subs.values()) {
      const before = standing.get(room);
      const joined = stood && this.connection.status === 'live';
      standing.set(room, { room, cursor, joined, caughtUp: joined, keys: values.size, subscriptions: (before?.subscriptions ?? 0) + 1 });
    }
    return [...standing.values()];
  }

  report(problem: unknown): void {
    if (this.#options.onProblem !== undefined) this.#options.onProblem(problem);
    else if (!(problem instanceof RoomcastError)) console.error(problem);
  }

  #hubState: ConnectionState | undefined;

  /** Finds where the connection lives, or makes it. */
  async #settle(): Promise<void> {
    const turn = (this.#turn += 1);
    this.#show({ ...INITIAL, status: 'connecting' });
    try {
      this.#token = await this.#credentials.get();
    } catch (thrown) {
      if (turn !== this.#turn) return;
      const error = thrown as RoomcastError;
      if (!error.temporary) return this.#show({ ...INITIAL, status: 'closed', error });
      this.#show({ ...INITIAL, status: 'waiting', error });
      setTimeout(() => turn === this.#turn && void this.#settle(), WORKER_MS);
      return;
    }
    const url = this.#url();
    this.#key = keyOf(url, this.#token);
    const options: HubOptions = {
      url,
      ...(this.#options.name === undefined ? {} : { name: this.#options.name }),
      ...(this.#options.transports === undefined ? {} : { transports: this.#options.transports }),
      ...(this.#options.commands === undefined ? {} : { commands: this.#options.commands }),
    };
    await holdLock(tabLock(this.#id));
    if (turn !== this.#turn) return;
    const hello: ToHub = { t: 'hello', tab: this.#id, key: this.#key, options };
    this.#place = await findPlace(this.#options.worker, hello, (pipe) => turn === this.#turn && this.#attached(pipe));
    if (turn !== this.#turn) this.#place.stop();
  }

  /** A hub answered: it learns what this tab wants, and where it stands. */
  #attached(pipe: Pipe): void {
    this.#pipe = pipe;
    pipe.onmessage = (message: ToTab) => this.#pipe === pipe && this.#hear(message);
    this.#say({ t: 'do', what: 'connect' });
    for (const sub of this.#subs.values()) this.#begin(sub);
    if (this.#notes.size > 0) this.#say({ t: 'notes' });
    for (const [id, { method, args }] of this.#asked) if (method !== 'command' || !this.#isPaused) this.#give(id, method, args);
  }

  #begin(sub: Sub): void {
    const { n, room, handlers } = sub;
    const goesOn = sub.stood && sub.cursor !== undefined;
    if (goesOn) sub.coming = new Set();
    this.#say({
      t: 'sub',
      n,
      room,
      history: handlers.history ?? 50,
      presence: handlers.onPresence !== undefined,
      ...(sub.cursor === undefined ? {} : { from: sub.cursor }),
      ...(goesOn ? { values: [...sub.values.values()] } : {}),
    });
    this.#holdOrRelease(sub, true);
  }

  #holdOrRelease(sub: Sub, isNew = false): void {
    const hides = (sub.handlers.whileHidden ?? this.#options.whileHidden ?? 'hold') === 'hold';
    const isHeld = sub.isHeld || this.#isPaused || (this.#isHidden && hides);
    if (isHeld || !isNew) this.#say({ t: isHeld ? 'hold' : 'release', n: sub.n });
  }

  #seen(isHidden: boolean): void {
    this.#isHidden = isHidden;
    for (const sub of this.#subs.values()) this.#holdOrRelease(sub);
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
      case 'refused': {
        const asked = this.#asked.get(message.id);
        this.#asked.delete(message.id);
        this.#given.delete(message.id);
        if (message.t === 'answer') asked?.settle(message.value as never);
        else asked?.fail(received(message.error));
        return this.#tellQueue();
      }
      case 'counted':
        return this.#counted(message.counters);
      case 'wantToken':
        return void this.#bring(message.id, message.reason);
      case 'note':
        for (const listener of [...this.#notes]) this.#call(() => listener(message.push));
        return;
      case 'here':
        return;
      default: {
        const sub = this.#subs.get(message.n);
        if (sub !== undefined) this.#deliver(sub, message);
      }
    }
  }

  #deliver(sub: Sub, message: ToTab & { n: number }): void {
    const { handlers } = sub;
    switch (message.t) {
      case 'event': {
        const { event, delivery } = message;
        sub.cursor = message.cursor ?? sub.cursor;
        // A hub that took over may tell what the one before told already.
        if (sub.seen.add(event.source, event.id)) this.#call(() => handlers.onEvent?.(event as EventOf<EventMap>, delivery));
        return;
      }
      case 'value': {
        const { key, event, gone, live } = message;
        sub.coming?.add(key);
        const before = sub.values.get(key);
        if (event === undefined ? before === undefined : before !== undefined && before.id === event.id && before.source === event.source) return;
        if (event === undefined) sub.values.delete(key);
        else sub.values.set(key, event);
        return this.#call(() => handlers.onState?.({ key, event: event as EventOf<EventMap> | undefined, live, ...(gone === undefined ? {} : { gone }) }));
      }
      case 'caughtUp': {
        sub.cursor = message.cursor ?? sub.cursor;
        sub.stood = true;
        const { coming } = sub;
        sub.coming = undefined;
        if (coming !== undefined) {
          for (const key of [...sub.values.keys()]) if (!coming.has(key)) this.#deliver(sub, { t: 'value', n: sub.n, key, event: undefined, gone: 'withdrawn', live: true });
        }
        return this.#call(() => handlers.onCaughtUp?.());
      }
      case 'reset':
        sub.values.clear();
        sub.coming = undefined;
        return this.#call(() => handlers.onReset?.(message.reset));
      case 'presence':
        return this.#call(() => handlers.onPresence?.(message.presence));
      case 'error':
        return this.#call(() => handlers.onError?.(received(message.error)));
      default:
        return;
    }
  }

  /** Brings the hub a token of the same user; with another one this tab goes elsewhere. */
  async #bring(id: number, reason: 'connect' | 'expiring' | 'expired'): Promise<void> {
    try {
      const token = reason === 'connect' ? await this.#credentials.get() : await this.#credentials.renew(reason, this.#token);
      this.#token = token;
      if (keyOf(this.#url(), token) === this.#key) return this.#say({ t: 'token', id, token });
      this.close();
      this.connect();
    } catch (thrown) {
      this.#say({ t: 'token', id, error: sent(thrown) });
    }
  }

  #ask<T>(method: Method, ...args: unknown[]): Promise<T> {
    return new Promise<T>((settle, fail) => {
      const id = this.#takeNumber();
      this.#asked.set(id, { method, args, settle, fail });
      // A command that is given while this tab is paused waits for its return, as without a connection.
      if (method !== 'command' || !this.#isPaused) this.#give(id, method, args);
      this.#tellQueue();
    });
  }

  #counted(counters: Counters): void {
    // Listeners are this tab's own.
    Object.assign(this.#counters, counters, { listenerErrors: this.#counters.listenerErrors });
  }

  #give(id: number, method: Method, args: unknown[]): void {
    this.#given.add(id);
    this.#say({ t: 'ask', id, method, args });
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

  #takeNumber(): number {
    return this.#next++;
  }

  #url(): string {
    const url = this.#options.url ?? (globalThis as { location?: { origin: string } }).location?.origin;
    if (url === undefined) throw new RoomcastError('unsupported', 'Outside a page the client needs `url`.');
    return url.replace(/\/+$/, '');
  }
}

/** A name that nobody else has; also on pages that came over plain HTTP, where browsers have no `randomUUID`. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Who may share: the same gateway, issuer, tenant, user and roles. */
function keyOf(url: string, token: string | undefined): string {
  const { iss, tenant, sub, roles } = claimsOf(token);
  return JSON.stringify([url, iss ?? '', tenant ?? '', sub ?? token ?? '', Array.isArray(roles) ? [...roles].sort() : []]);
}

function lockManager(): LockManager | undefined {
  return (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
}

/** Waits until this tab holds its lock; it does so as long as it lives. Without locks nothing is held. */
function holdLock(name: string): Promise<void> {
  const locks = lockManager();
  if (locks === undefined) return Promise.resolve();
  return new Promise((held) => {
    locks.request(name, { ifAvailable: true }, (lock) => {
      held();
      // Held before: by this tab itself, which was closed and connects again.
      return lock === null ? undefined : new Promise(() => undefined);
    }).catch(() => held());
  });
}

/** The best place that there is: a worker, the tab that holds the lock, this tab. `attached` is called with each hub. */
async function findPlace(make: (() => WorkerLike) | undefined, hello: ToHub & { t: 'hello' }, attached: (pipe: Pipe) => void): Promise<{ stop(): void }> {
  const worker = make === undefined || !('SharedWorker' in globalThis) ? undefined : await fromWorker(make, hello);
  if (worker !== undefined) {
    attached(worker.pipe);
    return worker;
  }
  const locks = lockManager();
  if (locks === undefined || typeof BroadcastChannel === 'undefined') return alone(hello, attached);
  return new Election(locks, hello, attached);
}

/** A worker that answers; undefined where it cannot be made, is not allowed, or stays silent. */
function fromWorker(make: () => WorkerLike, hello: ToHub): Promise<{ pipe: Pipe; stop(): void } | undefined> {
  return new Promise((settle) => {
    const timer = setTimeout(() => settle(undefined), WORKER_MS);
    const give = (place: { pipe: Pipe; stop(): void } | undefined): void => {
      clearTimeout(timer);
      settle(place);
    };
    try {
      const worker = make();
      worker.onerror = () => give(undefined);
      const { port } = worker;
      const pipe: Pipe = { post: (message) => port.postMessage(message), onmessage: null };
      port.onmessage = ({ data }: MessageEvent<ToTab>) => {
        if (data.t === 'here') give({ pipe, stop: () => port.close() });
        else pipe.onmessage?.(data as never);
      };
      port.start();
      port.postMessage(hello);
    } catch {
      give(undefined);
    }
  });
}

function alone(hello: ToHub & { t: 'hello' }, attached: (pipe: Pipe) => void): { stop(): void } {
  const [own, hubs] = pair();
  const stop = new Hub(hello.options).attach(hubs);
  attached(own);
  return { stop };
}

/** What goes over the channel. */
type Sent = { to: 'hub'; tab: string; body?: unknown } | { to: 'all'; hub: string } | { to: 'tab'; tab: string; body: unknown };

/** One of the tabs holds the connection: whoever has the lock. */
class Election {
  readonly #channel: BroadcastChannel;
  readonly #hello: ToHub & { t: 'hello' };
  readonly #attached: (pipe: Pipe) => void;
  readonly #stop = new AbortController();
  #resign: (() => void) | undefined;
  #pipe: Pipe | undefined;
  /** Whom it follows. */
  #hub = '';

  constructor(locks: LockManager, hello: ToHub & { t: 'hello' }, attached: (pipe: Pipe) => void) {
    this.#hello = hello;
    this.#attached = attached;
    this.#channel = new BroadcastChannel(`roomcast:${hello.key}`);
    this.#channel.onmessage = ({ data }: MessageEvent<Sent>) => this.#follow(data);
    // Where locks are there and not allowed, each tab is on its own.
    locks.request(`roomcast:hub:${hello.key}`, { signal: this.#stop.signal }, () => this.#lead()).catch(() => this.#stop.signal.aborted || void this.#lead());
    // Whoever leads already answers.
    this.#send({ to: 'hub', tab: hello.tab });
  }

  stop(): void {
    this.#stop.abort();
    this.#resign?.();
    this.#channel.close();
  }

  #follow(message: Sent): void {
    if (message.to === 'all') {
      // Said to a tab that has just come; the others know.
      if (message.hub === this.#hub) return;
      this.#hub = message.hub;
      const pipe: Pipe = { post: (body) => this.#send({ to: 'hub', tab: this.#hello.tab, body }), onmessage: null };
      this.#pipe = pipe;
      this.#send({ to: 'hub', tab: this.#hello.tab, body: this.#hello });
      this.#attached(pipe);
    } else if (message.to === 'tab' && message.tab === this.#hello.tab) {
      this.#pipe?.onmessage?.(message.body as never);
    }
  }

  #lead(): Promise<void> {
    const hub = new Hub(this.#hello.options);
    const here: Sent = { to: 'all', hub: randomId() };
    const pipes = new Map<string, Pipe>();
    this.#channel.onmessage = ({ data }: MessageEvent<Sent>) => {
      if (data.to !== 'hub') return;
      const { tab, body } = data;
      const known = pipes.get(tab);
      // A tab that has just come; all that follow already know.
      if (body === undefined) return this.#send(here);
      if ((body as ToHub).t === 'bye') pipes.delete(tab);
      if ((body as ToHub).t !== 'hello') return known?.onmessage?.(body as never);
      if (known !== undefined) return;
      const pipe: Pipe = { post: (answer) => this.#send({ to: 'tab', tab, body: answer }), onmessage: null };
      pipes.set(tab, pipe);
      const detach = hub.attach(pipe);
      whenGone(tab, () => {
        if (pipes.get(tab) === pipe) pipes.delete(tab);
        detach();
      });
    };
    const [own, hubs] = pair();
    hub.attach(hubs);
    this.#attached(own);
    this.#send(here);
    return new Promise((resolve) => {
      this.#resign = () => {
        hub.close();
        resolve();
      };
    });
  }

  #send(message: Sent): void {
    try {
      this.#channel.postMessage(message);
    } catch {
      // Closed: the tab is going away.
    }
  }
}

