/**
 * React hooks. Each reads a store of the client: it renders when what it answers is another value, and not otherwise;
 * several components that ask for the same share one subscription, and StrictMode's second mount finds the first one's.
 */

import { createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore, type ReactNode } from 'react';
import {
  Client,
  connectionStore,
  eventsStore,
  metricStore,
  notifications,
  presenceStore,
  roomStore,
  seriesStore,
  RoomcastError,
  type ClientOptions,
  type CommandOptions,
  type ConnectionState,
  type Delivery,
  type EventMap,
  type EventOf,
  type EventsOptions,
  type EventsView,
  type Metric,
  type MetricGroup,
  type Notification,
  type NotificationsStore,
  type NotificationsView,
  type PresenceView,
  type RoomcastClient,
  type RoomView,
  type SeriesOptions,
  type SeriesView,
  type Store,
} from '../index.js';

const Context = createContext<RoomcastClient | undefined>(undefined);

/** What {@link RoomcastProvider} takes: a client of yours, or the options for one of its own. */
export type ProviderProps = { readonly children?: ReactNode } & (
  | { /** Connected and closed by you. */ readonly client: RoomcastClient; readonly options?: undefined }
  | { readonly client?: undefined; /** Read once. The client connects with the first mount and is closed with the last unmount. */ readonly options: ClientOptions }
);

/** Gives a client to all hooks below. One for the whole application. */
export function RoomcastProvider({ client, options, children }: ProviderProps): ReactNode {
  const [own] = useState(() => (client === undefined ? new Client(options) : undefined));
  useEffect(() => {
    if (own === undefined) return undefined;
    // StrictMode takes it down and puts it up again at once: the connection stays.
    const closing = closings.get(own);
    if (closing !== undefined) clearTimeout(closing);
    own.connect();
    return () => void closings.set(own, setTimeout(() => own.close(), 0));
  }, [own]);
  return createElement(Context.Provider, { value: client ?? own }, children);
}

const closings = new WeakMap<Client, ReturnType<typeof setTimeout>>();

/** The client itself. */
export function useRoomcast<M extends EventMap = EventMap>(): RoomcastClient<M> {
  const client = useContext(Context);
  if (client === undefined) throw new Error('useRoomcast and its kind work below a RoomcastProvider');
  return client as RoomcastClient<M>;
}

/** The value of a store; with a selector a part of it, and a render only when that part is another one. */
export function useStore<T>(store: Store<T>): T;
export function useStore<T, U>(store: Store<T>, selector: (value: T) => U, equal?: (a: U, b: U) => boolean): U;
export function useStore<T, U>(store: Store<T>, selector?: (value: T) => U, equal?: (a: U, b: U) => boolean): T | U {
  // The same value again while neither the store's nor the selector is another: React compares by identity.
  const last = useRef<{ from: T; by: typeof selector; value: T | U } | undefined>(undefined);
  const get = (): T | U => {
    const from = store.get();
    const before = last.current;
    if (before !== undefined && Object.is(before.from, from) && before.by === selector) return before.value;
    const next = selector === undefined ? from : selector(from);
    const value = before !== undefined && (equal ?? Object.is)(before.value as U, next as U) ? before.value : next;
    last.current = { from, by: selector, value };
    return value;
  };
  return useSyncExternalStore(store.subscribe, get, get);
}

/** Where the connection stands; with a selector a part of that. */
export function useConnection(): ConnectionState;
export function useConnection<U>(selector: (state: ConnectionState) => U): U;
export function useConnection<U>(selector?: (state: ConnectionState) => U): ConnectionState | U {
  return useStore(connectionStore(useRoomcast()), selector as (state: ConnectionState) => U);
}

/** The latest values of a room; with a selector a part of them. */
export function useRoom(room: string): RoomView;
export function useRoom<U>(room: string, selector: (view: RoomView) => U, equal?: (a: U, b: U) => boolean): U;
export function useRoom<U>(room: string, selector?: (view: RoomView) => U, equal?: (a: U, b: U) => boolean): RoomView | U {
  const client = useRoomcast();
  const store = useMemo(() => roomStore(client, room), [client, room]);
  return useStore(store, selector as (view: RoomView) => U, equal);
}

/** Which events, and what happens with each. */
export interface UseEventsOptions<M extends EventMap> extends EventsOptions<keyof M & string> {
  /** Called with each event once as it comes; for announcements, when `live`. May be another function with every render. */
  onEvent?: (event: EventOf<M>, delivery: Delivery) => void;
}

