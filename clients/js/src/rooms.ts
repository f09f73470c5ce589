/**
 * The rooms of one client: who subscribed to what, which of them the present connection carries, where each stands, and
 * how a subscription gets from its own place to the room's. Fed by the client with what the server answers and sends.
 */

import type { NotificationPush, RoomStanding, Subscription } from './api.js';
import { asError, RoomcastError } from './error.js';
import type { CloudEvent, EventMap } from './event.js';
import type { Json, Presence, RoomAnswer } from './frame.js';
import type { Http } from './http.js';
import type { Link } from './link.js';
import type { Requests } from './requests.js';
import { Feed, Room, type Loading, type RoomHandlers, type RoomHost } from './room.js';

/** How long `connect` waits for history that is on its way, in milliseconds; then the socket goes first. */
const HISTORY_WAIT_MS = 3_000;
/** A room refused for a passing reason is asked for again after this, in milliseconds, unless the server says when. */
const REJOIN_MS = 5_000;
/** Longest timer that browsers keep, with room to spare, in milliseconds. */
const TIMER_MAX_MS = 3_600_000;

/** What the rooms need from their client. */
export interface RoomsHost extends Omit<RoomHost, 'expiryAt' | 'caughtUp' | 'valueChanged'> {
  readonly http: Http;
  readonly link: Link;
  readonly requests: Requests;
  /** Subscriptions that do not say it wait while nobody sees the page. */
  readonly holds: boolean;
  /** Something about notifications. */
  pushed(push: NotificationPush): void;
}

/** All of them. */
export class Rooms {
  readonly #rooms = new Map<string, Room>();
  readonly #host: RoomsHost;
  readonly #roomHost: RoomHost;
  #expiryTimer: ReturnType<typeof setTimeout> | undefined;
  #expiryAt = Infinity;
  /** Nobody sees the page, for a while already. */
  #isHidden = false;

