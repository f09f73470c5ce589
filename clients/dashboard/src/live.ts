/**
 * The page's link to Roomcast: one client, its rooms folded into stores. Components read the stores; nothing else on
 * the page follows rooms.
 */

import { announces, connectionStore, notifications, preferences, presenceStore, readMetric, RoomcastError, sharedClient, type CloudEvent, type ConnectionState, type Metric, type Notification, type NotificationsStore, type PreferencesStore, type PresenceView, type RoomcastClient, type Store as View, type Transport } from 'roomcast';
import { fold, forget, noEntries, shows, timeOf, type Entries, type Rule } from './entries.js';
import type { Format } from './format.js';
import { liveWorker } from './live-worker.js';
import { readKey, readStatus, type MetricStatus } from './metric.js';
import type { PageConfig } from './page.js';
import { isRefusal } from './reason.js';
import { expand, roomsOf } from './rooms.js';
import { readClaims, readToken } from './session.js';
import { settings } from './settings.js';
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
  readonly groups: ReadonlyMap<string, ReadonlyMap<string, Metric>>;
}

/** A change of the connection, for the connection view. */
export interface Turn {
  readonly at: number;
  readonly status: ConnectionState['status'];
  readonly why: string | undefined;
}

/** Changes of the connection that are remembered. */
const TURNS_MAX = 50;
/** A room whose past did not come for a passing reason is followed anew after this, in milliseconds, unless the server says when. */
const AGAIN_MS = 5_000;
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

/** Everything live on the page, for one reader. */
export class Live {
  readonly client: RoomcastClient;
  readonly connection: View<ConnectionState>;
  readonly metrics = new Store<Metrics>({ values: new Map(), statuses: new Map(), groups: new Map() });
  readonly toasts = new Store<Toasts>(NO_TOASTS);
  readonly rooms = new Store<ReadonlyMap<string, RoomView>>(new Map());
  readonly turns = new Store<readonly Turn[]>([]);
  /** When the last frame with content came, by the server's clock. */
  readonly lastEventAt = new Store<number | undefined>(undefined);
  /** The entry whose sheet is open. */
  readonly opened = new Store<{ readonly list: string; readonly id: string } | undefined>(undefined);
  /** Who is here, as far as the reader may see; undefined where the page has no room for them. */
  readonly people: View<PresenceView> | undefined;
  /** The bell; undefined where the page has none. */
  readonly notices: NotificationsStore | undefined;
  /** How the reader wants to be told, on every device. */
  readonly preferences: PreferencesStore;
  readonly #stops: (() => void)[] = [];
  readonly #config: PageConfig;
  readonly #format: Format;
  readonly #lists = new Map<string, Kept>();
  /** The room each metric came in. */
  readonly #origin = new Map<string, string>();
  /** Rooms that are followed anew in a moment. */
  readonly #again = new Map<string, ReturnType<typeof setTimeout>>();

