/**
 * What a page shows, as stores: the connection, a room's state, its events, a metric, a series, who is there. Each
 * follows its room while somebody watches, and is shared by all who ask for the same.
 */

import type { QueuedCommand, RoomcastClient } from './api.js';
import { asError, type RoomcastError } from './error.js';
import type { CloudEvent, Delivery, EventMap, EventOf } from './event.js';
import type { PresentUser } from './frame.js';
import type { SeriesOptions } from './http.js';
import type { ConnectionState } from './machine.js';
import { isClosedWindow, readMetric, readUpdate, sameGroup, type Metric, type MetricGroup } from './metric.js';
import { Cell, select, type Store } from './store.js';

/** A room's latest values. */
export interface RoomView {
  /** The first data is there, or known to be none. */
  readonly loaded: boolean;
  /** Why there is none, or none any more. */
  readonly error: RoomcastError | undefined;
  /** The latest value of every key. The map itself changes with the room; the view around it is a new object then. */
  readonly state: ReadonlyMap<string, CloudEvent>;
}

/** A room's events, newest first. */
export interface EventsView<M extends EventMap = EventMap> {
  readonly loaded: boolean;
  readonly error: RoomcastError | undefined;
  readonly events: readonly EventOf<M>[];
}

/** Which events a list holds. */
export interface EventsOptions<T extends string = string> {
  /** Only these types; default: all. */
  types?: readonly T[];
  /** Events kept, default 100; the oldest leave first. */
  limit?: number;
  /** Past events to load first, default 50. */
  history?: number;
}

/** A list of events, and the news themselves. */
export interface EventsStore<M extends EventMap = EventMap> extends Store<EventsView<M>> {
  /** Tells each event once as it comes, whether it is news, and nothing again that came before. Returns how to stop. */
  onEvent(listener: (event: EventOf<M>, delivery: Delivery) => void): () => void;
}

/** The windows of a metric, oldest first. */
export interface SeriesView {
  readonly loaded: boolean;
  readonly error: RoomcastError | undefined;
  readonly windows: readonly Metric[];
}

/** Who is in a room. */
export interface PresenceView {
  readonly loaded: boolean;
  readonly error: RoomcastError | undefined;
  readonly users: readonly PresentUser[];
  readonly total: number;
}

/** A series that could not be read for a passing reason is read again after this, in milliseconds, unless the server says when. */
const RELOAD_MS = 5_000;
/** Windows a series holds at most; the oldest leave first. */
export const WINDOWS_MAX = 2_000;

const made = new WeakMap<object, Map<string, unknown>>();

/** One store for all who ask for the same of one client; forgotten when nobody watches any more. */
function shared<S>(client: object, name: unknown[], make: (alive: (stop: () => void) => () => void) => S): S {
  let stores = made.get(client);
  if (stores === undefined) made.set(client, (stores = new Map()));
  const all = stores;
  const key = JSON.stringify(name);
  const before = all.get(key) as S | undefined;
  if (before !== undefined) return before;
  const store: S = make((stop) => {
    all.set(key, store);
    return () => {
      if (all.get(key) === store) all.delete(key);
      stop();
    };
  });
  all.set(key, store);
  return store;
}

/** Where the connection stands. */
export function connectionStore(client: RoomcastClient): Store<ConnectionState> {
  return shared(client, ['connection'], () => {
    const cell: Cell<ConnectionState> = new Cell(client.connection, () => {
      cell.set(client.connection);
      return client.onConnection((state) => cell.set(state));
    });
    return cell;
  });
}

/** Commands that wait to be sent. */
export function queueStore(client: RoomcastClient): Store<readonly QueuedCommand[]> {
  return shared(client, ['queue'], () => {
    const cell: Cell<readonly QueuedCommand[]> = new Cell(client.queued(), () => {
      cell.set(client.queued());
      return client.onQueued((commands) => cell.set(commands));
    });
    return cell;
  });
}

/** How far the first data of a store has come. */
class Standing {
  loaded = false;
  error: RoomcastError | undefined;

  /** Everything is there. False when it was before. */
  came(): boolean {
    const before = this.loaded && this.error === undefined;
    this.loaded = true;
    this.error = undefined;
    return !before;
  }

  /** There is none, or none any more. */
  failed(error: RoomcastError): void {
    this.loaded = true;
    this.error = error;
  }

  /** As views say it. */
  get shown(): { loaded: boolean; error: RoomcastError | undefined } {
    return { loaded: this.loaded, error: this.error };
  }
}

