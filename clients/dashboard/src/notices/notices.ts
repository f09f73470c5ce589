/** Notifications of the bell: what there is, grouped and filtered. Pure; `notices-live.ts` keeps it true. */

import type { CloudEvent } from 'roomcast';

/** How urgent something is. */
export type Priority = 'critical' | 'high' | 'medium' | 'low';
/** How far its reader is with it; each implies those before. */
export type Level = 'new' | 'seen' | 'read' | 'archived';

/** One notification. */
export interface Notice {
  readonly id: string;
  /** Its state key: what a newer one of the same matter replaces. */
  readonly key: string;
  readonly title: string;
  readonly body: string;
  /** Where it leads: a path of this page or a web address. */
  readonly link: string | undefined;
  readonly category: string;
  /** What it belongs to within its category. */
  readonly group: string;
  readonly priority: Priority;
  readonly at: number;
  readonly level: Level;
}

/** Those of one category and group, most urgent and newest first. */
export interface Group {
  readonly name: string;
  readonly notices: readonly Notice[];
  readonly unread: number;
}

/** What is shown. */
export interface Filter {
  readonly category: string | undefined;
  readonly unread: boolean;
  readonly archived: boolean;
}

/** Everything that is not archived. */
export const ALL: Filter = { category: undefined, unread: false, archived: false };
/** Notifications kept; the gateway gives no more. */
export const NOTICES_MAX = 200;

const PRIORITIES: readonly Priority[] = ['critical', 'high', 'medium', 'low'];
const LEVELS: readonly Level[] = ['new', 'seen', 'read', 'archived'];

/** Reads a notification; undefined when it is none. `level` is what its reader did with it so far. */
export function readNotice(event: CloudEvent, level: Level): Notice | undefined {
  const { data } = event;
  if (!event.type.startsWith('notification.') || typeof data !== 'object' || data === null) return undefined;
  const said = data as Record<string, unknown>;
  if (typeof said['title'] !== 'string' || said['title'] === '') return undefined;
  const text = (name: string): string => (typeof said[name] === 'string' ? (said[name] as string) : '');
  const time = event.time === undefined ? Number.NaN : Date.parse(event.time);
  return {
    id: event.id,
    key: event.statekey ?? event.id,
    title: said['title'],
    body: text('body'),
    link: safeLink(text('link')),
    category: text('category') || event.type.slice('notification.'.length),
    group: text('group'),
    priority: PRIORITIES.find((priority) => priority === event.priority) ?? 'medium',
    at: Number.isNaN(time) ? 0 : time,
    level,
  };
}

/** Whether it waits for its reader. */
export function isUnread(notice: Notice): boolean {
  return notice.level === 'new' || notice.level === 'seen';
}

/** Puts one in: it takes the place of the older of its key. */
export function put(notices: readonly Notice[], notice: Notice): readonly Notice[] {
  const others = notices.filter(({ key, id }) => key !== notice.key && id !== notice.id);
  return [notice, ...others].sort((a, b) => b.at - a.at).slice(0, NOTICES_MAX);
}

/** Marks some; a mark only grows. */
export function mark(notices: readonly Notice[], ids: ReadonlySet<string>, level: Level): readonly Notice[] {
  const grows = (notice: Notice): boolean => ids.has(notice.id) && LEVELS.indexOf(level) > LEVELS.indexOf(notice.level);
  return notices.some(grows) ? notices.map((notice) => (grows(notice) ? { ...notice, level } : notice)) : notices;
}

/** How many wait, and how urgent the most urgent is. */
export function count(notices: readonly Notice[]): { unread: number; worst: Priority | undefined } {
  const waiting = notices.filter(isUnread);
  return { unread: waiting.length, worst: PRIORITIES.find((priority) => waiting.some((notice) => notice.priority === priority)) };
}

/** The categories there are, by name. */
export function categories(notices: readonly Notice[]): string[] {
  return [...new Set(notices.map(({ category }) => category))].sort();
}

/** What a filter lets through, grouped; groups in the order of their most urgent, then newest. */
export function groups(notices: readonly Notice[], filter: Filter): Group[] {
  const shown = notices.filter(
    (notice) => (notice.level === 'archived') === filter.archived && (!filter.unread || isUnread(notice)) && (filter.category === undefined || notice.category === filter.category),
  );
  const byName = new Map<string, Notice[]>();
  for (const notice of [...shown].sort(urgentFirst)) {
    const name = notice.category;
    const list = byName.get(name);
    if (list === undefined) byName.set(name, [notice]);
    else list.push(notice);
  }
  return [...byName].map(([name, list]) => ({ name, notices: list, unread: list.filter(isUnread).length }));
}

function urgentFirst(a: Notice, b: Notice): number {
  const waits = Number(isUnread(b)) - Number(isUnread(a));
  const urgent = PRIORITIES.indexOf(a.priority) - PRIORITIES.indexOf(b.priority);
  // What was read is no longer urgent.
  return waits !== 0 ? waits : isUnread(a) && urgent !== 0 ? urgent : b.at - a.at;
}

/** Only addresses of the web and of this page: nothing that runs. */
function safeLink(link: string): string | undefined {
  return /^(https?:\/\/|\/(?!\/)|#)/.test(link) ? link : undefined;
}