/** The events of a room, newest first. */
export function useEvents<M extends EventMap = EventMap>(room: string, options: UseEventsOptions<M> = {}): EventsView<M> {
  const client = useRoomcast();
  const { types, limit, history, onEvent } = options;
  const key = JSON.stringify([types, limit, history]);
  const store = useMemo(() => {
    const given = Object.fromEntries(Object.entries({ types, limit, history }).filter(([, value]) => value !== undefined));
    return eventsStore<M>(client, room, given as EventsOptions<keyof M & string>);
    // The options count by value.
  }, [client, room, key]);
  const listener = useRef(onEvent);
  useEffect(() => {
    listener.current = onEvent;
  });
  const listens = onEvent !== undefined;
  useEffect(() => (listens ? store.onEvent((event, delivery) => listener.current?.(event, delivery)) : undefined), [store, listens]);
  return useStore(store);
}

/** The current window of a metric; undefined until it is known. */
export function useMetric(room: string, metric: string, group: MetricGroup = []): Metric | undefined {
  const client = useRoomcast();
  const key = JSON.stringify(group);
  return useStore(useMemo(() => metricStore(client, room, metric, group), [client, room, metric, key]));
}

/** The windows of a metric, oldest first: its past, then live. */
export function useSeries(room: string, metric: string, options: SeriesOptions = {}): SeriesView {
  const client = useRoomcast();
  const key = JSON.stringify(options);
  return useStore(useMemo(() => seriesStore(client, room, metric, options), [client, room, metric, key]));
}

/** What {@link useNotifications} answers: the view, and what can be done. */
export type UseNotifications = NotificationsView & Pick<NotificationsStore, 'mark' | 'markAll'>;

/** The bell. `onNew` is called once with each notification that is news. */
export function useNotifications(onNew?: (notification: Notification) => void): UseNotifications {
  const store = notifications(useRoomcast());
  const listener = useRef(onNew);
  useEffect(() => {
    listener.current = onNew;
  });
  const listens = onNew !== undefined;
  useEffect(() => (listens ? store.onNew((notification) => listener.current?.(notification)) : undefined), [store, listens]);
  const view = useStore(store);
  return useMemo(() => ({ ...view, mark: store.mark.bind(store), markAll: store.markAll.bind(store) }), [view, store]);
}

/** Who is in a room. */
export function usePresence(room: string): PresenceView {
  const client = useRoomcast();
  return useStore(useMemo(() => presenceStore(client, room), [client, room]));
}

/** Where a command stands. */
export type CommandState<R> =
  | { readonly status: 'idle'; readonly result: undefined; readonly error: undefined }
  | { readonly status: 'pending'; readonly result: undefined; readonly error: undefined }
  | { readonly status: 'done'; readonly result: R; readonly error: undefined }
  | { readonly status: 'failed'; readonly result: undefined; readonly error: RoomcastError };

/** Sends a command; answers its result, or throws `RoomcastError`. */
export type RunCommand<D, R> = (data: D, options?: CommandOptions) => Promise<R>;

const IDLE = { status: 'idle', result: undefined, error: undefined } as const;

/** A button's command: `[run, state]`. The state is that of the latest run. */
export function useCommand<D = unknown, R = unknown>(name: string): [RunCommand<D, R>, CommandState<R>] {
  const client = useRoomcast();
  const [state, setState] = useState<CommandState<R>>(IDLE);
  const latest = useRef(0);
  const run = useCallback<RunCommand<D, R>>(
    async (data, options) => {
      const turn = (latest.current += 1);
      const show = (next: CommandState<R>): void => {
        if (turn === latest.current) setState(next);
      };
      show({ status: 'pending', result: undefined, error: undefined });
      try {
        const result = await client.command<R>(name, data, options);
        show({ status: 'done', result, error: undefined });
        return result;
      } catch (thrown) {
        const error = thrown instanceof RoomcastError ? thrown : new RoomcastError('unknown', String(thrown));
        show({ status: 'failed', result: undefined, error });
        throw error;
      }
    },
    [client, name],
  );
  return [run, state];
}

/** Says what the user is doing: once now, and again whenever it is something else or the connection is a new one. */
export function useActivity(kind: string, detail = ''): void {
  const client = useRoomcast();
  const since = useConnection((state) => (state.status === 'live' ? state.since : undefined));
  useEffect(() => {
    if (since !== undefined) client.activity(kind, detail);
  }, [client, kind, detail, since]);
}
