/**
 * The bell: notifications that hold, how far the user is with each, and how many are unread. Marks count here at once
 * and reach the server when they can; the server's word is the last one. The same on every tab and device.
 */

import type { NotificationPush, RoomcastClient } from './api.js';
import { retryDelayMs } from './backoff.js';
import { RoomcastError } from './error.js';
import type { CloudEvent } from './event.js';
import { isEvent, isObject, list, readCounters, text, type Json, type NotificationCounters } from './frame.js';
import { expiryOf } from './state.js';
import { Cell, type Store } from './store.js';

/** How far a user is with a notification; each implies the one before. */
export type Mark = 'seen' | 'read' | 'archived';

/** One notification. */
export interface Notification {
  /** Names it in marks. */
  readonly id: string;
  readonly room: string;
  readonly type: string;
  readonly priority: 'critical' | 'high' | 'medium' | 'low';
  readonly title: string;
  readonly body: string | undefined;
  readonly link: string | undefined;
  readonly category: string | undefined;
  readonly group: string | undefined;
  readonly sound: string | undefined;
  /** Milliseconds since the Unix epoch. */
  readonly time: number;
  readonly mark: Mark | undefined;
  readonly event: CloudEvent;
}

/** What a bell shows. */
export interface NotificationsView {
  readonly loaded: boolean;
  readonly error: RoomcastError | undefined;
  /** What holds and is not archived, newest first. */
  readonly items: readonly Notification[];
  /** What holds and was archived, newest first. */
  readonly archived: readonly Notification[];
  /** Not read, with what this page has marked and the server does not know yet. */
  readonly counters: NotificationCounters;
  /** Marks on their way. */
  readonly pending: number;
}

/** Notifications and what can be done with them. */
export interface NotificationsStore extends Store<NotificationsView> {
  /** Marks notifications, at once; offline it reaches the server on return. */
  mark(ids: readonly string[], as: Mark): void;
  /** Marks all that are shown. */
  markAll(as: Mark): void;
  /** Tells each notification once that is news: never what was there before the page had caught up. Returns how to stop. */
  onNew(listener: (notification: Notification) => void): () => void;
}

/** Where marks on their way survive a reload: `localStorage` fits. */
export type MarkStorage = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;

/** How the bell is made. */
export interface NotificationsOptions {
  /** Keeps marks that did not reach the server over a reload. Default: memory. A storage that is blocked is like none. */
  storage?: MarkStorage;
}

/** The server keeps so many, and the newest count. */
export const NOTIFICATIONS_MAX = 200;
/** Pause before the feed is read again after the server said other counters, in milliseconds: several marks come together. */
const REREAD_MS = 250;
/** Ids remembered as announced. */
const ANNOUNCED_MAX = 4_096;
const RANK: Readonly<Record<string, number>> = { seen: 1, read: 2, archived: 3 };
const PRIORITIES = ['critical', 'high', 'medium', 'low'] as const;

const made = new WeakMap<object, NotificationsStore>();

/** The notifications of whoever is signed in; the same store for all who ask, made with the first one's options. */
export function notifications(client: RoomcastClient, options: NotificationsOptions = {}): NotificationsStore {
  let store = made.get(client);
  if (store === undefined) made.set(client, (store = new Bell(client, options)));
  return store;
}

interface Held {
  readonly event: CloudEvent;
  readonly room: string;
}

class Bell implements NotificationsStore {
  readonly get: () => NotificationsView;
  readonly subscribe: (listener: () => void) => () => void;
  readonly #client: RoomcastClient;
  readonly #storage: MarkStorage | undefined;
  readonly #cell: Cell<NotificationsView>;
  readonly #held = new Map<string, Held>();
  /** What the server knows. */
  readonly #marks = new Map<string, Mark>();
  /** What it does not know yet. */
  readonly #pending = new Map<string, Mark>();
  readonly #announced = new Set<string>();
  readonly #news = new Set<(notification: Notification) => void>();
  #said: NotificationCounters | undefined;
  #user: string | undefined;
  #loaded = false;
  #error: RoomcastError | undefined;
  #reading = false;
  #sending = false;
  #attempt = 0;
  #reread: ReturnType<typeof setTimeout> | undefined;
  #resend: ReturnType<typeof setTimeout> | undefined;