  constructor(host: RoomsHost) {
    this.#host = host;
    this.#roomHost = {
      ...host,
      expiryAt: (at) => this.#armExpiry(at),
      caughtUp: () => this.#caughtUp(),
      valueChanged: (room, key, event, cursor, live) => {
        if (isNotification(key)) host.pushed({ kind: 'value', room, key, cursor, event, live });
      },
    };
  }

  subscribe<E extends EventMap>(name: string, handlers: RoomHandlers<E>): Subscription {
    const room = this.#room(name);
    const feed = new Feed(handlers as RoomHandlers, this.#roomHost);
    feed.from?.enter(room, feed);
    room.feeds.add(feed);
    if (this.#isHidden && this.#holds(feed)) feed.sleep();
    queueMicrotask(() => {
      if (!room.feeds.has(feed)) return;
      room.welcome(feed);
      this.#watchPresence(room);
      this.#bridgeAll(room);
      if (feed.wantsHistory) void this.#load(room).then(() => this.#join(room));
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

  /** The server's answers to everything that was asked for with a connection. */
  connected(answers: readonly RoomAnswer[]): void {
    const named = new Set(answers.map((answer) => answer.room));
    for (const answer of answers) this.answered(answer);
    for (const room of this.#rooms.values()) {
      // Not answered, or subscribed while the connection was being made.
      if (named.has(room.name)) continue;
      room.leave();
      if (room.loading === undefined) this.#join(room);
    }
    this.#caughtUp();
  }

  /** The server's answer about one room. */
  answered(answer: RoomAnswer): void {
    if (answer.error !== undefined) {
      const room = this.#rooms.get(answer.room);
      if (room === undefined) return;
      return this.refused(room, new RoomcastError(answer.error.code, answer.error.message, { ...answer.error, room: answer.room }));
    }
    // Rooms the server opens by itself are kept too, so that a later subscription finds their state.
    const room = this.#room(answer.room);
    room.asked = true;
    room.begin(answer);
    if (room.wantsHistory) void this.#load(room);
  }

  /** The server would not let us in. */
  refused(room: Room, error: RoomcastError): void {
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

  /** The server took the room away. */
  removed(name: string, error: { code: string; message: string } | undefined): void {
    const room = this.#rooms.get(name);
    if (room === undefined) return;
    room.leave();
    room.forget();
    if (room.feeds.size === 0) this.#rooms.delete(name);
    room.fail(new RoomcastError(error?.code ?? 'forbidden', error?.message ?? 'The server closed the room.', { room: name }));
  }

  /** The server says that nothing is missing up to a cursor. */
  caughtUp(name: string, cursor: string): void {
    const room = this.#rooms.get(name);
    // A stream goes on about a room that was left: of what it sent meanwhile nothing was kept.
    if (room === undefined || !room.joined) return;
    room.caughtUp(cursor);
    this.#bridgeAll(room);
    this.#watchPresence(room);
    // Opened by the server, or with a connection: nobody wants it yet.
    this.#park(room);
  }

  /** An event of a room. */
  event(name: string, event: CloudEvent, cursor: string | undefined): void {
    const room = this.#rooms.get(name);
    // Left a moment ago, and perhaps entered again: what still comes from before is not part of the new stay.
    if (room === undefined || !room.joined) this.#host.counters.unheard += 1;
    else room.take(event, cursor);
  }

  /** Who is in a room. */
  present(presence: Presence): void {
    this.#rooms.get(presence.room)?.present(presence);
  }

  /** What `connect` asks for: all rooms, once the history that is on its way has come. `isTrial`: beside a connection that goes on. */
  async toConnect(isTrial: boolean): Promise<Json[]> {
    const waiting = [...this.#rooms.values()].filter((room) => room.wantsHistory && room.cursor === undefined);
    if (waiting.length > 0 && !isTrial) await settled(waiting.map((room) => this.#load(room)), HISTORY_WAIT_MS);
    const rooms = [...this.#rooms.values()];
    if (!isTrial) for (const room of rooms) this.#ask(room);
    return rooms.map(roomRequest);
  }

  /** Where each stands. */
  standing(): RoomStanding[] {
    return [...this.#rooms.values()].map((room) => ({
      room: room.name,
      cursor: room.cursor,
      joined: room.joined,
      caughtUp: room.isCurrent,
      keys: room.store.values.size,
      subscriptions: room.feeds.size,
    }));
  }

  /** The notifications they hold, and that they are all. */
  *notifications(): Generator<NotificationPush> {
    let isAll = this.#host.link.state.status === 'live';
    for (const { name, store, recovering } of this.#rooms.values()) {
      isAll &&= !recovering;
      for (const [key, event] of store.values) if (isNotification(key)) yield { kind: 'value', room: name, key, cursor: undefined, event, live: false };
    }
    if (isAll) yield { kind: 'caughtUp' };
  }

  /** New rights may open what was refused. */
  joinAll(): void {
    for (const room of this.#rooms.values()) this.#join(room);
  }

  /** The connection is gone. */
  leaveAll(): void {
    for (const room of this.#rooms.values()) room.leave();
  }

  /** The client is closed: no timer runs. */
  close(): void {
    clearTimeout(this.#expiryTimer);
    this.#expiryAt = Infinity;
  }

  /** Nobody sees the page, or somebody does again. */
  seen(isHidden: boolean): void {
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

  /** Says that what holds was said, unless a room has still to catch up. */
  #caughtUp(): void {
    for (const push of this.notifications()) if (push.kind === 'caughtUp') this.#host.pushed(push);
  }

  #room(name: string): Room {
    let room = this.#rooms.get(name);
    if (room === undefined) {
      room = new Room(name, this.#roomHost);
      this.#rooms.set(name, room);
    }
    return room;
  }

  /** Once the room has caught up nothing more can be missed: then it is fetched what lies between a subscription's place and the room's. */
  #bridgeAll(room: Room): void {
    if (!room.isCurrent) return;
    for (const feed of room.feeds) if (!feed.isBridging) void feed.from?.bridge(this.#host.http, room, feed, () => this.#load(room));
  }

  #holds(feed: Feed): boolean {
    return feed.whileHidden === undefined ? this.#host.holds : feed.whileHidden === 'hold';
  }

  #hold(room: Room, feed: Feed): void {
    feed.sleep();
    this.#park(room);
  }

  /** A room of which nobody wants anything is left, with its place. */
  #park(room: Room): void {
    if (!room.isAsleep || !room.isCurrent || room.cursor === undefined) return;
    this.#host.link.request('unsubscribe', { room: room.name });
    room.leave();
  }

  #release(room: Room, feed: Feed): void {
    const isWhole = feed.wake(room.store.values);
    this.#join(room);
    if (isWhole) return;
    // It starts over in a room that goes on.
    room.welcome(feed);
    void this.#load(room);
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
      const snapshot = await this.#host.http.snapshot(room.name, room.historyLength, loading.stop.signal);
      if (room.loading !== loading) return;
      room.loading = undefined;
      room.loaded(snapshot);
    } catch (thrown) {
      if (room.loading !== loading) return;
      room.loading = undefined;
      const error = asError(thrown);
      // News must not wait behind a history that does not come while the socket works.
      if (!error.temporary || room.joined) room.unloaded(error);
    }
  }

  /** Asks the present connection for a room that it does not carry yet. */
  #join(room: Room): void {
    if (room.joined || room.asked || room.feeds.size === 0 || (room.isAsleep && room.cursor !== undefined) || this.#host.link.state.status !== 'live') return;
    if (this.#request(room, roomRequest(room))) this.#ask(room);
  }

  /** Asks for a room; false without a connection. */
  #request(room: Room, body: Json): boolean {
    const { link, requests } = this.#host;
    const id = link.request('subscribe', body);
    if (id !== undefined) requests.put(id, { room });
    return id !== undefined;
  }

  /** Asks for pushes about who is in a room that was opened without, once it has caught up: then opening it again costs nothing. */
  #watchPresence(room: Room): void {
    if (room.presenceAsked || !room.wantsPresence || !room.isCurrent || room.cursor === undefined) return;
    room.presenceAsked = this.#request(room, roomRequest(room));
  }

  /** From here on the socket knows better than a history that was asked for earlier and has no cursor to join at. */
  #ask(room: Room): void {
    room.asked = true;
    room.presenceAsked = room.wantsPresence;
    room.loading?.stop.abort();
    room.loading = undefined;
  }

  #leave(room: Room, feed: Feed): void {
    if (!room.feeds.delete(feed) || room.feeds.size > 0) return;
    room.loading?.stop.abort();
    room.loading = undefined;
    this.#rooms.delete(room.name);
    if (room.joined || room.asked) this.#host.link.request('unsubscribe', { room: room.name });
  }

  #armExpiry(at: number): void {
    if (at >= this.#expiryAt) return;
    clearTimeout(this.#expiryTimer);
    this.#expiryAt = at;
    this.#expiryTimer = setTimeout(() => this.#expire(), Math.min(TIMER_MAX_MS, Math.max(0, at - this.#host.now())));
  }

  #expire(): void {
    this.#expiryAt = Infinity;
    const now = this.#host.now();
    for (const room of this.#rooms.values()) {
      room.expire(now);
      this.#armExpiry(room.store.nextExpiry());
    }
  }
}

function isNotification(key: string): boolean {
  return key.startsWith('notification/');
}

function roomRequest(room: Room): Json {
  return { room: room.name, cursor: room.cursor, presence: room.wantsPresence || undefined };
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
