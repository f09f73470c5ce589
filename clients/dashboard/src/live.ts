/**
 * The page's link to Roomcast: one client, its rooms folded into stores. Components read the stores; nothing else on
 * the page talks to the network.
 */

import { Client, RoomcastError, type CloudEvent, type ConnectionState, type Delivery } from 'roomcast';
import { fold, NO_BOOKINGS, readBooking, type BookingEvents, type BookingList } from './bookings.js';
import { metricOfKey, readMetric, readStatus, type Metric, type MetricStatus } from './metric.js';
import type { PageConfig } from './page.js';
import { readToken } from './session.js';
import { Store } from './store.js';
import { add, NO_TOASTS, type Toasts } from './toasts.js';

/** How far a room has come on the screen. */
export interface RoomView {
  /** The first data is there (or known to be empty). */
  readonly loaded: boolean;
  readonly error: RoomcastError | undefined;
}

/** Numbers by metric. */
export interface Metrics {
  readonly values: ReadonlyMap<string, Metric>;
  readonly statuses: ReadonlyMap<string, MetricStatus>;
}

/** A change of the connection, for the connection view. */
export interface Turn {
  readonly at: number;
  readonly status: ConnectionState['status'];
  readonly why: string | undefined;
}

/** Changes of the connection that are remembered. */
const TURNS_MAX = 50;
/** Bookings loaded for the first paint, in events. */
const HISTORY = 100;

/** Everything live on the page. */
export class Live {
  readonly client: Client;
  readonly connection: Store<ConnectionState>;
  readonly bookings = new Store<BookingList>(NO_BOOKINGS);
  readonly metrics = new Store<Metrics>({ values: new Map(), statuses: new Map() });
  readonly toasts = new Store<Toasts>(NO_TOASTS);
  readonly eventsRoom = new Store<RoomView>({ loaded: false, error: undefined });
  readonly metricsRoom = new Store<RoomView>({ loaded: false, error: undefined });
  readonly turns = new Store<readonly Turn[]>([]);
  /** When the last frame with content came, by the server's clock. */
  readonly lastEventAt = new Store<number | undefined>(undefined);

  constructor(config: PageConfig) {
    this.client = new Client({ token: readToken, name: 'roomcast-dashboard/0.1.0' });
    this.connection = new Store(this.client.connection);
    this.client.onConnection((state) => this.#turned(state));
    this.client.subscribe<BookingEvents>(config.rooms.events, {
      history: HISTORY,
      onEvent: (event, delivery) => this.#booking(event, delivery),
      onCaughtUp: () => this.eventsRoom.update(() => ({ loaded: true, error: undefined })),
      onError: (error) => this.eventsRoom.update(() => ({ loaded: true, error })),
    });
    const metrics = this.client.subscribe(config.rooms.metrics, {
      history: 1,
      onState: ({ key, event }) => this.#state(key, event),
      onCaughtUp: () => {
        this.metricsRoom.update(() => ({ loaded: true, error: undefined }));
        this.#forgetGone(metrics.state);
      },
      onError: (error) => this.metricsRoom.update(() => ({ loaded: true, error })),
    });
    this.client.connect();
  }

  /** Ends everything; the page is going away or the reader signs out. */
  close(): void {
    this.client.close();
  }

  #booking(event: CloudEvent, delivery: Delivery): void {
    this.bookings.update((list) => fold(list, event, delivery.live));
    this.eventsRoom.update((room) => (room.loaded ? room : { ...room, loaded: true }));
    if (!delivery.live) return;
    this.#heard();
    const read = readBooking(event);
    const booking = read === undefined ? undefined : this.bookings.now.byId.get(read.data.id);
    if (read === undefined || booking === undefined) return;
    const toast = { id: `${event.source} ${event.id}`, booking, status: read.status, critical: event.priority === 'critical' };
    this.toasts.update((toasts) => add(toasts, toast, Date.now()));
  }

  #state(key: string, event: CloudEvent | undefined): void {
    // While the room starts over its values are gone for a moment; the old numbers stay on the screen until it has caught up.
    if (event === undefined) return this.#forget(key);
    this.#heard();
    const name = metricOfKey(key);
    const value = name === undefined ? undefined : readMetric(event);
    if (name !== undefined && value !== undefined) {
      this.metrics.update((metrics) => ({ ...metrics, values: new Map(metrics.values).set(name, value) }));
      this.metricsRoom.update((room) => (room.loaded ? room : { ...room, loaded: true }));
    }
    const status = key.startsWith('status/') ? readStatus(event) : undefined;
    if (status !== undefined) this.metrics.update((metrics) => ({ ...metrics, statuses: new Map(metrics.statuses).set(key.slice(7), status) }));
  }

  #forget(key: string): void {
    this.metrics.update((metrics) => {
      if (!metrics.values.has(key)) return metrics;
      const values = new Map(metrics.values);
      values.delete(key);
      return { ...metrics, values };
    });
  }

  #forgetGone(state: ReadonlyMap<string, CloudEvent>): void {
    for (const key of this.metrics.now.values.keys()) if (!state.has(key)) this.#forget(key);
  }

  #heard(): void {
    this.lastEventAt.update(() => this.client.serverNow());
  }

  #turned(state: ConnectionState): void {
    const before = this.connection.now;
    this.connection.update(() => state);
    if (before.status === state.status) return;
    const turn: Turn = { at: Date.now(), status: state.status, why: state.error?.message };
    this.turns.update((turns) => [turn, ...turns].slice(0, TURNS_MAX));
  }
}