  constructor(client: RoomcastClient, options: NotificationsOptions) {
    this.#client = client;
    this.#storage = options.storage;
    this.#cell = new Cell<NotificationsView>({ loaded: false, error: undefined, items: [], archived: [], counters: readCounters({}), pending: 0 }, () => this.#start());
    this.get = this.#cell.get;
    this.subscribe = this.#cell.subscribe;
  }

  mark(ids: readonly string[], as: Mark): void {
    for (const id of ids) if (rank(as) > rank(this.#markOf(id))) this.#pending.set(id, as);
    this.#keep();
    this.#changed();
    void this.#send();
  }

  markAll(as: Mark): void {
    this.mark(this.get().items.map(({ id }) => id), as);
  }

  onNew(listener: (notification: Notification) => void): () => void {
    const own: typeof listener = (notification) => listener(notification);
    this.#news.add(own);
    const unwatch = this.subscribe(() => undefined);
    return () => {
      this.#news.delete(own);
      unwatch();
    };
  }

  #start(): () => void {
    // What ended while nobody listened was not heard of; what holds is said again.
    this.#held.clear();
    const unlisten = this.#client.onNotification((push) => this.#pushed(push));
    this.#changed();
    const live = (): void => {
      const { status, session } = this.#client.connection;
      if (status !== 'live') return;
      this.#signedIn(session?.user);
      void this.#read();
      void this.#send();
    };
    let before = '';
    const off = this.#client.onConnection(({ status, since }) => {
      // Each connection once; other changes of it say nothing about notifications.
      const now = status === 'live' ? `live ${since}` : status;
      if (now !== before && status === 'live') live();
      before = now;
    });
    live();
    return () => {
      unlisten();
      off();
      clearTimeout(this.#reread);
      clearTimeout(this.#resend);
      this.#reread = this.#resend = undefined;
    };
  }

  /** Somebody else's notifications are not shown on, and their marks are not sent in another name. */
  #signedIn(user: string | undefined): void {
    if (user === this.#user) return;
    if (this.#user !== undefined) {
      this.#held.clear();
      this.#marks.clear();
      this.#pending.clear();
      this.#said = undefined;
      this.#loaded = false;
    }
    this.#user = user;
    for (const [id, as] of this.#kept()) if (rank(as) > rank(this.#pending.get(id))) this.#pending.set(id, as);
  }

  #pushed(push: NotificationPush): void {
    if (push.kind === 'counters') return this.#counted(push.counters);
    if (push.kind !== 'value') return;
    const name = `${push.room}\n${push.key}`;
    if (push.event === undefined) {
      if (this.#held.delete(name)) this.#changed();
      return;
    }
    this.#held.set(name, { event: push.event, room: push.room });
    this.#changed();
    const isNew = !this.#announced.has(push.event.id);
    this.#remember(push.event.id);
    if (!push.live || !isNew || this.#markOf(push.event.id) !== undefined) return;
    const notification = read(push.event, push.room, undefined);
    for (const listener of [...this.#news]) {
      try {
        listener(notification);
      } catch (error) {
        this.#client.counters.listenerErrors += 1;
        this.#client.report(error);
      }
    }
  }

  /**
   * The server's counters are absolute, and what is pushed counts whatever its version: another gateway may have heard less, and says more
   * when it has. Where they are others than ours, somebody marked elsewhere.
   */
  #counted(counters: NotificationCounters): void {
    this.#said = counters;
    this.#changed();
    this.#reread ??= setTimeout(() => {
      this.#reread = undefined;
      if (this.#said?.unread !== this.#count(this.#items()).unread) void this.#read();
    }, REREAD_MS);
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    try {
      this.#page(await this.#client.request('feed', { limit: NOTIFICATIONS_MAX, filter: { archived: true } }));
      this.#error = undefined;
    } catch (error) {
      this.#error = error as RoomcastError;
      const { temporary, retryAfterMs } = this.#error;
      // Without a connection the next one asks again.
      if (temporary && this.#client.connection.status === 'live') {
        this.#reread ??= setTimeout(() => {
          this.#reread = undefined;
          void this.#read();
        }, retryDelayMs(2, Math.random(), retryAfterMs));
      }
    }
    this.#reading = false;
    this.#loaded = true;
    this.#changed();
  }

