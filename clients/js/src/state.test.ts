import { describe, expect, it } from 'vitest';
import type { CloudEvent } from './event.js';
import { Seen, SEEN_MAX } from './seen.js';
import { KEYS_MAX, StateStore } from './state.js';

const value = (id: string, statekey: string, more: Partial<CloudEvent> = {}): CloudEvent => ({ specversion: '1.0', id, source: 's', type: 't', data: id, statekey, ...more });

describe('state of a room', () => {
  it('keeps the latest value per key and knows the same one again', () => {
    const store = new StateStore();
    expect(store.apply(value('1', 'a'), 0)).toBe('set');
    expect(store.apply(value('1', 'a'), 0)).toBe('unchanged');
    expect(store.apply(value('2', 'a'), 0)).toBe('set');
    expect(store.values.get('a')?.data).toBe('2');
  });

  it('takes what other rights show of the same event', () => {
    const store = new StateStore();
    const rows: [CloudEvent, string][] = [
      [value('1', 'a', { data: { name: 'Ada', salary: 1 } }), 'set'],
      [value('1', 'a', { data: { name: 'Ada' } }), 'set'],
      [value('1', 'a', { data: { name: 'Ada' } }), 'unchanged'],
      [value('1', 'a', { data: { name: 'Ada' }, source: 't' }), 'set'],
    ];
    for (const [event, effect] of rows) {
      expect(store.apply(event, 0)).toBe(effect);
      expect(store.values.get('a')).toEqual(event);
    }
  });

  it('forgets withdrawn and expired keys', () => {
    const store = new StateStore();
    store.apply(value('1', 'a'), 0);
    expect(store.apply(value('2', 'a', { withdrawn: true }), 0)).toBe('withdrawn');
    expect(store.apply(value('3', 'a', { withdrawn: true }), 0)).toBe('unchanged');
    expect(store.apply(value('4', 'b', { expirytime: '1970-01-01T00:00:05Z' }), 0)).toBe('set');
    expect(store.nextExpiry()).toBe(5_000);
    expect(store.expire(4_999)).toEqual([]);
    expect(store.expire(5_000)).toEqual(['b']);
    expect(store.apply(value('5', 'b', { expirytime: '1970-01-01T00:00:05Z' }), 6_000)).toBe('unchanged');
    expect(store.values.size).toBe(0);
  });

  it('holds no more keys than the server does', () => {
    const store = new StateStore();
    for (let n = 0; n < KEYS_MAX + 10; n += 1) store.apply(value(String(n), `k${n}`), 0);
    expect(store.values.size).toBe(KEYS_MAX);
    expect(store.apply(value('new', 'k1'), 0)).toBe('set');
  });
});

describe('memory of events', () => {
  it('knows an event by source and id, and by its place', () => {
    const seen = new Seen();
    expect(seen.add('s', '1', 'c1')).toBe(true);
    expect(seen.add('s', '1')).toBe(false);
    expect(seen.add('s', '2', 'c1')).toBe(false);
    expect(seen.add('t', '1', 'c2')).toBe(true);
    expect(seen.add('a', 'bc')).toBe(true);
    expect(seen.add('ab', 'c')).toBe(true);
  });

  it('is bounded and forgets the oldest first', () => {
    const seen = new Seen();
    const all = SEEN_MAX * 3;
    for (let n = 0; n < all; n += 1) seen.add('s', String(n), String(n));
    for (let n = all - SEEN_MAX; n < all; n += 1) expect(seen.add('s', String(n)), `${n}`).toBe(false);
    expect(seen.add('s', String(all - SEEN_MAX - 1))).toBe(true);
    expect(seen.add('s', '0')).toBe(true);
  });
});
