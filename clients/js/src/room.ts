/**
 * One room: its cursor, its state, and the subscriptions that listen. Fed by the client with what the socket and the
 * snapshot bring; touches neither itself. Decides what is delivered, once, in which order, and whether it is news.
 */

import type { Counters } from './counters.js';
import { RoomcastError } from './error.js';
import type { CloudEvent, Delivery, EventMap, EventOf, Reset, StateChange } from './event.js';
import type { Presence, RoomAnswer } from './frame.js';
import type { Snapshot } from './http.js';
import type { Place } from './missed.js';
import { Seen } from './seen.js';
import { expiryOf, StateStore } from './state.js';

/** What an application wants to hear of a room. All optional; none may be relied on to be called synchronously. */
export interface RoomHandlers<M extends EventMap = EventMap> {
  /** How many past events to load over HTTP before going live; 0 = none. Default 50. */
  history?: number;
  /** Goes on from a place, `goOn(cursor)` with one kept from `subscription.cursor`, instead of loading history: what was missed comes as news. */
  from?: Place;
  /** What happens while nobody sees the page: `hold` keeps everything back, and leaves the room to the server until somebody does. */
  whileHidden?: 'deliver' | 'hold';
  onEvent?(event: EventOf<M>, delivery: Delivery): void;
  onState?(change: StateChange<M>): void;
  /** Everything up to now has been delivered; again after every return. */
  onCaughtUp?(): void;
  /** The room starts over: its state was forgotten, events may be missing. History is loaded again by itself. */
  onReset?(reset: Reset): void;
  /** Who is in the room, at once and whenever it changes (while polls are not held with each of them), where the policy allows it. */
  onPresence?(presence: Presence): void;
  /** What cannot be had, and why. A room that is away for a moment is asked for again by itself; its past, when the room starts over. */
  onError?(error: RoomcastError): void;
}

/** What a room needs from its client. */
export interface RoomHost {
  readonly counters: Counters;
  /** The server's time, in milliseconds since the Unix epoch. */
  now(): number;
  /** A listener threw. */
  listenerFailed(error: unknown): void;
  /** The room holds a value that expires then. */
  expiryAt(at: number): void;
  /** A room has caught up. */
  caughtUp(): void;
  /** A key of a room has another value, or none. */
  valueChanged(room: string, key: string, event: CloudEvent | undefined, cursor: string | undefined, live: boolean): void;
}

/** Events held back for one subscription while its history is loading; more than this and it goes on without. */
export const HELD_MAX = 5_000;

interface Held {
  readonly event: CloudEvent;
  readonly cursor: string | undefined;
  readonly recovered: boolean;
}

/** One listener's view of a room. */
export class Feed {
  readonly history: number;
  readonly #handlers: RoomHandlers;
  readonly #host: RoomHost;
  readonly #seen = new Seen();
  /** Defined while history is on its way: news wait behind it. */
  #held: Held[] | undefined;
  #caughtUp = false;
  #caughtUpWaiting = false;
  #lastError: string | undefined;
  /** Defined while the application wants nothing: what it will want to know then. */
  #asleep: { readonly calls: (() => void)[]; keys: Set<string> | undefined; isFull: boolean } | undefined;
  /** Where it goes on from, until it was caught up from there. */
  from: Place | undefined;
  /** What was missed since is being fetched. */
  isBridging = false;

  constructor(handlers: RoomHandlers, host: RoomHost) {
    this.#handlers = handlers;
    this.#host = host;
    this.from = handlers.from;
    this.history = handlers.history ?? 50;
    // Whoever goes on from a place has seen the rest: what follows is news.
    this.#caughtUp = this.from !== undefined;
    if (this.history > 0 && this.from === undefined) this.#held = [];
  }

  get whileHidden(): 'deliver' | 'hold' | undefined {
    return this.#handlers.whileHidden;
  }

  get isAsleep(): boolean {
    return this.#asleep !== undefined;
  }

  /** Keeps everything back. */
  sleep(): void {
    this.#asleep ??= { calls: [], keys: new Set(), isFull: false };
  }

  /** Lets go what was kept back, in order; `values` are the room's. False when it was too much: the subscription starts over. */
  wake(values: ReadonlyMap<string, CloudEvent>): boolean {
    const asleep = this.#asleep;
    if (asleep === undefined) return true;
    this.#asleep = undefined;
    if (asleep.isFull) {
      this.reset({ recovery: 'incomplete', reason: 'held' });
      return false;
    }
    for (const key of asleep.keys ?? []) this.state(key, values.get(key), values.has(key) ? undefined : 'withdrawn');
    for (const call of asleep.calls) this.#call(call);
    return true;
  }

  /** News wait until what lies between its place and the room's was fetched. */
  waitFor(): void {
    this.#held ??= [];
  }

  /** What was missed since its place. */
  missed(events: readonly { readonly cursor: string; readonly event: CloudEvent }[]): void {
    for (const { event, cursor } of events) this.#deliver(event, cursor, { live: true, recovered: true, from: 'socket' });
  }

