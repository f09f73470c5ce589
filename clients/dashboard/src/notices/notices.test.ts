import type { CloudEvent } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { readFeed } from './notices-live.js';
import { ALL, categories, count, groups, mark, NOTICES_MAX, put, readNotice, type Level, type Notice, type Priority } from './notices.js';

const event = (data: unknown, more: Partial<CloudEvent> = {}): CloudEvent => ({ specversion: '1.0', id: 'n1', source: 's', type: 'notification.alert', time: '2026-01-01T00:00:00Z', data, ...more });
const notice = (id: string, priority: Priority, at: number, level: Level = 'new', category = 'alert'): Notice => ({ id, key: id, title: id, body: '', link: undefined, category, group: '', priority, at, level });

describe('a notification', () => {
  it('is read', () => {
    expect(readNotice(event({ title: 'Late', body: 'b', category: 'delivery', group: 'g' }, { priority: 'high', statekey: 'notification/k' }), 'seen')).toMatchObject({ id: 'n1', key: 'notification/k', title: 'Late', category: 'delivery', priority: 'high', level: 'seen' });
    expect(readNotice(event({ title: 'x' }), 'new')?.category).toBe('alert');
  });

  it.each([[event({})], [event({ title: '' })], [event(null)], [event('x')], [event({ title: 'x' }, { type: 'other' })]])('is not %o', (one) => {
    expect(readNotice(one, 'new')).toBeUndefined();
  });

  it.each([['https://a.example', true], ['/orders/1', true], ['#/today', true], ['javascript:alert(1)', false], ['//evil.example', false], ['data:text/html,x', false]])('leads to %s: %s', (link, kept) => {
    expect(readNotice(event({ title: 'x', link }), 'new')?.link).toBe(kept ? link : undefined);
  });
});

describe('the bell', () => {
  it('puts the newer of a matter in the place of the older, and is bounded', () => {
    const older = { ...notice('a', 'low', 1), key: 'k' };
    expect(put([older], { ...notice('b', 'low', 2), key: 'k' }).map(({ id }) => id)).toEqual(['b']);
    let many: readonly Notice[] = [];
    for (let n = 0; n < NOTICES_MAX + 9; n += 1) many = put(many, notice(`n${n}`, 'low', n));
    expect([many.length, many[0]?.id]).toEqual([NOTICES_MAX, `n${NOTICES_MAX + 8}`]);
  });

  it('counts what waits, and marks only ever grow', () => {
    const all = [notice('a', 'medium', 1), notice('b', 'critical', 2, 'read'), notice('c', 'high', 3, 'seen')];
    expect(count(all)).toEqual({ unread: 2, worst: 'high' });
    const read = mark(all, new Set(['a', 'c']), 'read');
    expect(count(read)).toEqual({ unread: 0, worst: undefined });
    expect(mark(read, new Set(['a']), 'seen')).toBe(read);
  });

  it('groups by kind, the most urgent that waits first', () => {
    const all = [notice('a', 'low', 9, 'new', 'x'), notice('b', 'critical', 1, 'new', 'y'), notice('c', 'critical', 8, 'read', 'x'), notice('d', 'low', 2, 'archived', 'y')];
    expect(groups(all, ALL).map(({ name, unread, notices }) => [name, unread, notices.map(({ id }) => id)])).toEqual([['y', 1, ['b']], ['x', 1, ['a', 'c']]]);
    expect(groups(all, { ...ALL, unread: true }).flatMap(({ notices }) => notices.map(({ id }) => id))).toEqual(['b', 'a']);
    expect(groups(all, { ...ALL, archived: true }).flatMap(({ notices }) => notices.map(({ id }) => id))).toEqual(['d']);
    expect(groups(all, { ...ALL, category: 'x' })).toHaveLength(1);
    expect(categories(all)).toEqual(['x', 'y']);
  });

  it('reads a page of the feed with its marks, and leaves out what is none', () => {
    const placed = (one: CloudEvent): unknown => ({ cursor: 'c', event: one });
    const body = { notifications: [placed(event({ title: 'A' })), placed(event({ title: 'B' }, { id: 'n2' })), { event: 3 }, 'x'], marks: [{ id: 'n2', as: 'archived' }, { id: 'n1', as: 'later' }, 5] };
    expect(readFeed(body).map(({ id, level }) => [id, level])).toEqual([['n1', 'new'], ['n2', 'archived']]);
    expect(readFeed({ notifications: 7, marks: 'x' })).toEqual([]);
  });
});
