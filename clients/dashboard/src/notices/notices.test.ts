import type { Notification } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { ALL, groups, isUnread, kindOf, kinds, safeLink, worst } from './notices.js';

const one = (id: string, priority: Notification['priority'], time: number, mark?: Notification['mark'], category: string | undefined = 'alert'): Notification =>
  ({ id, priority, time, mark, category, type: 'notification.alert', room: 'r', title: id, event: {} }) as unknown as Notification;
const view = (...all: Notification[]): { items: Notification[]; archived: Notification[] } => ({ items: all.filter(({ mark }) => mark !== 'archived'), archived: all.filter(({ mark }) => mark === 'archived') });

describe('the notification centre', () => {
  it.each([['https://a.example', true], ['/orders/1', true], ['#/today', true], ['javascript:alert(1)', false], ['//evil.example', false], ['data:text/html,x', false], [undefined, false]])('leads to %s: %s', (link, kept) => {
    expect(safeLink(link)).toBe(kept ? link : undefined);
  });

  it('names what a notification is about', () => {
    expect(kindOf({ category: 'delivery', type: 'notification.late' })).toBe('delivery');
    expect(kindOf({ category: undefined, type: 'notification.late' })).toBe('late');
  });

  it.each([[undefined, true], ['seen', true], ['read', false], ['archived', false]] as const)('marked %s, it waits: %s', (mark, waits) => {
    expect(isUnread({ mark })).toBe(waits);
  });

  it('says how urgent the most urgent is', () => {
    const counters = { version: 1, unread: 2, critical: 0, high: 1, medium: 1, low: 0 };
    expect(worst({ counters })).toBe('high');
    expect(worst({ counters: { ...counters, high: 0, medium: 0 } })).toBeUndefined();
  });

  it('groups by kind, the most urgent that waits first', () => {
    const all = view(one('a', 'low', 9, undefined, 'x'), one('b', 'critical', 1, undefined, 'y'), one('c', 'critical', 8, 'read', 'x'), one('d', 'low', 2, 'archived', 'y'));
    expect(groups(all, ALL).map(({ name, unread, items }) => [name, unread, items.map(({ id }) => id)])).toEqual([['y', 1, ['b']], ['x', 1, ['a', 'c']]]);
    expect(groups(all, { ...ALL, unread: true }).flatMap(({ items }) => items.map(({ id }) => id))).toEqual(['b', 'a']);
    expect(groups(all, { ...ALL, archived: true }).flatMap(({ items }) => items.map(({ id }) => id))).toEqual(['d']);
    expect(groups(all, { ...ALL, kind: 'x' })).toHaveLength(1);
    expect(kinds(all)).toEqual(['x', 'y']);
  });
});
