import { describe, expect, it } from 'vitest';
import type { CloudEvent } from './event.js';
import type { ToTab } from './pipe.js';
import { TabRooms } from './tab-rooms.js';
import { TabSubscription } from './tab-subscription.js';

function make(): { sub: TabSubscription; lines: string[]; hear(message: Record<string, unknown>): void } {
  const lines: string[] = [];
  const handlers = {
    history: 7,
    onState: ({ key, event, gone }: { key: string; event: unknown; gone?: string | undefined }) => lines.push(`${key}=${event === undefined ? gone : JSON.stringify((event as CloudEvent).data)}`),
    onReset: ({ reason }: { reason?: string | undefined }) => lines.push(`reset ${reason}`),
    onCaughtUp: () => lines.push('caughtUp'),
  };
  const sub = new TabSubscription(1, 'r', handlers, (listener) => listener());
  return { sub, lines, hear: (message) => sub.hear({ n: 1, ...message } as ToTab & { n: number }) };
}
const value = (key: string, data: unknown): Record<string, unknown> => ({ t: 'value', key, event: { specversion: '1.0', id: 'v', source: 's', type: 't', data }, live: true });

describe('a subscription of a tab', () => {
  it('tells a value once, and what other rights show of it', () => {
    const { lines, hear } = make();
    for (const data of [1, 1, 2]) hear(value('k', data));
    expect(lines).toEqual(['k=1', 'k=2']);
  });

  it('goes on at another hub where it was, and from the beginning where it was starting over', () => {
    const { sub, lines, hear } = make();
    expect(sub.begin()).toEqual({ t: 'sub', n: 1, room: 'r', history: 7, presence: false });
    hear(value('k', 1));
    hear({ t: 'caughtUp', cursor: 'c1' });
    expect(sub.begin()).toMatchObject({ from: 'c1', values: [{ data: 1 }] });
    hear({ t: 'reset', reset: { recovery: 'incomplete', reason: 'too_far' } });
    hear(value('k', 2));
    expect(sub.begin()).toEqual({ t: 'sub', n: 1, room: 'r', history: 7, presence: false });
    expect(lines).toEqual(['k=1', 'caughtUp', 'reset too_far', 'k=2']);
  });

  it('of another user has nothing', () => {
    const { sub, lines, hear } = make();
    for (const key of ['a', 'b']) hear(value(key, 1));
    hear({ t: 'caughtUp', cursor: 'c1' });
    sub.forget();
    expect(lines.slice(3)).toEqual(['a=withdrawn', 'b=withdrawn', 'reset user']);
    expect([sub.values.size, sub.cursor, sub.stood]).toEqual([0, undefined, false]);
  });

  it('of another user that subscribes anew is told of it once', () => {
    const rooms = new TabRooms(() => undefined, (listener) => listener());
    let resets = 0;
    const follow = (n: number): void => {
      const subscription = rooms.subscribe(n, 'r', {
        onReset: () => {
          resets += 1;
          if (resets < 5) follow(n + 1);
          subscription.unsubscribe();
        },
      });
    };
    follow(1);
    rooms.forget();
    expect(resets).toBe(1);
  });
});