  /** History is still wanted. */
  get wantsHistory(): boolean {
    return this.#held !== undefined && this.from === undefined;
  }

  offer(event: CloudEvent, cursor: string | undefined, recovered: boolean): void {
    if (this.#held === undefined) return this.#deliver(event, cursor, { live: this.#caughtUp, recovered, from: 'socket' });
    this.#held.push({ event, cursor, recovered });
    if (this.#held.length > HELD_MAX) this.release();
  }

  past(events: readonly CloudEvent[]): void {
    for (const event of events) this.#deliver(event, undefined, { live: false, recovered: false, from: 'snapshot' });
  }

  /** Lets what was held back go, in order. `error`: why the history that it waited for does not come. */
  release(error?: RoomcastError): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    if (error !== undefined) this.error(error);
    for (const { event, cursor, recovered } of held) this.#deliver(event, cursor, { live: this.#caughtUp, recovered, from: 'socket' });
    if (this.#caughtUpWaiting) this.caughtUp();
  }

  caughtUp(): void {
    if (this.#held !== undefined) {
      this.#caughtUpWaiting = true;
      return;
    }
    this.#caughtUpWaiting = false;
    this.#caughtUp = true;
    this.#lastError = undefined;
    this.#call(() => this.#handlers.onCaughtUp?.());
  }

  /** Values, as they are now. */
  tell(values: ReadonlyMap<string, CloudEvent>): void {
    for (const [key, event] of values) this.state(key, event);
  }

  state(key: string, event: CloudEvent | undefined, gone?: 'withdrawn' | 'expired'): void {
    if (this.#asleep !== undefined) return void this.#asleep.keys?.add(key);
    const change: StateChange = { key, event: event as EventOf<EventMap> | undefined, gone, live: this.#caughtUp };
    this.#call(() => this.#handlers.onState?.(change));
  }

  /** Wants to know who is there. */
  get wantsPresence(): boolean {
    return this.#handlers.onPresence !== undefined;
  }

  present(presence: Presence): void {
    this.#call(() => this.#handlers.onPresence?.(presence));
  }

  /** Starts over; `values`, where the room has any, are told anew. */
  reset(reset: Reset, values?: ReadonlyMap<string, CloudEvent>): void {
    if (this.history > 0) this.#held ??= [];
    this.#call(() => this.#handlers.onReset?.(reset));
    if (values === undefined) return;
    // What holds when it wakes is told behind the reset, and no key of its own before that.
    if (this.#asleep !== undefined) this.#asleep.keys = undefined;
    this.#call(() => this.tell(values));
  }

  /** Says an error once until the room works again. */
  error(error: RoomcastError): void {
    if (this.#lastError === error.code) return;
    this.#lastError = error.code;
    this.#call(() => this.#handlers.onError?.(error));
  }

  #deliver(event: CloudEvent, cursor: string | undefined, delivery: Delivery): void {
    // Decided when it is told: what was kept back and then given up may come again, and what has expired until then is old.
    this.#call(() => {
      const { counters } = this.#host;
      const expiry = expiryOf(event);
      if (expiry !== undefined && expiry <= this.#host.now()) counters.expired += 1;
      else if (!this.#seen.add(event.source, event.id, cursor)) counters.duplicates += 1;
      else {
        counters.delivered += 1;
        this.#handlers.onEvent?.(event as EventOf<EventMap>, delivery);
      }
    });
  }

  /** Calls a listener, now or when the application wants to know again. */
  #call(call: () => void): void {
    const asleep = this.#asleep;
    if (asleep !== undefined) {
      if (asleep.calls.length < HELD_MAX) asleep.calls.push(call);
      else asleep.isFull = true;
      return;
    }
    try {
      call();
    } catch (error) {
      this.#host.listenerFailed(error);
    }
  }
}

/** A history request on its way. */
export interface Loading {
  readonly stop: AbortController;
  /** Ends when it has come or failed; never rejects. */
  done: Promise<void>;
}

/** A room and everything known about it. */
export class Room {
  readonly name: string;
  readonly feeds = new Set<Feed>();
  readonly store = new StateStore();
  /** Delivered up to here; what a return asks for. */
  cursor: string | undefined;
  /** The present connection carries the room. */
  joined = false;
  /** The present connection was asked for the room. */
  asked = false;
  /** Between the answer and `caughtUp`. */
  recovering = false;
  /** The history request on its way. */
  loading: Loading | undefined;
  /** The present connection pushes who is there. */
  presenceAsked = false;
  #present: Presence | undefined;
  #begun = false;
  /** It had caught up once: what changes from then on is news. */
  #stood = false;
  /** Keys from before it started over, until it has caught up. */
  readonly #before = new Set<string>();
  readonly #host: RoomHost;

  constructor(name: string, host: RoomHost) {
    this.name = name;
    this.#host = host;
  }

  /** It has caught up, and the present connection carries it. */
  get isCurrent(): boolean {
    return this.joined && !this.recovering;
  }

  /** Some subscription waits for history. */
  get wantsHistory(): boolean {
    return [...this.feeds].some((feed) => feed.wantsHistory);
  }

  /** Nobody wants anything: the server need not send it. */
  get isAsleep(): boolean {
    return this.feeds.size > 0 && [...this.feeds].every((feed) => feed.isAsleep);
  }

  /** Some subscription wants to know who is there. */
  get wantsPresence(): boolean {
    return [...this.feeds].some((feed) => feed.wantsPresence);
  }

  /** Who is there now. */
  present(presence: Presence): void {
    this.#present = presence;
    for (const feed of this.feeds) feed.present(presence);
  }

  /** The largest history any waiting subscription asks for, in events. */
  get historyLength(): number {
    return Math.max(0, ...[...this.feeds].filter((feed) => feed.wantsHistory).map((feed) => feed.history));
  }

  /** A subscription came later than the room: it gets what the room already knows. */
  welcome(feed: Feed): void {
    feed.tell(this.store.values);
    if (this.#present !== undefined && this.presenceAsked) feed.present(this.#present);
    if (this.isCurrent) feed.caughtUp();
  }

  /** The server answered for this room: delivery begins. */
  begin({ recovery, reason }: RoomAnswer): void {
    const isAgain = this.#begun;
    this.joined = this.recovering = this.#begun = true;
    if (recovery === 'complete') return;
    this.#empty();
    if (isAgain) for (const feed of [...this.feeds]) feed.reset({ recovery, reason }, this.store.values);
  }

  /** The connection is gone. The cursor stays. */
  leave(): void {
    this.joined = this.asked = this.recovering = this.presenceAsked = false;
  }

  /** An event frame of the socket. */
  take(event: CloudEvent, cursor: string | undefined): void {
    // While recovering, events run ahead of the state that follows them: a cursor of one of them would skip values on
    // the next return. So the old cursor holds until `caughtUp`; what comes again then is recognised.
    if (cursor !== undefined && !this.recovering) this.cursor = cursor;
    if (event.statekey !== undefined && (event.delivery === 'state' || event.delivery === undefined)) return this.#applyState(event, cursor);
    if (this.feeds.size === 0) this.#host.counters.unheard += 1;
    for (const feed of this.feeds) feed.offer(event, cursor, this.recovering);
  }

  /** The server says that nothing is missing up to this cursor. */
  caughtUp(cursor: string): void {
    const first = this.recovering;
    this.cursor = cursor;
    this.recovering = false;
    this.#stood = true;
    // Quiet rooms get newer cursors now and then: those are no news.
    if (!first) return;
    for (const key of this.#before) if (!this.store.values.has(key)) this.#host.valueChanged(this.name, key, undefined, undefined, true);
    this.#before.clear();
    this.#host.caughtUp();
    for (const feed of this.feeds) feed.caughtUp();
  }

  /** The history arrived. State and cursor count only if the socket has not begun: afterwards it knows better. */
  loaded(snapshot: Snapshot): void {
    if (!this.#begun && !this.asked && !this.joined) {
      this.#begun = true;
      for (const event of snapshot.state) this.#applyState(event);
      if (snapshot.cursor !== undefined) this.cursor = snapshot.cursor;
    }
    for (const feed of this.feeds) {
      if (!feed.wantsHistory) continue;
      feed.past(snapshot.events.slice(-feed.history));
      feed.release();
    }
  }

  /** No history is to be had; go on without. `error`: why, for those who wait for it. */
  unloaded(error?: RoomcastError): void {
    for (const feed of this.feeds) if (feed.from === undefined) feed.release(error);
  }

  /** Forgets what was shown and where we were. */
  forget(): void {
    this.#empty();
    for (const key of this.#before) this.#gone(key, 'withdrawn');
    this.#before.clear();
  }

  /** Begins without anything; the keys that it had are kept until it is known which of them are gone. */
  #empty(): void {
    for (const key of this.store.values.keys()) this.#before.add(key);
    this.store.clear();
    this.cursor = undefined;
  }

  fail(error: RoomcastError): void {
    for (const feed of this.feeds) feed.error(error);
  }

  /** Drops values whose time is over. */
  expire(now: number): void {
    for (const key of this.store.expire(now)) this.#gone(key, 'expired');
  }

  #gone(key: string, why: 'withdrawn' | 'expired'): void {
    this.#host.valueChanged(this.name, key, undefined, undefined, this.#stood);
    for (const feed of this.feeds) feed.state(key, undefined, why);
  }

  #applyState(event: CloudEvent, cursor?: string): void {
    const effect = this.store.apply(event, this.#host.now());
    if (effect === 'unchanged') return;
    const key = event.statekey as string;
    if (effect !== 'set') return this.#gone(key, effect);
    const expiry = expiryOf(event);
    if (expiry !== undefined) this.#host.expiryAt(expiry);
    this.#host.valueChanged(this.name, key, event, cursor, this.#stood);
    for (const feed of this.feeds) feed.state(key, event);
  }
}
