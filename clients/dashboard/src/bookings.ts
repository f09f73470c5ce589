/** The list of bookings as a fold over events. Pure: the page's only place that knows what the events mean. */

import type { CloudEvent } from 'roomcast';

/** What became of a booking. */
export type BookingStatus = 'new' | 'confirmed' | 'cancelled';

/** What is booked; anything else is shown as `other`. */
export type Category = 'property' | 'car' | 'transfer' | 'tour' | 'other';

/** Data of the three events. */
export interface BookingData {
  readonly id: string;
  readonly customer: string;
  readonly country: string;
  readonly category: string;
  readonly title: string;
  readonly duration: string;
  readonly amount: number | string;
  readonly currency: string;
}

/** Events of the bookings room. */
export type BookingEvents = {
  'booking:new': BookingData;
  'booking:confirmed': BookingData;
  'booking:cancelled': BookingData;
};

/** A booking as it stands. */
export interface Booking {
  readonly id: string;
  readonly status: BookingStatus;
  readonly customer: string;
  readonly country: string;
  readonly category: Category;
  readonly title: string;
  readonly duration: string;
  readonly amount: number | string | undefined;
  readonly currency: string;
  /** Time of its first event, milliseconds since the Unix epoch; its place in the list. */
  readonly createdAt: number;
  /** Time of its newest event. */
  readonly changedAt: number;
  /** Counts live changes, so that a row can tell that it changed before the reader's eyes. */
  readonly touched: number;
  /** Its events, oldest first. */
  readonly events: readonly CloudEvent[];
}

/** Bookings, newest first. */
export interface BookingList {
  readonly byId: ReadonlyMap<string, Booking>;
  readonly order: readonly string[];
}

/** Nothing yet. */
export const NO_BOOKINGS: BookingList = { byId: new Map(), order: [] };

/** Bookings the page keeps; the oldest leave first. */
export const BOOKINGS_MAX = 500;
/** Events kept per booking; a real one has two. */
const EVENTS_MAX = 20;

const STATUS: Readonly<Record<string, BookingStatus>> = { 'booking:new': 'new', 'booking:confirmed': 'confirmed', 'booking:cancelled': 'cancelled' };
const CATEGORIES: ReadonlySet<string> = new Set(['property', 'car', 'transfer', 'tour']);

/** What an event says about a booking, or undefined when it is none. */
export function readBooking(event: CloudEvent): { status: BookingStatus; data: BookingData } | undefined {
  const status = STATUS[event.type];
  const data = event.data as Partial<BookingData> | null | undefined;
  if (status === undefined || typeof data !== 'object' || data === null || typeof data.id !== 'string') return undefined;
  return { status, data: data as BookingData };
}

/** Folds one event into the list. `live` = it happened before the reader's eyes. Events that are no bookings change nothing. */
export function fold(list: BookingList, event: CloudEvent, live: boolean): BookingList {
  const read = readBooking(event);
  if (read === undefined) return list;
  const before = list.byId.get(read.data.id);
  const time = timeOf(event, before);
  const booking = before === undefined ? begin(read.data, read.status, event, time) : advance(before, read.data, read.status, event, time, live);
  const byId = new Map(list.byId).set(booking.id, booking);
  if (before !== undefined) return { byId, order: list.order };
  const order = insert(list.order, byId, booking);
  for (const dropped of order.splice(BOOKINGS_MAX)) byId.delete(dropped);
  return { byId, order };
}

/** Bookings that match a search and a status, newest first. */
export function select(list: BookingList, search: string, status: BookingStatus | 'all'): Booking[] {
  const words = search.toLocaleLowerCase().split(/\s+/).filter((word) => word !== '');
  const found: Booking[] = [];
  for (const id of list.order) {
    const booking = list.byId.get(id);
    if (booking === undefined || (status !== 'all' && booking.status !== status)) continue;
    const text = `${booking.customer} ${booking.title} ${booking.category} ${booking.country} ${booking.id}`.toLocaleLowerCase();
    if (words.every((word) => text.includes(word))) found.push(booking);
  }
  return found;
}

function begin(data: BookingData, status: BookingStatus, event: CloudEvent, time: number): Booking {
  return { ...facts(data), id: data.id, status, createdAt: time, changedAt: time, touched: 0, events: [event] };
}

function advance(before: Booking, data: BookingData, status: BookingStatus, event: CloudEvent, time: number, live: boolean): Booking {
  const events = [...before.events, event].slice(-EVENTS_MAX);
  // An older event that comes late belongs to the history but does not undo what happened since.
  if (time < before.changedAt) return { ...before, events: [...events].sort((a, b) => timeOf(a) - timeOf(b)), createdAt: before.createdAt };
  return { ...before, ...said(data), status, changedAt: time, touched: before.touched + (live && status !== before.status ? 1 : 0), events };
}

/** A later event may say less than the first: what it leaves out still holds. */
function said(data: BookingData): Partial<Booking> {
  const known = Object.entries(facts(data)).filter(([name, value]) => value !== '' && value !== undefined && !(name === 'category' && value === 'other'));
  return Object.fromEntries(known);
}

function facts(data: BookingData): Pick<Booking, 'customer' | 'country' | 'category' | 'title' | 'duration' | 'amount' | 'currency'> {
  return {
    customer: text(data.customer),
    country: text(data.country),
    category: CATEGORIES.has(data.category) ? (data.category as Category) : 'other',
    title: text(data.title),
    duration: text(data.duration),
    amount: typeof data.amount === 'number' || typeof data.amount === 'string' ? data.amount : undefined,
    currency: text(data.currency),
  };
}

/** New bookings nearly always belong at the top, so the search starts there. */
function insert(order: readonly string[], byId: ReadonlyMap<string, Booking>, booking: Booking): string[] {
  let place = 0;
  while (place < order.length && (byId.get(order[place] as string)?.createdAt ?? 0) > booking.createdAt) place += 1;
  return [...order.slice(0, place), booking.id, ...order.slice(place)];
}

function timeOf(event: CloudEvent, before?: Booking): number {
  const time = event.time === undefined ? Number.NaN : Date.parse(event.time);
  return Number.isNaN(time) ? (before?.changedAt ?? 0) : time;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
