import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Cell, LINGER_MS, select, shallowEqual } from './store.js';
import { settle } from './testing/fakes.js';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

describe('a store', () => {
  it('works while it is watched and a moment longer', async () => {
    const turns: string[] = [];
    const cell = new Cell(0, () => {
      turns.push('start');
      return () => turns.push('stop');
    });
    expect(cell.get()).toBe(0);
    expect(turns).toEqual([]);
    const first = cell.subscribe(() => undefined);
    const second = cell.subscribe(() => undefined);
    first();
    first();
    second();
    await vi.advanceTimersByTimeAsync(LINGER_MS - 1);
    cell.subscribe(() => undefined)();
    await vi.advanceTimersByTimeAsync(LINGER_MS - 1);
    expect(turns).toEqual(['start']);
    await vi.advanceTimersByTimeAsync(1);
    expect(turns).toEqual(['start', 'stop']);
  });

  it('tells once for many changes, and makes its value when somebody looks', async () => {
    let made = 0;
    let told = 0;
    const cell = new Cell('a');
    cell.subscribe(() => (told += 1));
    for (const value of ['b', 'c', 'd']) cell.change(() => ((made += 1), value));
    await settle();
    expect([told, made, cell.get(), made]).toEqual([1, 0, 'd', 1]);
    cell.set('d');
    await settle();
    expect(told).toBe(1);
  });

  it('a selection tells only when the selected is another', async () => {
    const cell = new Cell({ a: 1, b: 1 });
    let told = 0;
    const list = select(cell, ({ a }) => [a], shallowEqual);
    const before = list.get();
    list.subscribe(() => (told += 1));
    cell.set({ a: 1, b: 2 });
    await settle();
    expect(told).toBe(0);
    expect(list.get()).toBe(before);
    cell.set({ a: 2, b: 2 });
    await settle();
    expect(told).toBe(1);
    expect(list.get()).toEqual([2]);
  });

  it.each([
    [{ a: 1 }, { a: 1 }, true],
    [{ a: 1 }, { a: 1, b: undefined }, false],
    [{ a: undefined }, { b: undefined }, false],
    [[1, 2], [1, 2], true],
    [[1], 1, false],
    [null, {}, false],
    [Number.NaN, Number.NaN, true],
  ])('%j and %j are shallowly equal: %s', (a, b, equal) => expect(shallowEqual(a, b)).toBe(equal));
});
