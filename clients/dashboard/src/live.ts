/**
 * The page's link to Roomcast: one client, its rooms folded into stores. Components read the stores; nothing else on
 * the page follows rooms.
 */

import { Client, indexedDbCommands, RoomcastError, type CloudEvent, type ConnectionState, type Delivery, type PresentUser, type Subscription, type Transport } from 'roomcast';
import { fold, noEntries, shows, timeOf, type Entries, type Rule } from './entries.js';
import type { Format } from './format.js';
import { getJson } from './gateway.js';
import { groupNames, readKey, readMetric, readStatus, type Metric, type MetricStatus } from './metric.js';
import { Notices } from './notices/notices-live.js';
import type { PageConfig } from './page.js';
import { expand, roomsOf } from './rooms.js';
import { merge, NO_SERIES, readPoint, type Point, type Series } from './series.js';
import { readClaims, readToken } from './session.js';
import { announce } from './speak.js';
import { Store } from './store.js';
import { fill, fillPlain } from './template.js';
import { add, NO_TOASTS, type News, type Toasts } from './toasts.js';
import type { ListConfig } from './view-config.js';

/** How far a room has come on the screen, and what came. */
export interface RoomView {
  /** The first data is there (or known to be empty). */
  readonly loaded: boolean;
  readonly error: RoomcastError | undefined;
  /** Events and values that came, and when the last did, by the server's clock. */
  readonly heard: number;
  readonly lastAt: number | undefined;
}

/** Numbers by metric; `groups` by metric, then group. */
export interface Metrics {
  readonly values: ReadonlyMap<string, Metric>;
  readonly statuses: ReadonlyMap<string, MetricStatus>;
  readonly groups: ReadonlyMap<string, ReadonlyMap<string, { readonly names: readonly string[]; readonly metric: Metric }>>;
}

/** A change of the connection, for the connection view. */
export interface Turn {
  readonly at: number;
  readonly status: ConnectionState['status'];
  readonly why: string | undefined;
}

/** Changes of the connection that are remembered. */
const TURNS_MAX = 50;
const UNSEEN: RoomView = { loaded: false, error: undefined, heard: 0, lastAt: undefined };

/** The ways events come, as people call them. */
const TRANSPORT: Record<Transport, string> = { websocket: 'WebSocket', sse: 'Event stream', longpoll: 'Long polling', poll: 'Polling' };

/** What the client could not tell anybody else. A store of commands that is blocked is no reason for alarm. */
function report(problem: unknown): void {
  console.warn('roomcast:', problem);
}

/** A list with what it shows. */
interface Kept {
  readonly rule: Rule;
  readonly rooms: ReadonlySet<string>;
  readonly store: Store<Entries>;
}

/** Everything live on the page. */
export class Live {
  readonly client: Client;
  readonly connection: Store<ConnectionState>;
  readonly metrics = new Store<Metrics>({ values: new Map(), statuses: new Map(), groups: new Map() });
  readonly toasts = new Store<Toasts>(NO_TOASTS);
  readonly rooms = new Store<ReadonlyMap<string, RoomView>>(new Map());
  readonly turns = new Store<readonly Turn[]>([]);
  /** When the last frame with content came, by the server's clock. */
  readonly lastEventAt = new Store<number | undefined>(undefined);
  /** The entry whose sheet is open. */
  readonly opened = new Store<{ readonly list: string; readonly id: string } | undefined>(undefined);
  /** Who is here, as far as the reader may see. */
  readonly people = new Store<{ readonly users: readonly PresentUser[]; readonly total: number }>({ users: [], total: 0 });
  readonly notices: Notices;
  readonly #config: PageConfig;
  readonly #format: Format;
  readonly #lists = new Map<string, Kept>();
  readonly #series = new Map<string, Store<Series>>();
  /** The room each metric came in. */
  readonly #origin = new Map<string, string>();