/** The latest values of a room. While a room starts over the old ones stay until it has caught up. */
export function roomStore(client: RoomcastClient, room: string): Store<RoomView> {
  return shared(client, ['room', room], (alive) => {
    let values = new Map<string, CloudEvent>();
    let coming: Map<string, CloudEvent> | undefined;
    let standing = new Standing();
    const view = (): RoomView => ({ ...standing.shown, state: values });
    const cell: Cell<RoomView> = new Cell(view(), () => {
      const subscription = client.subscribe(room, {
        history: 1,
        onState: ({ key, event }) => {
          if (event !== undefined) (coming ?? values).set(key, event as CloudEvent);
          else {
            // What is gone is not shown on, whatever is coming.
            values.delete(key);
            coming?.delete(key);
          }
          if (coming !== undefined && event !== undefined) return;
          standing.loaded ||= event !== undefined;
          cell.change(view);
        },
        onCaughtUp: () => {
          if (coming !== undefined) values = coming;
          coming = undefined;
          standing.came();
          cell.change(view);
        },
        onReset: () => {
          coming = new Map();
        },
        onError: (failure) => {
          // What was lost while it started over is not told key by key.
          if (coming !== undefined && !failure.temporary) {
            values = coming;
            coming = undefined;
          }
          standing.failed(failure);
          cell.change(view);
        },
      });
      return alive(() => {
        subscription.unsubscribe();
        // What happens from here on is not known: whoever watches again begins anew.
        values = new Map();
        coming = undefined;
        standing = new Standing();
        cell.set(view());
      });
    });
    return cell;
  });
}

/** The current window of one metric; undefined until it is known, and where there is none. */
export function metricStore(client: RoomcastClient, room: string, metric: string, group: MetricGroup = []): Store<Metric | undefined> {
  return shared(client, ['metric', room, metric, group], () => {
    let key: string | undefined;
    let event: CloudEvent | undefined;
    let value: Metric | undefined;
    return select(roomStore(client, room), ({ state }) => {
      key = state.has(key ?? '') ? key : keyOf(state, metric, group);
      const now = key === undefined ? undefined : state.get(key);
      if (now !== event) value = readMetric(now);
      event = now;
      return value;
    });
  });
}

/** The key of a metric's current window. Long texts are hashed in keys, so the values are looked at instead. */
function keyOf(state: ReadonlyMap<string, CloudEvent>, metric: string, group: MetricGroup): string | undefined {
  if (group.length === 0) return state.has(metric) ? metric : undefined;
  for (const [key, event] of state) {
    if (!key.startsWith(`${metric}/`) || isClosedWindow(key)) continue;
    const found = readMetric(event);
    if (found !== undefined && sameGroup(found.group, group)) return key;
  }
  return undefined;
}

/** The events of a room, newest first. */
export function eventsStore<M extends EventMap = EventMap>(client: RoomcastClient, room: string, options: EventsOptions<keyof M & string> = {}): EventsStore<M> {
  const { types, limit = 100, history = 50 } = options;
  return shared(client, ['events', room, types, limit, history], (alive) => {
    const wanted = types === undefined ? undefined : new Set<string>(types);
    const listeners = new Set<(event: EventOf<M>, delivery: Delivery) => void>();
    let events: EventOf<M>[] = [];
    let standing = new Standing();
    const view = (): EventsView<M> => ({ ...standing.shown, events: events.slice(-limit).reverse() });
    const clear = (): void => {
      events = [];
      standing = new Standing();
      cell.set(view());
    };
    const cell: Cell<EventsView<M>> = new Cell<EventsView<M>>(view(), () => {
      const subscription = client.subscribe<M>(room, {
        history,
        onEvent: (event, delivery) => {
          if (wanted !== undefined && !wanted.has((event as CloudEvent).type)) return;
          events.push(event);
          if (events.length >= limit * 2) events = events.slice(-limit);
          standing.loaded = true;
          cell.change(view);
          for (const listener of [...listeners]) listener(event, delivery);
        },
        onCaughtUp: () => standing.came() && cell.change(view),
        onReset: ({ reason }) => {
          // Past events are as good as before, but not for somebody else.
          if (reason === 'user') clear();
        },
        onError: (failure) => {
          standing.failed(failure);
          cell.change(view);
        },
      });
      return alive(() => {
        subscription.unsubscribe();
        clear();
      });
    });
    return {
      get: cell.get,
      subscribe: cell.subscribe,
      onEvent(listener) {
        const own: typeof listener = (event, delivery) => listener(event, delivery);
        listeners.add(own);
        const unwatch = cell.subscribe(() => undefined);
        return () => {
          listeners.delete(own);
          unwatch();
        };
      },
    };
  });
}

