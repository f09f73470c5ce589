import { describe, expect, it } from 'vitest';
import { add, dismiss, expire, nextEnd, NO_TOASTS, pause, resume, TOASTS_MAX, type Toasts } from './toasts.js';

const STAY = 10_000;
const put = (toasts: Toasts, id: string, now: number): Toasts => add(toasts, { id, title: id, line: '', icon: 'dot', mark: 'new', critical: false, opens: undefined }, now, STAY);

describe('toasts', () => {
  it('come newest first, once, and go after their time', () => {
    let toasts = put(put(put(NO_TOASTS, 'a', 0), 'b', 1_000), 'a', 2_000);
    expect(toasts.list.map(({ id }) => id)).toEqual(['b', 'a']);
    expect(nextEnd(toasts)).toBe(STAY);
    toasts = expire(toasts, STAY);
    expect(toasts.list.map(({ id }) => id)).toEqual(['b']);
    expect(dismiss(toasts, 'b').list).toEqual([]);
    expect(nextEnd(NO_TOASTS)).toBeUndefined();
  });

  it('stay while the reader looks, and get back what they had left', () => {
    let toasts = pause(put(NO_TOASTS, 'a', 0), 9_000);
    expect(nextEnd(toasts)).toBeUndefined();
    toasts = put(expire(toasts, 60_000), 'late', 50_000);
    toasts = resume(toasts, 60_000);
    expect(toasts.list.map(({ id, endsAt }) => [id, endsAt])).toEqual([['late', 60_000 + STAY], ['a', 61_000]]);
  });

  it('are bounded', () => {
    let toasts = NO_TOASTS;
    for (let n = 0; n < 500; n += 1) toasts = put(toasts, String(n), n);
    expect(toasts.list).toHaveLength(TOASTS_MAX);
    expect(toasts.list[0]?.id).toBe('499');
  });
});
