import type { CloudEvent } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { ENTRIES_MAX, fold, forget, noEntries, select, type Entries, type Rule } from './entries.js';

const RULE: Rule = { list: { key: 'data.id', mark: undefined, types: [] }, markOfType: (type) => (type.startsWith('booking:') ? type : undefined) };
const FEED: Rule = { list: { key: undefined, mark: '{data.status}', types: ['a'] }, markOfType: () => undefined };

let number = 0;
const event = (type: string, data: unknown, time = number): CloudEvent => ({ specversion: '1.0', id: `e${(number += 1)}`, source: 's', type, time: new Date(time * 1_000).toISOString(), room: 'r', data });
const all = (rule: Rule, events: readonly CloudEvent[], live = false): Entries => events.reduce((entries, one) => fold(entries, rule, one, live), noEntries());

describe('a table', () => {
  it('has a row for each thing, newest first, that changes in place', () => {
    const entries = all(RULE, [event('booking:new', { id: 'a', title: 'A' }, 1), event('booking:new', { id: 'b' }, 2), event('booking:confirmed', { id: 'a' }, 3)]);
    expect(entries.order).toEqual(['b', 'a']);
    expect(entries.byId.get('a')).toMatchObject({ mark: 'booking:confirmed', data: { id: 'a', title: 'A' }, createdAt: 1_000, changedAt: 3_000 });
    expect(entries.byId.get('a')?.events).toHaveLength(2);
  });

  it('is not set back by an older event that comes late', () => {
    const entries = all(RULE, [event('booking:confirmed', { id: 'a', title: 'Now' }, 9), event('booking:new', { id: 'a', title: 'Then', from: 'then' }, 1)]);
    expect(entries.byId.get('a')).toMatchObject({ mark: 'booking:confirmed', data: { title: 'Now', from: 'then' }, createdAt: 9_000 });
    expect(entries.byId.get('a')?.events.map(({ type }) => type)).toEqual(['booking:new', 'booking:confirmed']);
  });

  it('tells live changes from those that were there', () => {
    const before = all(RULE, [event('booking:new', { id: 'a' }), event('booking:confirmed', { id: 'a' })]);
    expect(before.byId.get('a')?.touched).toBe(0);
    expect(fold(before, RULE, event('booking:cancelled', { id: 'a' }), true).byId.get('a')?.touched).toBe(1);
  });

  it.each([
    ['another type', event('other', { id: 'a' })],
    ['no key', event('booking:new', {})],
    ['a key that is no text', event('booking:new', { id: {} })],
    ['no data', event('booking:new', null)],
    ['data that is a text', event('booking:new', 'x')],
  ])('is not changed by %s', (_, one) => {
    const entries = noEntries();
    expect(fold(entries, RULE, one, true)).toBe(entries);
  });

  it('is bounded: the oldest leave', () => {
    let entries = noEntries();
    for (let n = 0; n < ENTRIES_MAX + 5; n += 1) entries = fold(entries, RULE, event('booking:new', { id: `b${n}` }, n), false);
    expect([entries.order.length, entries.byId.size, entries.order.at(-1)]).toEqual([ENTRIES_MAX, ENTRIES_MAX, 'b5']);
  });
});

describe('a room that is forgotten', () => {
  const of = (room: string, type: string, data: unknown, time: number): CloudEvent => ({ ...event(type, data, time), room });

  it('takes its rows along, and of others what it said of them', () => {
    const before = all(RULE, [
      of('r', 'booking:new', { id: 'both', title: 'From r' }, 1),
      of('q', 'booking:new', { id: 'other' }, 2),
      of('r', 'booking:new', { id: 'own' }, 3),
      of('q', 'booking:confirmed', { id: 'both', guest: 'Ada' }, 4),
    ]);
    const after = forget(before, RULE, 'r');
    expect(after.order).toEqual(['both', 'other']);
    expect(after.byId.get('both')).toMatchObject({ data: { id: 'both', guest: 'Ada' }, createdAt: 4_000, room: 'q' });
    expect(after.byId.get('both')?.data).not.toHaveProperty('title');
    expect(before.order, 'the list before is as it was').toEqual(['own', 'other', 'both']);
    expect(forget(after, RULE, 'r')).toBe(after);
  });
});

describe('a feed', () => {
  it('has a row for each event, marked by what it says', () => {
    const entries = all(FEED, [event('a', { status: 'open' }), event('a', {}), event('b', {})]);
    expect(entries.order.map((id) => entries.byId.get(id)?.mark)).toEqual(['a', 'open']);
  });
});

describe('a search', () => {
  it.each([
    ['', undefined, ['b', 'a']],
    ['ada TOUR', undefined, ['a']],
    ['', 'booking:cancelled', ['b']],
    ['ada', 'booking:cancelled', []],
  ])('for %o among %o finds %o', (words, mark, expected) => {
    const entries = all(RULE, [event('booking:new', { id: 'a', text: 'Ada, a tour' }, 1), event('booking:cancelled', { id: 'b', text: 'Bob' }, 2)]);
    expect(select(entries, { search: words, mark }, (entry) => String(entry.data['text'])).map(({ id }) => id)).toEqual(expected);
  });
});
