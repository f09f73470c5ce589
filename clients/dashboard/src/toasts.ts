/** Which announcements are on the screen. Pure: the time is an argument; `toast.tsx` shows them and keeps the timer. */

/** What is announced. */
export interface News {
  readonly id: string;
  readonly title: string;
  readonly line: string;
  /** Name of an icon. */
  readonly icon: string;
  /** Name of a mark. */
  readonly mark: string;
  readonly critical: boolean;
  /** What a click opens. */
  readonly opens: { readonly list: string; readonly id: string } | undefined;
}

/** One announcement. */
export interface Toast extends News {
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
/** Shown at once; the rest is "+n more". */
export const TOASTS_SHOWN = 5;
/** The same on a phone, where five would cover the page. */
export const TOASTS_SHOWN_PHONE = 2;
/** Kept at all; a flood after a long break is not worth more. */
export const TOASTS_MAX = 99;

/** Adds one for `stay` milliseconds; the same id again changes nothing. */
export function add(toasts: Toasts, news: News, now: number, stay: number): Toasts {
  if (toasts.list.some((other) => other.id === news.id)) return toasts;
  return { ...toasts, list: [{ ...news, shownAt: now, endsAt: now + stay }, ...toasts.list].slice(0, TOASTS_MAX) };
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
