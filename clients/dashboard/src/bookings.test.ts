import type { CloudEvent } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { BOOKINGS_MAX, fold, NO_BOOKINGS, select, type BookingList } from './bookings.js';

let ids = 0;
const at = (second: number): string => new Date(Date.UTC(2026, 0, 1) + second * 1_000).toISOString();
const event = (type: string, id: unknown, second: number, more: Record<string, unknown> = {}): CloudEvent => ({
  specversion: '1.0', id: `e${(ids += 1)}`, source: 's', type, time: at(second),
  data: { id, customer: 'Elif Kaya', country: 'TR', category: 'tour', title: 'Balloon', duration: '1 day', amount: 10, currency: 'TRY', ...more },
});
const run = (events: readonly CloudEvent[], live = true, start = NO_BOOKINGS): BookingList => events.reduce((list, each) => fold(list, each, live), start);

describe('list of bookings', () => {
  it('keeps the newest on top and a changed one where it stands', () => {
    const list = run([event('booking:new', 'a', 1), event('booking:new', 'b', 2), event('booking:confirmed', 'a', 3)]);
    expect(list.order).toEqual(['b', 'a']);
    expect(list.byId.get('a')).toMatchObject({ status: 'confirmed', touched: 1, createdAt: Date.parse(at(1)), changedAt: Date.parse(at(3)) });
  });

  it('does not count what happened before the reader came', () => {
    const list = run([event('booking:new', 'a', 1), event('booking:cancelled', 'a', 2)], false);
    expect(list.byId.get('a')).toMatchObject({ status: 'cancelled', touched: 0 });
  });

  it('an older event that comes late does not undo a newer one', () => {
    const list = run([event('booking:confirmed', 'a', 5), event('booking:new', 'a', 1)]);
    expect(list.byId.get('a')?.status).toBe('confirmed');
    expect(list.byId.get('a')?.events.map(({ type }) => type)).toEqual(['booking:new', 'booking:confirmed']);
  });

  it('puts a booking that comes late at its place', () => {
    expect(run([event('booking:new', 'a', 1), event('booking:new', 'c', 3), event('booking:new', 'b', 2)]).order).toEqual(['c', 'b', 'a']);
  });

  it.each([
    ['another type', event('booking:moved', 'a', 1)],
    ['no id', event('booking:new', 7, 1)],
    ['no data', { ...event('booking:new', 'a', 1), data: null } as CloudEvent],
  ])('is not changed by %s', (_, bad) => {
    expect(run([bad])).toBe(NO_BOOKINGS);
  });

  it('shows what it can of a booking with wrong fields', () => {
    const list = run([event('booking:new', 'a', 1, { category: 'rocket', amount: null, customer: 5 })]);
    expect(list.byId.get('a')).toMatchObject({ category: 'other', amount: undefined, customer: '' });
  });

  it('is bounded', () => {
    let list = NO_BOOKINGS;
    for (let n = 0; n < BOOKINGS_MAX + 20; n += 1) list = fold(list, event('booking:new', `b${n}`, n), true);
    expect(list.order).toHaveLength(BOOKINGS_MAX);
    expect(list.byId.size).toBe(BOOKINGS_MAX);
    expect(list.order[0]).toBe(`b${BOOKINGS_MAX + 19}`);
  });

  it('filters by every word and by status', () => {
    const list = run([event('booking:new', 'a', 1), event('booking:new', 'b', 2, { customer: 'Anna Müller' }), event('booking:confirmed', 'b', 3, { customer: undefined, title: undefined, category: undefined })]);
    expect(list.byId.get('b')).toMatchObject({ title: 'Balloon', category: 'tour' });
    expect(select(list, 'anna tour', 'all').map(({ id }) => id)).toEqual(['b']);
    expect(select(list, '', 'new').map(({ id }) => id)).toEqual(['a']);
    expect(select(list, 'anna', 'new')).toEqual([]);
  });
});