/** The windows of a metric: its past over HTTP, then live. */
export function seriesStore(client: RoomcastClient, room: string, metric: string, options: SeriesOptions = {}): Store<SeriesView> {
  return shared(client, ['series', room, metric, options], (alive) => {
    const windows = new Map<string, Metric>();
    let standing = new Standing();
    const view = (): SeriesView => {
      const sorted = [...windows.values()].sort((a, b) => Number(startOf(a) > startOf(b)) - Number(startOf(a) < startOf(b))).slice(-WINDOWS_MAX);
      return { ...standing.shown, windows: sorted };
    };
    let stop = new AbortController();
    let again: ReturnType<typeof setTimeout> | undefined;
    /** Ends the loading that is under way: what it brings is of before. */
    const begin = (): AbortSignal => {
      clearTimeout(again);
      stop.abort();
      return (stop = new AbortController()).signal;
    };
    const clear = (): void => {
      begin();
      windows.clear();
      standing = new Standing();
      cell.set(view());
    };
    const own = options.group === undefined ? metric : `${metric}/${options.group}`;
    const cell: Cell<SeriesView> = new Cell(view(), () => {
      const take = (window: Metric): void => {
        if (window.metric !== metric || !isWithin(window, options)) return;
        const key = JSON.stringify([window.window.start, window.group]);
        const before = windows.get(key);
        if (before === undefined || before.revision < window.revision || (before.revision === window.revision && before.asOf <= window.asOf)) windows.set(key, window);
        if (windows.size >= WINDOWS_MAX * 2) for (const old of [...windows.keys()].slice(0, WINDOWS_MAX)) windows.delete(old);
      };
      const failed = (failure: RoomcastError): void => {
        // Nothing is shown on to whom it is not open any more. A sign-in that has ended is another matter.
        if (!failure.temporary && !failure.isAuth) clear();
        standing.failed(failure);
        cell.change(view);
      };
      const load = async (): Promise<void> => {
        const signal = begin();
        try {
          const found = await client.series(room, metric, options, signal);
          if (signal.aborted) return;
          for (const window of found.windows.map(readUpdate)) if (window !== undefined) take(window);
          standing.came();
          cell.change(view);
        } catch (thrown) {
          if (signal.aborted) return;
          const failure = asError(thrown);
          failed(failure);
          // Without a connection the next one asks again.
          if (failure.temporary && client.connection.status === 'live') again = setTimeout(load, failure.retryAfterMs ?? RELOAD_MS);
        }
      };
      const subscription = client.subscribe(room, {
        history: 1,
        onState: ({ key, event, gone }) => {
          if (gone === 'withdrawn' && key === own) {
            // The room is still open, the metric perhaps not, or not as far: whatever is shown is asked for anew.
            clear();
            again = setTimeout(load);
          }
          const window = readMetric(event as CloudEvent | undefined);
          if (window === undefined || window.metric !== metric || (options.group !== undefined && key.split('@')[0] !== own)) return;
          take(window);
          cell.change(view);
        },
        // A first load that failed is made up for here.
        onCaughtUp: () => {
          if (!standing.loaded || standing.error !== undefined) void load();
        },
        onReset: ({ reason }) => {
          // The old windows stay in sight until the new ones are there, but not for somebody else.
          if (reason === 'user') clear();
          windows.clear();
          standing.loaded = false;
        },
        onError: failed,
      });
      return alive(() => {
        subscription.unsubscribe();
        clear();
      });
    });
    return cell;
  });
}

function startOf({ window }: Metric): string {
  return window.start ?? '';
}

function isWithin({ window }: Metric, { from, to }: SeriesOptions): boolean {
  const start = window.start === null ? -Infinity : Date.parse(window.start);
  const end = window.end === null ? Infinity : Date.parse(window.end);
  return !(from !== undefined && end <= Date.parse(from)) && !(to !== undefined && start >= Date.parse(to));
}

/** Who is in a room. */
export function presenceStore(client: RoomcastClient, room: string): Store<PresenceView> {
  return shared(client, ['presence', room], (alive) => {
    const nobody: PresenceView = { loaded: false, error: undefined, users: [], total: 0 };
    const cell: Cell<PresenceView> = new Cell(nobody, () => {
      const subscription = client.subscribe(room, {
        history: 0,
        onReset: ({ reason }) => reason === 'user' && cell.set(nobody),
        onPresence: ({ users, total }) => cell.set({ loaded: true, error: undefined, users, total }),
        onError: (error) => cell.set({ ...cell.get(), loaded: true, error }),
      });
      return alive(() => subscription.unsubscribe());
    });
    return cell;
  });
}
