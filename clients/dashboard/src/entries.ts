/** A list as a fold over events: things that change in place, or events one after the other. Pure. */

import type { CloudEvent } from 'roomcast';
import { at, fillPlain, plain } from './template.js';
import type { ListConfig } from './view-config.js';

/** One row. */
export interface Entry {
  readonly id: string;
  /** The name of its mark. */
  readonly mark: string;
  /** The newest event's type and room, for templates. */
  readonly type: string;
  readonly room: string;
  /** What its events have said together; the newest word counts. */
  readonly data: Readonly<Record<string, unknown>>;
  /** Time of its first event, milliseconds since the Unix epoch; its place in the list. */
  readonly createdAt: number;
  /** Time of its newest event. */
  readonly changedAt: number;
  /** Counts live changes, so that a row can tell that it changed before the reader's eyes. */
  readonly touched: number;
  /** Its events, oldest first. */
  readonly events: readonly CloudEvent[];
}

/** Rows, newest first. Replaced with every change; `byId` is shared by successive lists and belongs to the newest. */
export interface Entries {
  readonly byId: Map<string, Entry>;
  readonly order: readonly string[];
}

/** Nothing yet. */
export function noEntries(): Entries {
  return { byId: new Map(), order: [] };
}

/** Rows the page keeps; the oldest leave first. */
export const ENTRIES_MAX = 10_000;
/** Events kept per row of a table; a real one has a few. */
const EVENTS_MAX = 20;

/** What says which rows there are and how they are marked. */
export interface Rule {
  readonly list: Pick<ListConfig, 'key' | 'mark' | 'types'>;
  /** The mark's template of a type; undefined for types the page does not know. */
  readonly markOfType: (type: string) => string | undefined;
}

/** Whether a list shows events of this type. */
export function shows(rule: Rule, type: string): boolean {
  return rule.list.types.length > 0 ? rule.list.types.includes(type) : rule.markOfType(type) !== undefined;
}

/** The row an event speaks of; undefined when it is none of this list's. */
export function idOf(rule: Rule, event: CloudEvent): string | undefined {
  if (!shows(rule, event.type)) return undefined;
  if (rule.list.key === undefined) return `${event.source} ${event.id}`;
  return plain(at(event, rule.list.key)) || undefined;
}

/** Folds one event into the list. `live` = it happened before the reader's eyes. What is none of it changes nothing. */
export function fold(entries: Entries, rule: Rule, event: CloudEvent, live: boolean): Entries {
  const id = idOf(rule, event);
  if (id === undefined) return entries;
  const before = entries.byId.get(id);
  const entry = before === undefined ? begin(rule, id, event) : advance(rule, before, event, live);
  const { byId } = entries;
  byId.set(id, entry);
  if (before !== undefined) return { byId, order: entries.order };
  const order = insert(entries.order, byId, entry);
  for (const dropped of order.splice(ENTRIES_MAX)) byId.delete(dropped);
  return { byId, order };
}

/** Forgets what a room has told: its rows go, and of those that other rooms have told of as well what they said is left. */
export function forget(entries: Entries, rule: Rule, room: string): Entries {
  const eventsOf = (id: string): readonly CloudEvent[] => entries.byId.get(id)?.events ?? [];
  const gone = new Set(entries.order.filter((id) => eventsOf(id).some((event) => event.room === room)));
  if (gone.size === 0) return entries;
  const rest: Entries = { byId: new Map([...entries.byId].filter(([id]) => !gone.has(id))), order: entries.order.filter((id) => !gone.has(id)) };
  const left = [...gone].flatMap((id) => eventsOf(id).filter((event) => event.room !== room));
  return left.sort((a, b) => timeOf(a) - timeOf(b)).reduce((all, event) => fold(all, rule, event, false), rest);
}

/** Which rows are wanted. */
export interface Wanted {
  readonly search: string;
  readonly mark: string | undefined;
  /** Only what happened from then on, in milliseconds since the Unix epoch. */
  readonly since?: number | undefined;
}

/** Rows that are wanted, newest first. `text` is what a row reads like. */
export function select(entries: Entries, { search, mark, since = 0 }: Wanted, text: (entry: Entry) => string): Entry[] {
  const words = search.toLocaleLowerCase().split(/\s+/).filter((word) => word !== '');
  const found: Entry[] = [];
  for (const id of entries.order) {
    const entry = entries.byId.get(id);
    if (entry === undefined || entry.changedAt < since || (mark !== undefined && entry.mark !== mark)) continue;
    if (words.length > 0) {
      const line = text(entry).toLocaleLowerCase();
      if (!words.every((word) => line.includes(word))) continue;
    }
    found.push(entry);
  }
  return found;
}

/** An event's time; now where it says none is the caller's to decide. */
export function timeOf(event: CloudEvent, otherwise = 0): number {
  const time = event.time === undefined ? Number.NaN : Date.parse(event.time);
  return Number.isNaN(time) ? otherwise : time;
}

function begin(rule: Rule, id: string, event: CloudEvent): Entry {
  const time = timeOf(event);
  return { id, mark: markOf(rule, event), type: event.type, room: event.room ?? '', data: dataOf(event), createdAt: time, changedAt: time, touched: 0, events: [event] };
}

function advance(rule: Rule, before: Entry, event: CloudEvent, live: boolean): Entry {
  const time = timeOf(event, before.changedAt);
  const events = [...before.events, event].sort((a, b) => timeOf(a) - timeOf(b)).slice(-EVENTS_MAX);
  // An older event that comes late belongs to the history but does not undo what happened since.
  if (time < before.changedAt) return { ...before, data: { ...dataOf(event), ...before.data }, events };
  const mark = markOf(rule, event);
  // A later event may say less than the first: what it leaves out still holds.
  const data = { ...before.data, ...dataOf(event) };
  return { ...before, mark, type: event.type, room: event.room ?? before.room, data, changedAt: time, touched: before.touched + (live && mark !== before.mark ? 1 : 0), events };
}

function markOf(rule: Rule, event: CloudEvent): string {
  const named = rule.list.mark === undefined ? '' : fillPlain(rule.list.mark, event);
  return named !== '' ? named : fillPlain(rule.markOfType(event.type) ?? event.type, event) || event.type;
}

function dataOf(event: CloudEvent): Record<string, unknown> {
  const { data } = event;
  return typeof data === 'object' && data !== null && !Array.isArray(data) ? (data as Record<string, unknown>) : {};
}

/** New rows nearly always belong at the top, so the search starts there. */
function insert(order: readonly string[], byId: ReadonlyMap<string, Entry>, entry: Entry): string[] {
  let place = 0;
  while (place < order.length && (byId.get(order[place] as string)?.createdAt ?? 0) > entry.createdAt) place += 1;
  return [...order.slice(0, place), entry.id, ...order.slice(place)];
}
