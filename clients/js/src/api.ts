/** What an application talks to. `Client` and the client of a shared connection are both one; hooks and stores need no more. */

import type { Counters } from './counters.js';
import type { RoomcastError } from './error.js';
import type { CloudEvent, EventMap } from './event.js';
import type { Json, NotificationCounters, Presence } from './frame.js';
import type { HistoryPage, Series, SeriesOptions, Snapshot } from './http.js';
import type { ConnectionState } from './machine.js';
import type { RoomHandlers } from './room.js';

/** A listener's hold on a room. */
export interface Subscription {
  readonly room: string;
  /** The latest value of every key, live: the map changes with the room. */
  readonly state: ReadonlyMap<string, CloudEvent>;
  /** How far this subscription has come: `from` of a later one goes on there. */
  readonly cursor: string | undefined;
  /** Keeps everything back until {@link release}; when all subscriptions of a room do, the server sends nothing. */
  hold(): void;
  /** Lets go what was kept back, in order. */
  release(): void;
  /** Ends it; the last one of a room leaves the room. */
  unsubscribe(): void;
}

/** How a command is sent. */
export interface CommandOptions {
  /** Idempotency key, 1 to 128 bytes. Default: a random one. The same key is the same command for 24 hours, however often it is sent. */
  key?: string;
  /** How long its backend may take, in milliseconds. Default 10,000; at most 30,000. */
  timeoutMs?: number;
  /** False: fails at once with `offline` where there is no connection. Default: it waits, and is sent once on return. */
  queue?: boolean;
}

/** A command that waits, or is on its way. */
export interface QueuedCommand {
  readonly key: string;
  readonly name: string;
  readonly data: unknown;
  /** When it was asked for, milliseconds since the Unix epoch. */
  readonly at: number;
  readonly timeoutMs: number;
  /** Whose command it is; nobody else's connection sends it. */
  readonly user: string | undefined;
}

/** Something about notifications that came without being asked for by room. */
export type NotificationPush =
  /** A notification is there, another one, or gone. `live` as in {@link Delivery}. */
  | { readonly kind: 'value'; readonly room: string; readonly key: string; readonly cursor: string | undefined; readonly event: CloudEvent | undefined; readonly live: boolean }
  /** The unread counters, absolute and versioned. */
  | { readonly kind: 'counters'; readonly counters: NotificationCounters }
  /** How the user wants to be told: `{version, preferences}` as the server says it. */
  | { readonly kind: 'preferences'; readonly body: Json }
  /** What holds was said: with each connection, once its rooms have caught up, and when one of them has again. */
  | { readonly kind: 'caughtUp' };

/** Where one room stands. */
export interface RoomStanding {
  readonly room: string;
  readonly cursor: string | undefined;
  readonly joined: boolean;
  readonly caughtUp: boolean;
  readonly keys: number;
  readonly subscriptions: number;
}

/** A connection to Roomcast and the rooms on it. Nothing happens before {@link RoomcastClient.connect}. */
export interface RoomcastClient<M extends EventMap = EventMap> {
  /** Where the connection stands. A change is a new object. */
  readonly connection: ConnectionState;
  /** What was delivered and what was not, and why. */
  readonly counters: Counters;
  /** The server's clock as far as we know it, in milliseconds since the Unix epoch. */
  serverNow(): number;
  /** Starts, or starts again after an end. */
  connect(): void;
  /** Ends the connection for good; `connect` begins anew with the same cursors. */
  close(): void;
  /** Stops by the user's wish. What happens meanwhile is delivered on {@link resume}. */
  pause(): void;
  /** Goes on where {@link pause} stopped. */
  resume(): void;
  /** Ends a wait. */
  retryNow(): void;
  /** Tells every change of {@link connection}. Returns how to stop. */
  onConnection(listener: (state: ConnectionState) => void): () => void;
  /**
   * Listens to a room: history over HTTP first, then live from exactly there. May be called before {@link connect} and
   * several times for one room; each subscription gets every event once. Handlers are never called before this returns.
   */
  subscribe<E extends EventMap = M>(room: string, handlers: RoomHandlers<E>): Subscription;
  /** The room at one instant, over HTTP. Throws `RoomcastError`. */
  snapshot(room: string, events?: number, signal?: AbortSignal): Promise<Snapshot>;
  /** Past events before a cursor, over HTTP. Throws `RoomcastError`. */
  history(room: string, options?: { before?: string; limit?: number }, signal?: AbortSignal): Promise<HistoryPage>;
  /** Windows of a metric, over HTTP. Throws `RoomcastError`. */
  series(room: string, metric: string, options?: SeriesOptions, signal?: AbortSignal): Promise<Series>;
  /**
   * Asks a backend to do something, once, however often it has to be sent; answers what it said. Throws `RoomcastError`:
   * `forbidden`, `conflict`, `too_large` and what the backend refuses are final; `unavailable` and `unknown` come only after
   * they were asked again, with the same key, for a minute of connection; `unknown` also when somebody else has signed in meanwhile.
   */
  command<R = unknown>(name: string, data?: unknown, options?: CommandOptions): Promise<R>;
  /** Commands that wait to be sent. */
  queued(): readonly QueuedCommand[];
  /** Tells when {@link queued} is another list. Returns how to stop. */
  onQueued(listener: (commands: readonly QueuedCommand[]) => void): () => void;
  /** A user's own event, where the policy allows it; the same id again is the same event. Answers the id. Throws `RoomcastError`. */
  publish(room: string, type: string, data: unknown, id?: string): Promise<string>;
  /** Who is in a room now. Throws `RoomcastError`. */
  presence(room: string): Promise<Presence>;
  /** Says what the user is doing, where the policy's `activity` wants to know. Lost without a connection: it is about now. */
  activity(kind: string, detail?: string): void;
  /** A request of the protocol that has no method here; answers the body of the answer. Throws `RoomcastError`. */
  request(name: string, body: Json, timeoutMs?: number): Promise<Json>;
  /** Tells what comes about notifications. Returns how to stop. The store is made of it: see `notifications`. */
  onNotification(listener: (push: NotificationPush) => void): () => void;
  /** Where each room stands: for views that explain the connection. */
  rooms(): RoomStanding[];
  /** Says something to whoever reads the logs. */
  report(problem: RoomcastError | unknown): void;
}