  /** `holder`: who reads, as `holderOf` says it of the token. */
  constructor(
    config: PageConfig,
    format: Format,
    readonly holder: string,
  ) {
    this.#config = config;
    this.#format = format;
    // All tabs of the browser share one connection, which a worker holds, or one of them. A hidden tab costs nothing, unless it is to be heard.
    this.client = sharedClient({ token: readToken, worker: liveWorker, name: 'roomcast-dashboard/0.1.0', commands: 'roomcast-dashboard', whileHidden: 'hold', onProblem: report });
    this.connection = connectionStore(this.client);
    this.people = config.presence === undefined ? undefined : presenceStore(this.client, config.presence);
    this.notices = config.notifications === undefined ? undefined : notifications(this.client, storage());
    this.preferences = preferences(this.client);
    this.#stops.push(this.preferences.subscribe(() => undefined));
    let before = this.client.connection;
    this.#stops.push(this.client.onConnection((state) => {
      this.#turned(before, state);
      before = state;
    }));
    if (this.notices !== undefined) this.#stops.push(this.notices.onNew((notification) => this.#noticed(notification)));
    const claims = readClaims(readToken());
    for (const list of config.views.flatMap((view) => view.lists)) this.#keep(list, claims);
    for (const [room, history] of roomsOf(config, claims)) this.#follow(room, history);
    this.client.connect();
  }

  /** Ends everything; the page is going away or the reader signs out. */
  close(): void {
    for (const stop of this.#stops) stop();
    for (const timer of this.#again.values()) clearTimeout(timer);
    this.client.close();
  }

  /** Leaves and comes back: everything is asked for again from where it stands. */
  refresh(): void {
    this.client.close();
    this.client.connect();
  }

  /** How events come at the moment; undefined while none do. */
  transport(): string | undefined {
    const { status, transport } = this.client.connection;
    return status === 'live' ? TRANSPORT[transport] : undefined;
  }

  /** Tells which view its reader looks at, where the policy wants to know. */
  visit(place: string): void {
    if (this.client.connection.status === 'live') this.client.activity('page', place);
  }

  /** Rows of a list. */
  entries(list: string): Store<Entries> {
    const kept = this.#lists.get(list);
    if (kept === undefined) throw new Error(`no list ${list}`);
    return kept.store;
  }

  /** Rooms of all lists. */
  roomsOfLists(): string[] {
    return [...new Set([...this.#lists.values()].flatMap(({ rooms }) => [...rooms]))];
  }

  /** Rooms of a list, its claims filled in. */
  roomsOf(list: string): ReadonlySet<string> {
    return this.#lists.get(list)?.rooms ?? new Set();
  }

  /** Puts something on the screen, with its sound, if it is not there yet and the reader wants to be told of it. */
  announce(news: News, sound: 'info' | 'success' | 'alert' | undefined, event: Pick<CloudEvent, 'type' | 'room'>): void {
    const { preferences: wishes } = this.preferences.get();
    if (!announces(wishes, event, this.client.serverNow())) return;
    this.toasts.update((toasts) => add(toasts, news, Date.now(), this.#config.toastMs));
    announce(news, wishes.sounds === false ? undefined : sound, wishes.desktop !== false);
  }

  #keep(list: ListConfig, claims: Record<string, unknown>): void {
    if (this.#lists.has(list.id)) return;
    const rooms = new Set(list.rooms.flatMap((name) => expand(name, claims)));
    const rule: Rule = { list, markOfType: (type) => this.#config.events.get(type)?.mark };
    this.#lists.set(list.id, { rule, rooms, store: new Store(noEntries()) });
  }

  /** Follows a room. `anew`: its rows are from before, and make room for those of its past once that is there. */
  #follow(room: string, history: number, anew = false): void {
    let past: CloudEvent[] | undefined = anew ? [] : undefined;
    let isWhole = false;
    const renew = (): void => {
      const events = past ?? [];
      past = undefined;
      // Where no past comes, old rows are better than none.
      if (events.length === 0) return;
      this.#forgetRows(room);
      for (const event of events) this.#event(room, event, false);
      this.#closeSheet();
    };
    const begin = (): void => {
      clearTimeout(this.#again.get(room));
      // What was told once is not told again to the same subscription.
      this.#follow(room, history, true);
      subscription.unsubscribe();
    };
    const see = (change: (view: RoomView) => RoomView): void =>
      this.rooms.update((rooms) => {
        const before = rooms.get(room) ?? UNSEEN;
        const after = change(before);
        return after === before ? rooms : new Map(rooms).set(room, after);
      });
    const heard = (): void => see((view) => ({ ...view, loaded: true, heard: view.heard + 1, lastAt: this.client.serverNow() }));
    const subscription = this.client.subscribe(room, {
      history,
      // Sounds and the desktop are for those who do not look.
      get whileHidden() {
        return settings.now.sounds || settings.now.desktop ? 'deliver' : 'hold';
      },
      onEvent: (event, delivery) => {
        if (delivery.live) heard();
        else see((view) => ({ ...view, loaded: true, lastAt: Math.max(view.lastAt ?? 0, timeOf(event)) || undefined }));
        if (past !== undefined && delivery.from === 'snapshot') return void past.push(event);
        renew();
        this.#event(room, event, delivery.live);
      },
      onState: ({ key, event, live }) => {
        if (event !== undefined) heard();
        this.#state(room, key, event, live);
      },
      onCaughtUp: () => {
        see((view) => (view.loaded && view.error === undefined ? view : { ...view, loaded: true, error: undefined }));
        renew();
        isWhole = true;
        this.#forgetGone(room, subscription.state);
      },
      onReset: ({ reason }) => {
        if (reason === 'user') this.#lose(room);
        // What happened to its rows meanwhile may be lost.
        if (this.#hasRows(room)) begin();
      },
      onError: (error) => {
        if (isRefusal(error)) {
          past = undefined;
          this.#lose(room);
        }
        see((view) => ({ ...view, loaded: true, error }));
        // Until it has caught up its past may be what does not come, and that is not asked for again by itself.
        if (!error.temporary || isWhole || !this.#hasRows(room)) return;
        clearTimeout(this.#again.get(room));
        this.#again.set(room, setTimeout(begin, error.retryAfterMs ?? AGAIN_MS));
      },
    });
    see((view) => ({ ...view }));
  }

  /** Nothing of a room may be shown any more. */
  #lose(room: string): void {
    this.#forgetRows(room);
    this.#closeSheet();
  }

  #hasRows(room: string): boolean {
    return [...this.#lists.values()].some(({ rooms }) => rooms.has(room));
  }

  #forgetRows(room: string): void {
    for (const { rule, rooms, store } of this.#lists.values()) if (rooms.has(room)) store.update((entries) => forget(entries, rule, room));
  }

  /** Closes the sheet of a row that is gone, so that it does not open by itself when the row is back. */
  #closeSheet(): void {
    this.opened.update((opened) => (opened === undefined || this.#lists.get(opened.list)?.store.now.byId.has(opened.id) === true ? opened : undefined));
  }

  #event(room: string, told: CloudEvent, live: boolean): void {
    // Rows go with their room.
    const event: CloudEvent = told.room === room ? told : { ...told, room };
    let opens: { list: string; id: string } | undefined;
    for (const [list, { rule, rooms, store }] of this.#lists) {
      if (!rooms.has(room) || !shows(rule, event.type)) continue;
      const before = store.now;
      store.update((entries) => fold(entries, rule, event, live));
      const id = rule.list.key === undefined ? `${event.source} ${event.id}` : fillPlain(`{${rule.list.key}}`, event);
      if (store.now !== before && opens === undefined && store.now.byId.has(id)) opens = { list, id };
    }
    if (!live) return;
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
      event,
    );
  }

  #state(room: string, key: string, event: CloudEvent | undefined, live: boolean): void {
    if (key.startsWith('notification/')) {
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
      this.#number(named, metric);
    }
    const status = key.startsWith('status/') ? readStatus(event) : undefined;
    if (status !== undefined) this.metrics.update((metrics) => ({ ...metrics, statuses: new Map(metrics.statuses).set(key.slice(7), status) }));
  }

  #number({ metric: name, group, closed }: { metric: string; group: string | undefined; closed: boolean }, metric: Metric): void {
    if (closed) return;
    this.metrics.update((metrics) => {
      if (group === undefined) return { ...metrics, values: new Map(metrics.values).set(name, metric) };
      const groups = new Map(metrics.groups.get(name)).set(group, metric);
      return { ...metrics, groups: new Map(metrics.groups).set(name, groups) };
    });
  }

  /** A notification that is news; what is urgent is announced. */
  #noticed({ id, title, body, priority, type, room }: Notification): void {
    if (priority !== 'critical' && priority !== 'high') return;
    this.announce({ id: `notice ${id}`, title, line: body ?? '', icon: 'bell', mark: priority, critical: priority === 'critical', opens: undefined }, 'alert', { type, room });
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

  /** After a room has caught up, a number of its that it does not hold any more is gone, and so is a group. */
  #forgetGone(room: string, state: ReadonlyMap<string, CloudEvent>): void {
    const { values, groups } = this.metrics.now;
    const keys = [...values.keys(), ...[...groups].flatMap(([name, found]) => [...found.keys()].map((group) => `${name}/${group}`))];
    for (const key of keys) if (this.#origin.get(readKey(key)?.metric ?? '') === room && !state.has(key)) this.#forget(key);
  }

  #heard(): void {
    this.lastEventAt.update(() => this.client.serverNow());
  }

  #turned(before: ConnectionState, state: ConnectionState): void {
    if (before.status === state.status) return;
    const turn: Turn = { at: Date.now(), status: state.status, why: state.error?.message };
    this.turns.update((turns) => [turn, ...turns].slice(0, TURNS_MAX));
  }
}

/** Where marks wait that could not be sent; nowhere, where storage is blocked. */
function storage(): { storage?: Storage } {
  try {
    return { storage: localStorage };
  } catch {
    return {};
  }
}