  #page(body: Json): void {
    for (const item of list(body['notifications'])) {
      const event = isObject(item) ? item['event'] : undefined;
      if (!isEvent(event) || event.statekey === undefined) continue;
      const name = `${event.room ?? ''}\n${event.statekey}`;
      // What came over the connection meanwhile is newer.
      if (!this.#held.has(name)) this.#held.set(name, { event, room: event.room ?? '' });
      this.#remember(event.id);
    }
    for (const item of list(body['marks'])) {
      if (!isObject(item) || typeof item['id'] !== 'string') continue;
      const as = item['as'];
      if (as === 'seen' || as === 'read' || as === 'archived') this.#learn(item['id'], as);
    }
    this.#counters(body);
  }

  /** Marks only grow, whoever made them. */
  #learn(id: string, as: Mark): void {
    if (rank(as) > rank(this.#marks.get(id))) this.#marks.set(id, as);
    if (rank(this.#pending.get(id)) <= rank(as)) this.#pending.delete(id);
  }

  #counters(body: Json): void {
    if (!isObject(body['counters'])) return;
    const counters = readCounters(body['counters']);
    if (this.#said === undefined || counters.version >= this.#said.version) this.#said = counters;
  }

  async #send(): Promise<void> {
    if (this.#sending || this.#pending.size === 0 || this.#client.connection.status !== 'live') return;
    this.#sending = true;
    let refused: string[] | undefined;
    clearTimeout(this.#resend);
    this.#resend = undefined;
    const [, as] = this.#pending.entries().next().value as [string, Mark];
    const ids = [...this.#pending].filter(([, other]) => other === as).map(([id]) => id).slice(0, NOTIFICATIONS_MAX);
    try {
      const body = await this.#client.request('mark', { ids, as });
      for (const id of ids) this.#learn(id, as);
      this.#counters(body);
      this.#attempt = 0;
    } catch (thrown) {
      const error = thrown as RoomcastError;
      if (error.temporary) {
        // On return it is sent again; with a connection, after a while.
        this.#resend = setTimeout(() => void this.#send(), retryDelayMs(this.#attempt, Math.random(), error.retryAfterMs));
        this.#attempt += 1;
        this.#sending = false;
        return;
      }
      for (const id of ids) if (this.#pending.get(id) === as) this.#pending.delete(id);
      refused = ids;
      this.#client.report(error);
    }
    this.#sending = false;
    this.#keep(refused);
    this.#changed();
    void this.#send();
  }

  #markOf(id: string): Mark | undefined {
    const known = this.#marks.get(id);
    const pending = this.#pending.get(id);
    return rank(pending) > rank(known) ? pending : known;
  }

  #items(): Notification[] {
    const now = this.#client.serverNow();
    const items: Notification[] = [];
    for (const { event, room } of this.#held.values()) {
      const expiry = expiryOf(event);
      if (expiry === undefined || expiry > now) items.push(read(event, room, this.#markOf(event.id)));
    }
    return items.sort((a, b) => b.time - a.time).slice(0, NOTIFICATIONS_MAX);
  }

  #count(items: readonly Notification[]): NotificationCounters {
    const unread = items.filter(({ mark }) => rank(mark) < 2);
    const of = (priority: string): number => unread.filter((item) => item.priority === priority).length;
    return { version: this.#said?.version ?? 0, unread: unread.length, critical: of('critical'), high: of('high'), medium: of('medium'), low: of('low') };
  }

  #changed(): void {
    this.#cell.change(() => {
      const items = this.#items();
      return { loaded: this.#loaded, error: this.#error, items: items.filter(({ mark }) => mark !== 'archived'), archived: items.filter(({ mark }) => mark === 'archived'), counters: this.#count(items), pending: this.#pending.size };
    });
  }

  #remember(id: string): void {
    this.#announced.add(id);
    if (this.#announced.size <= ANNOUNCED_MAX) return;
    const oldest = this.#announced.values().next();
    if (!oldest.done) this.#announced.delete(oldest.value);
  }

  /** Keeps what the server does not know, beside what other tabs have kept; `refused`: it never will. */
  #keep(refused: readonly string[] = []): void {
    if (this.#storage === undefined || this.#user === undefined) return;
    const others = this.#kept().filter(([id]) => !refused.includes(id));
    const kept = new Map<string, Mark>();
    for (const [id, as] of [...others, ...this.#pending]) if (rank(as) > Math.max(rank(kept.get(id)), rank(this.#marks.get(id)))) kept.set(id, as);
    try {
      if (kept.size === 0) this.#storage.removeItem(storageKey(this.#user));
      else this.#storage.setItem(storageKey(this.#user), JSON.stringify([...kept]));
    } catch {
      // Blocked or full: the marks live as long as the page.
    }
  }

  #kept(): [string, Mark][] {
    if (this.#storage === undefined || this.#user === undefined) return [];
    try {
      const kept: unknown = JSON.parse(this.#storage.getItem(storageKey(this.#user)) ?? '[]');
      if (!Array.isArray(kept)) return [];
      return kept.filter((entry): entry is [string, Mark] => Array.isArray(entry) && typeof entry[0] === 'string' && Object.hasOwn(RANK, entry[1]));
    } catch {
      return [];
    }
  }
}

/** Several notifications of one kind. */
export interface NotificationGroup {
  readonly name: string;
  readonly items: readonly Notification[];
  readonly unread: number;
  /** The highest of its unread ones, or of all. */
  readonly priority: Notification['priority'];
}

/** Groups, the most urgent first, then the newest; by the notification's own `group`, else its type. */
export function groupNotifications(items: readonly Notification[], by: (item: Notification) => string = (item) => item.group ?? item.type): NotificationGroup[] {
  const groups = new Map<string, Notification[]>();
  for (const item of items) {
    const name = by(item);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [item]);
    else group.push(item);
  }
  const all = [...groups].map(([name, members]): NotificationGroup => {
    const unread = members.filter(({ mark }) => rank(mark) < 2);
    const looked = unread.length > 0 ? unread : members;
    const priority = PRIORITIES.find((one) => looked.some((member) => member.priority === one)) ?? 'medium';
    return { name, items: members, unread: unread.length, priority };
  });
  const urgency = (group: NotificationGroup): number => (group.unread > 0 ? PRIORITIES.indexOf(group.priority) : PRIORITIES.length);
  return all.sort((a, b) => urgency(a) - urgency(b) || (b.items[0]?.time ?? 0) - (a.items[0]?.time ?? 0));
}

function read(event: CloudEvent, room: string, mark: Mark | undefined): Notification {
  const data = isObject(event.data) ? event.data : {};
  const time = event.time === undefined ? Number.NaN : Date.parse(event.time);
  const priority = PRIORITIES.find((one) => one === event.priority) ?? 'medium';
  return {
    id: event.id,
    room,
    type: event.type,
    priority,
    title: text(data['title']) ?? event.type,
    body: text(data['body']),
    link: text(data['link']),
    category: text(data['category']),
    group: text(data['group']),
    sound: text(data['sound']),
    time: Number.isNaN(time) ? 0 : time,
    mark,
    event,
  };
}

function rank(mark: Mark | undefined): number {
  return mark === undefined ? 0 : (RANK[mark] ?? 0);
}

function storageKey(user: string): string {
  return `roomcast.marks.${user}`;
}
