import { expect, it, vi } from 'vitest';
import type { RoomcastClient } from './api.js';
import { RoomcastError } from './error.js';
import type { RoomHandlers } from './room.js';
import { seriesStore } from './views.js';

const window = (start: string): unknown => ({ metric: 'load', window: { start, end: null }, group: [], value: 1, revision: 1, asOf: start });

/** A series that is watched, with what its room says and what its past is answered with. */
function watched(): { say: RoomHandlers; answers: ((windows: unknown[]) => void)[]; store: ReturnType<typeof seriesStore>; changes: () => number; unwatch: () => void } {
  const say: RoomHandlers = {};
  const answers: ((windows: unknown[]) => void)[] = [];
  const client = {
    subscribe: (_: string, given: RoomHandlers) => (Object.assign(say, given), { unsubscribe: () => undefined }),
    series: () => new Promise((settle) => answers.push((windows) => settle({ cursor: undefined, windows }))),
  } as unknown as RoomcastClient;
  const store = seriesStore(client, 'r', 'load');
  let changes = 0;
  const unwatch = store.subscribe(() => (changes += 1));
  return { say, answers, store, changes: () => changes, unwatch };
}

it('a series shows nothing of another user', async () => {
  const { say, answers, store, changes, unwatch } = watched();
  say.onCaughtUp?.();
  answers[0]?.([window('2026-01-01T00:00:00Z')]);
  await vi.waitFor(() => expect(store.get()).toMatchObject({ loaded: true, windows: [{ metric: 'load' }] }));
  await vi.waitFor(() => expect(changes()).toBe(1));
  say.onState?.({ key: 'load', event: undefined, gone: 'withdrawn', live: true });
  say.onReset?.({ recovery: 'fresh', reason: 'user' });
  expect(store.get()).toEqual({ loaded: false, error: undefined, windows: [] });
  await vi.waitFor(() => expect(changes()).toBe(2));
  say.onCaughtUp?.();
  expect(answers).toHaveLength(2);
  unwatch();
});

it.each<[string, (say: RoomHandlers) => void, { windows: number; asked: number }]>([
  ['nothing when its room is not open any more', ({ onError }) => onError?.(new RoomcastError('forbidden', 'rights ended')), { windows: 0, asked: 1 }],
  ['its windows with a sign-in that has ended', ({ onError }) => onError?.(new RoomcastError('expired', 'ended')), { windows: 1, asked: 1 }],
  ['its windows while its room is away', ({ onError }) => onError?.(new RoomcastError('unavailable', 'later', { temporary: true })), { windows: 1, asked: 1 }],
  ['what is open to it still when its metric is withdrawn', ({ onState }) => onState?.({ key: 'load', event: undefined, gone: 'withdrawn', live: true }), { windows: 0, asked: 2 }],
  ['its windows when a value of it is over', ({ onState }) => onState?.({ key: 'load', event: undefined, gone: 'expired', live: true }), { windows: 1, asked: 1 }],
  ['its windows when another metric is withdrawn', ({ onState }) => onState?.({ key: 'load/a', event: undefined, gone: 'withdrawn', live: true }), { windows: 1, asked: 1 }],
])('a series shows %s', async (_, happens, { windows, asked }) => {
  vi.useFakeTimers();
  const { say, answers, store, unwatch } = watched();
  say.onCaughtUp?.();
  answers[0]?.([window('2026-01-01T00:00:00Z')]);
  await vi.advanceTimersByTimeAsync(0);
  expect(store.get().windows).toHaveLength(1);
  happens(say);
  await vi.advanceTimersByTimeAsync(10);
  expect([store.get().windows.length, answers.length]).toEqual([windows, asked]);
  unwatch();
  vi.useRealTimers();
});

it('a series shows nothing that was asked for before its metric was withdrawn', async () => {
  vi.useFakeTimers();
  const { say, answers, store, unwatch } = watched();
  say.onCaughtUp?.();
  say.onState?.({ key: 'load', event: undefined, gone: 'withdrawn', live: true });
  answers[0]?.([window('2026-01-01T00:00:00Z')]);
  await vi.advanceTimersByTimeAsync(10);
  expect(store.get()).toEqual({ loaded: false, error: undefined, windows: [] });
  answers[1]?.([]);
  await vi.advanceTimersByTimeAsync(0);
  expect(store.get()).toEqual({ loaded: true, error: undefined, windows: [] });
  unwatch();
  vi.useRealTimers();
});
