import { describe, expect, it } from 'vitest';
import type { Booking } from './bookings.js';
import { add, dismiss, expire, nextEnd, NO_TOASTS, pause, resume, TOAST_MS, TOASTS_MAX, type Toasts } from './toasts.js';

const put = (toasts: Toasts, id: string, now: number): Toasts => add(toasts, { id, booking: {} as Booking, status: 'new', critical: false }, now);

describe('toasts', () => {
  it('come newest first, once, and go after their time', () => {
    let toasts = put(put(put(NO_TOASTS, 'a', 0), 'b', 1_000), 'a', 2_000);
    expect(toasts.list.map(({ id }) => id)).toEqual(['b', 'a']);
    expect(nextEnd(toasts)).toBe(TOAST_MS);
    toasts = expire(toasts, TOAST_MS);
    expect(toasts.list.map(({ id }) => id)).toEqual(['b']);
    expect(dismiss(toasts, 'b').list).toEqual([]);
    expect(nextEnd(NO_TOASTS)).toBeUndefined();
  });

  it('stay while the reader looks, and get back what they had left', () => {
    let toasts = pause(put(NO_TOASTS, 'a', 0), 9_000);
    expect(nextEnd(toasts)).toBeUndefined();
    toasts = put(expire(toasts, 60_000), 'late', 50_000);
    toasts = resume(toasts, 60_000);
    expect(toasts.list.map(({ id, endsAt }) => [id, endsAt])).toEqual([['late', 60_000 + TOAST_MS], ['a', 61_000]]);
  });

  it('are bounded', () => {
    let toasts = NO_TOASTS;
    for (let n = 0; n < 500; n += 1) toasts = put(toasts, String(n), n);
    expect(toasts.list).toHaveLength(TOASTS_MAX);
    expect(toasts.list[0]?.id).toBe('499');
  });
});
