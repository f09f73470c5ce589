/** Which announcements are on the screen. Pure: the time is an argument; `toast.tsx` shows them and keeps the timer. */

import type { Booking, BookingStatus } from './bookings.js';

/** One announcement. */
export interface Toast {
  readonly id: string;
  readonly booking: Booking;
  readonly status: BookingStatus;
  readonly critical: boolean;
  /** When it goes, by this machine's clock, in milliseconds; moved while the reader looks. */
  readonly endsAt: number;
  readonly shownAt: number;
}

/** Announcements, newest first. */
export interface Toasts {
  readonly list: readonly Toast[];
  /** The reader looks since then: nothing goes. */
  readonly pausedAt: number | undefined;
}

/** None. */
export const NO_TOASTS: Toasts = { list: [], pausedAt: undefined };
/** How long one stays, in milliseconds. */
export const TOAST_MS = 10_000;
/** Shown at once; the rest is "+n more". */
export const TOASTS_SHOWN = 5;
/** The same on a phone, where five would cover the page. */
export const TOASTS_SHOWN_PHONE = 2;
/** Kept at all; a flood after a long break is not worth more. */
export const TOASTS_MAX = 99;

/** Adds one; the same id again changes nothing. */
export function add(toasts: Toasts, toast: Omit<Toast, 'endsAt' | 'shownAt'>, now: number): Toasts {
  if (toasts.list.some((other) => other.id === toast.id)) return toasts;
  return { ...toasts, list: [{ ...toast, shownAt: now, endsAt: now + TOAST_MS }, ...toasts.list].slice(0, TOASTS_MAX) };
}

/** Removes one. */
export function dismiss(toasts: Toasts, id: string): Toasts {
  const list = toasts.list.filter((toast) => toast.id !== id);
  return list.length === toasts.list.length ? toasts : { ...toasts, list };
}

/** Removes those whose time is over, unless the reader looks. */
export function expire(toasts: Toasts, now: number): Toasts {
  if (toasts.pausedAt !== undefined) return toasts;
  const list = toasts.list.filter((toast) => toast.endsAt > now);
  return list.length === toasts.list.length ? toasts : { ...toasts, list };
}

/** The next instant at which one goes, or undefined. */
export function nextEnd(toasts: Toasts): number | undefined {
  return toasts.pausedAt !== undefined || toasts.list.length === 0 ? undefined : Math.min(...toasts.list.map((toast) => toast.endsAt));
}

/** The reader looks: time stands still. */
export function pause(toasts: Toasts, now: number): Toasts {
  return toasts.pausedAt === undefined ? { ...toasts, pausedAt: now } : toasts;
}

/** Time goes on; each toast gets back what it had left. */
export function resume(toasts: Toasts, now: number): Toasts {
  const { pausedAt } = toasts;
  if (pausedAt === undefined) return toasts;
  // One that came during the pause has its whole time from now.
  const list = toasts.list.map((toast) => ({ ...toast, endsAt: toast.endsAt + now - Math.max(pausedAt, toast.shownAt) }));
  return { list, pausedAt: undefined };
}
