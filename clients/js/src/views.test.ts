import { expect, it, vi } from 'vitest';
import type { RoomcastClient } from './api.js';
import type { RoomHandlers } from './room.js';
import { seriesStore } from './views.js';

const window = (start: string): unknown => ({ metric: 'load', window: { start, end: null }, group: [], value: 1, revision: 1, asOf: start });

it('a series shows nothing of another user', async () => {
  let handlers: RoomHandlers = {};
  const answers: ((windows: unknown[]) => void)[] = [];
  const client = {
    subscribe: (_: string, given: RoomHandlers) => ((handlers = given), { unsubscribe: () => undefined }),
    series: () => new Promise((settle) => answers.push((windows) => settle({ cursor: undefined, windows }))),
  } as unknown as RoomcastClient;
  const store = seriesStore(client, 'r', 'load');
  let changes = 0;
  const unwatch = store.subscribe(() => (changes += 1));
  handlers.onCaughtUp?.();
  answers[0]?.([window('2026-01-01T00:00:00Z')]);
  await vi.waitFor(() => expect(store.get()).toMatchObject({ loaded: true, windows: [{ metric: 'load' }] }));
  await vi.waitFor(() => expect(changes).toBe(1));
  handlers.onState?.({ key: 'load', event: undefined, gone: 'withdrawn', live: true });
  handlers.onReset?.({ recovery: 'fresh', reason: 'user' });
  expect(store.get()).toEqual({ loaded: false, error: undefined, windows: [] });
  await vi.waitFor(() => expect(changes).toBe(2));
  handlers.onCaughtUp?.();
  expect(answers).toHaveLength(2);
  unwatch();
});