  constructor(config: PageConfig, format: Format) {
    this.#config = config;
    this.#format = format;
    this.client = new Client({ token: readToken, name: 'roomcast-dashboard/0.1.0', commands: indexedDbCommands('roomcast-dashboard'), onProblem: report });
    this.connection = new Store(this.client.connection);
    this.notices = new Notices(config.notifications !== undefined);
    this.client.onConnection((state) => this.#turned(state));
    const claims = readClaims(readToken());
    for (const list of config.views.flatMap((view) => view.lists)) this.#keep(list, claims);
    for (const [room, history] of roomsOf(config, claims)) this.#follow(room, history);
    if (config.presence !== undefined) {
      const none = (): void => this.people.update(() => ({ users: [], total: 0 }));
      this.client.subscribe(config.presence, { history: 0, onPresence: ({ users, total }) => this.people.update(() => ({ users, total })), onError: none });
    }
    // Marked on another device, or on another tab that this one cannot hear.
    this.client.onNotification((push) => push.kind === 'counters' && this.notices.load());
    this.client.connect();
  }

  /** Ends everything; the page is going away or the reader signs out. */
  close(): void {
    this.client.close();
    this.notices.close();
  }

  /** How events come at the moment; undefined while none do. */
  transport(): string | undefined {
    const { status, transport } = this.connection.now;
    return status === 'live' ? TRANSPORT[transport] : undefined;
  }

  /** Tells which view its reader looks at, where the policy wants to know. */
  visit(place: string): void {
    if (this.connection.now.status === 'live') this.client.activity('page', place);
  }

  /** Rows of a list. */
  entries(list: string): Store<Entries> {
    const kept = this.#lists.get(list);
    if (kept === undefined) throw new Error(`no list ${list}`);
    return kept.store;
  }

  /** Rooms of a list, its claims filled in. */
  roomsOf(list: string): ReadonlySet<string> {
    return this.#lists.get(list)?.rooms ?? new Set();
  }

  /** A metric over time; asked for once, when somebody first looks. */
  series(metric: string, room: string): Store<Series> {
    let store = this.#series.get(metric);
    if (store === undefined) {
      store = new Store(NO_SERIES);
      this.#series.set(metric, store);
      void this.loadSeries(metric, room);
    }
    return store;
  }

  /** Loads a metric's past. What came live meanwhile stays where it is newer, so there is neither hole nor double. */
  async loadSeries(metric: string, room: string): Promise<void> {
    const store = this.#series.get(metric);
    if (store === undefined) return;
    try {
      const body = await getJson(`/v1/metrics/${encodeURIComponent(metric)}?room=${encodeURIComponent(room)}`);
      const windows = Array.isArray(body['windows']) ? body['windows'] : [];
      const points = windows.map((data) => readPoint({ type: 'metric.updated', data } as CloudEvent)).filter((point): point is Point => point !== undefined);
      store.update((series) => ({ state: 'ready', why: undefined, points: merge(points, series.points) }));
    } catch (thrown) {
      const why = thrown instanceof RoomcastError ? thrown.message : String(thrown);
      store.update((series) => ({ ...series, state: 'failed', why }));
    }
  }

  /** Puts something on the screen, with its sound, if it is not there yet. */
  announce(news: News, sound: 'info' | 'success' | 'alert' | undefined): void {
    this.toasts.update((toasts) => add(toasts, news, Date.now(), this.#config.toastMs));
    announce(news, sound);
  }

  #keep(list: ListConfig, claims: Record<string, unknown>): void {
    if (this.#lists.has(list.id)) return;
    const rooms = new Set(list.rooms.flatMap((name) => expand(name, claims)));
    const rule: Rule = { list, markOfType: (type) => this.#config.events.get(type)?.mark };
    this.#lists.set(list.id, { rule, rooms, store: new Store(noEntries()) });
  }

  #follow(room: string, history: number): void {
    const see = (change: (view: RoomView) => RoomView): void =>
      this.rooms.update((rooms) => {
        const before = rooms.get(room) ?? UNSEEN;
        const after = change(before);
        return after === before ? rooms : new Map(rooms).set(room, after);
      });
    const heard = (): void => see((view) => ({ ...view, loaded: true, heard: view.heard + 1, lastAt: this.client.serverNow() }));
    const subscription: Subscription = this.client.subscribe(room, {
      history,
      onEvent: (event, delivery) => {
        if (delivery.live) heard();
        else see((view) => ({ ...view, loaded: true, lastAt: Math.max(view.lastAt ?? 0, timeOf(event)) || undefined }));
        this.#event(room, event, delivery);
      },
      onState: ({ key, event, live }) => {
        if (event !== undefined) heard();
        this.#state(room, key, event, live);
      },
      onCaughtUp: () => {
        see((view) => (view.loaded && view.error === undefined ? view : { ...view, loaded: true, error: undefined }));
        if (room === this.#config.notifications) this.notices.load();
        this.#forgetGone(room, subscription.state);
      },
      onError: (error) => see((view) => ({ ...view, loaded: true, error })),
    });
    see((view) => ({ ...view }));
  }

  #event(room: string, event: CloudEvent, delivery: Delivery): void {
    let opens: { list: string; id: string } | undefined;
    for (const [list, { rule, rooms, store }] of this.#lists) {
      if (!rooms.has(room) || !shows(rule, event.type)) continue;
      const before = store.now;
      store.update((entries) => fold(entries, rule, event, delivery.live));
      const id = rule.list.key === undefined ? `${event.source} ${event.id}` : fillPlain(`{${rule.list.key}}`, event);
      if (store.now !== before && opens === undefined && store.now.byId.has(id)) opens = { list, id };
    }
    if (!delivery.live) return;
    this.#heard();
    const shown = this.#config.events.get(event.type);
    if (shown?.toast !== true) return;
    const entry = opens === undefined ? undefined : this.#lists.get(opens.list)?.store.now.byId.get(opens.id);
    // What the entry knows from before fills what this event leaves out.
    const source = entry === undefined ? event : { ...event, data: entry.data };
    this.announce(
      {
        id: `${event.source} ${event.id}`,
        title: fill(shown.title, source, this.#format),
        line: fill(shown.line, source, this.#format),
        icon: fillPlain(shown.icon ?? '', source),
        mark: fillPlain(shown.mark, event),
        critical: event.priority === 'critical',
        opens,
      },
      shown.sound,
    );
  }

  #state(room: string, key: string, event: CloudEvent | undefined, live: boolean): void {
    if (key.startsWith('notification/')) {
      const news = this.notices.changed(key, event, live);
      if (news !== undefined) this.announce(news, 'alert');
      if (event !== undefined && live) this.#heard();
      return;
    }
    // While the room starts over its values are gone for a moment; the old numbers stay on the screen until it has caught up.
    if (event === undefined) return this.#forget(key);
    this.#heard();
    const named = readKey(key);
    const metric = named === undefined ? undefined : readMetric(event);
    if (named !== undefined && metric !== undefined) {
      this.#origin.set(named.metric, room);
      this.#number(named, metric, event);
    }
    const status = key.startsWith('status/') ? readStatus(event) : undefined;
    if (status !== undefined) this.metrics.update((metrics) => ({ ...metrics, statuses: new Map(metrics.statuses).set(key.slice(7), status) }));
  }

  #number(named: { metric: string; group: string | undefined; closed: boolean }, metric: Metric, event: CloudEvent): void {
    const { metric: name, group, closed } = named;
    const store = group === undefined ? this.#series.get(name) : undefined;
    const point = store === undefined ? undefined : readPoint(event);
    if (store !== undefined && point !== undefined) {
      store.update((series) => ({ ...series, points: merge(series.points, [point]) }));
    }
    if (closed) return;
    this.metrics.update((metrics) => {
      if (group === undefined) return { ...metrics, values: new Map(metrics.values).set(name, metric) };
      const groups = new Map(metrics.groups.get(name)).set(group, { names: groupNames(event), metric });
      return { ...metrics, groups: new Map(metrics.groups).set(name, groups) };
    });
  }

  #forget(key: string): void {
    const named = readKey(key);
    if (named === undefined || named.closed) return;
    this.metrics.update((metrics) => {
      if (named.group !== undefined) {
        const groups = new Map(metrics.groups.get(named.metric));
        return groups.delete(named.group) ? { ...metrics, groups: new Map(metrics.groups).set(named.metric, groups) } : metrics;
      }
      const values = new Map(metrics.values);
      return values.delete(named.metric) ? { ...metrics, values } : metrics;
    });
  }

  /** After a room has caught up, a number of its that it does not hold any more is gone. */
  #forgetGone(room: string, state: ReadonlyMap<string, CloudEvent>): void {
    for (const name of this.metrics.now.values.keys()) if (this.#origin.get(name) === room && !state.has(name)) this.#forget(name);
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
    // What failed while the line was down is asked for again.
    if (state.status === 'live') for (const [metric, store] of this.#series) if (store.now.state === 'failed') void this.loadSeries(metric, this.#roomOf(metric));
  }

  #roomOf(metric: string): string {
    const charts = this.#config.views.flatMap((view) => view.charts);
    return charts.find((chart) => chart.metric === metric)?.room ?? this.#config.metrics;
  }
}
