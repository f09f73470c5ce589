import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Client } from './client.js';
import { groupNotifications, notifications, type MarkStorage, type NotificationsStore } from './notifications.js';
import { LINGER_MS } from './store.js';
import { event, fakeFetch, FakeSocket, settle } from './testing/fakes.js';

let client: Client;
let bell: NotificationsStore;
let stop: () => void;
const announced: string[] = [];

const note = (id: string, more: Record<string, unknown> = {}): Record<string, unknown> =>
  event(id, { type: 'notification.alert', room: 'notifications', delivery: 'state', statekey: `notification/${id}`, data: { title: id }, priority: 'high', time: `2026-01-01T00:00:0${id.length}Z`, ...more });
const push = (body: Record<string, unknown>, cursor = 'c2'): unknown => ({ event: { room: 'notifications', cursor, event: body } });
const counters = (version: number, unread: number): Record<string, unknown> => ({ version, unread, critical: 0, high: unread, medium: 0, low: 0 });

function make(storage?: MarkStorage): void {
  client = new Client({ url: 'http://gateway', token: 'T', webSocket: FakeSocket, transports: ['websocket'], random: () => 0.5, fetch: fakeFetch({}).fetch, onProblem: () => undefined });
  bell = notifications(client, storage === undefined ? {} : { storage });
  stop = bell.onNew(({ id }) => announced.push(id));
}
/** A connection whose user joins `notifications` by policy. */
async function live(): Promise<void> {
  client.connect();
  await vi.advanceTimersByTimeAsync(2_000);
  FakeSocket.last.open();
  await settle();
  FakeSocket.last.connected([{ room: 'notifications', recovery: client.counters.connects === 0 ? 'fresh' : 'complete' }]);
  await settle();
}
/** The gateway's answer to the latest request of a name. */
async function answer(name: string, body: Record<string, unknown>): Promise<Record<string, any>> {
  const asked = FakeSocket.last.sent.filter((frame) => name in frame).at(-1);
  FakeSocket.last.say({ id: asked?.['id'], ...body });
  await settle();
  return asked?.[name];
}
const feed = (placed: Record<string, unknown>[], marks: unknown[] = [], unread = 0): Record<string, unknown> => ({
  feed: { notifications: placed.map((one) => ({ cursor: 'c', event: one })), counters: counters(1, unread), version: 1, marks },
});
const shown = (): string[] => bell.get().items.map(({ id, mark }) => (mark === undefined ? id : `${id} ${mark}`));

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-01-02T00:00:00Z') });
  FakeSocket.all = [];
  announced.length = 0;
});
afterEach(() => {
  stop();
  client.close();
  vi.useRealTimers();
});

describe('notifications', () => {
  it('show what holds, announce only what is news, and once', async () => {
    make();
    await live();
    FakeSocket.last.say(push(note('a')));
    FakeSocket.last.say({ caughtUp: { room: 'notifications', cursor: 'c2' } });
    await answer('feed', feed([note('bb'), note('a')], [{ id: 'bb', as: 'read' }], 1));
    expect(shown()).toEqual(['bb read', 'a']);
    FakeSocket.last.say(push(note('ccc'), 'c3'));
    FakeSocket.last.say(push(note('ccc'), 'c3'));
    expect(shown()).toEqual(['ccc', 'bb read', 'a']);
    expect(bell.get().counters).toMatchObject({ unread: 2, high: 2 });
    // Missed during a break: told on return, without what was told before.
    FakeSocket.last.end(1006);
    await live();
    FakeSocket.last.say(push(note('ccc'), 'c3'));
    FakeSocket.last.say(push(note('dddd'), 'c4'));
    FakeSocket.last.say({ caughtUp: { room: 'notifications', cursor: 'c4' } });
    expect(announced).toEqual(['ccc', 'dddd']);
  });

  it('one with the same key takes the place of the other; withdrawn and expired ones go', async () => {
    make();
    await live();
    await answer('feed', feed([]));
    FakeSocket.last.say({ caughtUp: { room: 'notifications', cursor: 'c2' } });
    FakeSocket.last.say(push(note('fire', { statekey: 'notification/alert' })));
    FakeSocket.last.say(push(note('resolved', { statekey: 'notification/alert', priority: 'low' })));
    expect(shown()).toEqual(['resolved']);
    FakeSocket.last.say(push(note('brief', { expirytime: '2026-01-02T00:01:00Z' })));
    expect(shown()).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(30_000);
    FakeSocket.last.say({ ping: {} });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(shown()).toEqual(['resolved']);
    FakeSocket.last.say(push({ ...note('gone', { statekey: 'notification/alert', withdrawn: true }) }));
    expect(shown()).toEqual([]);
  });

  it.each([
    ['the right to its room ended', () => FakeSocket.last.say({ unsubscribed: { room: 'notifications', code: 'forbidden', reason: 'rights ended' } }), []],
    [
      'its room came back incomplete',
      () => {
        // A stream begins again within its connection.
        FakeSocket.last.connected([{ room: 'notifications', recovery: 'incomplete', reason: 'too_far' }]);
        FakeSocket.last.say(push(note('bb'), 'c9'));
        expect(shown()).toEqual(['bb', 'a']);
        FakeSocket.last.say({ caughtUp: { room: 'notifications', cursor: 'c9' } });
      },
      ['bb'],
    ],
    [
      'it was withdrawn while no bell was there',
      () => {
        stop();
        vi.advanceTimersByTime(LINGER_MS);
        FakeSocket.last.say(push(note('aa', { statekey: 'notification/a', withdrawn: true }), 'c3'));
        stop = bell.onNew(({ id }) => announced.push(id));
      },
      ['bb'],
    ],
  ] as [string, () => void, string[]][])('one is gone when %s', async (_, happens, left) => {
    make();
    await live();
    FakeSocket.last.say(push(note('a')));
    FakeSocket.last.say(push(note('bb')));
    FakeSocket.last.say({ caughtUp: { room: 'notifications', cursor: 'c2' } });
    await answer('feed', feed([note('bb'), note('a')], [], 2));
    expect(shown()).toEqual(['bb', 'a']);
    happens();
    expect(shown()).toEqual(left);
    expect(bell.get().counters.unread).toBe(left.length);
    expect(announced).toEqual([]);
  });

  it('marks count at once, reach the server when there is one, and what cannot be is taken back', async () => {
    make();
    await live();
    await answer('feed', feed([note('a'), note('bb'), note('ccc')], [], 3));
    bell.mark(['a'], 'read');
    expect(bell.get()).toMatchObject({ counters: { unread: 2 }, pending: 1 });
    await settle();
    expect(await answer('mark', feed([], [], 2))).toEqual({ ids: ['a'], as: 'read' });
    expect(bell.get().pending).toBe(0);
    // Lower than what is known: nothing to say.
    bell.mark(['a'], 'seen');
    expect(FakeSocket.last.sentOf('mark')).toHaveLength(1);
    FakeSocket.last.end(1006);
    bell.markAll('archived');
    expect(bell.get()).toMatchObject({ items: [], counters: { unread: 0 }, pending: 3 });
    await live();
    expect((await answer('mark', { error: { code: 'unavailable', message: '', temporary: true, retryAfterMs: 500 } }))['ids']).toHaveLength(3);
    expect(bell.get().pending).toBe(3);
    await vi.advanceTimersByTimeAsync(500);
    expect(FakeSocket.last.sentOf('mark')).toHaveLength(2);
    await answer('mark', { error: { code: 'forbidden', message: '', temporary: false } });
    expect(shown()).toEqual(['ccc', 'bb', 'a read']);
  });

  it('other counters of the server mean that somebody marked elsewhere', async () => {
    make();
    await live();
    await answer('feed', feed([note('a'), note('bb')], [], 2));
    FakeSocket.last.say({ counters: counters(2, 2) });
    await vi.advanceTimersByTimeAsync(300);
    expect(FakeSocket.last.sentOf('feed')).toHaveLength(1);
    FakeSocket.last.say({ counters: counters(3, 1) });
    FakeSocket.last.say({ counters: counters(2, 5) });
    await vi.advanceTimersByTimeAsync(300);
    expect(FakeSocket.last.sentOf('feed')).toHaveLength(2);
    await answer('feed', feed([note('a'), note('bb')], [{ id: 'a', as: 'archived' }], 1));
    expect(shown()).toEqual(['bb']);
    // Older ones, by a gateway that has heard less: a push always counts, and what an answer says only where it is newer.
    FakeSocket.last.say({ counters: counters(1, 9) });
    await vi.advanceTimersByTimeAsync(300);
    expect(FakeSocket.last.sentOf('feed')).toHaveLength(3);
    await answer('feed', feed([note('a'), note('bb')], [], 9));
    expect(bell.get().counters).toMatchObject({ version: 1, unread: 1 });
  });

  it.each([-3_600_000, 3_600_000])('a browser’s clock that is %i ms off changes no life, no mark and no order', async (off) => {
    const server = Date.now();
    vi.setSystemTime(server + off);
    make();
    client.connect();
    await vi.advanceTimersByTimeAsync(2_000);
    FakeSocket.last.open();
    await settle();
    FakeSocket.last.connected([{ room: 'notifications', recovery: 'fresh' }], { serverTime: new Date(server).toISOString() });
    FakeSocket.last.say({ caughtUp: { room: 'notifications', cursor: 'c1' } });
    await settle();
    const at = (ms: number): string => new Date(server + ms).toISOString();
    await answer('feed', feed([note('later', { time: at(-60_000), expirytime: at(60_000) }), note('ended', { expirytime: at(-1_000) })], [], 1));
    FakeSocket.last.say(push(note('now', { time: at(1_000) })));
    expect(shown()).toEqual(['now', 'later']);
    expect(announced).toEqual(['now']);
    bell.mark(['later'], 'read');
    expect(await answer('mark', feed([], [], 1))).toEqual({ ids: ['later'], as: 'read' });
    expect(shown()).toEqual(['now', 'later read']);
    await vi.advanceTimersByTimeAsync(30_000);
    FakeSocket.last.say({ ping: {} });
    await vi.advanceTimersByTimeAsync(31_000);
    FakeSocket.last.say(push(note('newest', { time: at(2_000) }), 'c3'));
    expect(shown()).toEqual(['newest', 'now']);
  });

  it('marks survive a reload, for their user alone; a blocked storage is like none', async () => {
    const kept = new Map<string, string>();
    const storage: MarkStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value), removeItem: (key) => void kept.delete(key) };
    make(storage);
    await live();
    await answer('feed', feed([note('a')], [], 1));
    FakeSocket.last.end(1006);
    bell.mark(['a'], 'read');
    stop();
    client.close();
    make(storage);
    await live();
    expect(FakeSocket.last.sentOf('mark')).toEqual([{ ids: ['a'], as: 'read' }]);
    await answer('mark', feed([], [], 0));
    expect([...kept.keys()]).toEqual([]);
    stop();
    client.close();
    const blocked = (): never => { throw new Error('blocked'); };
    make({ getItem: blocked, setItem: blocked, removeItem: blocked });
    await live();
    bell.mark(['a'], 'seen');
    await settle();
    expect(FakeSocket.last.sentOf('mark')).toEqual([{ ids: ['a'], as: 'seen' }]);
  });

  it('marks of several tabs are kept beside each other until the server has them, or never will', async () => {
    const kept = new Map<string, string>();
    const storage: MarkStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value), removeItem: (key) => void kept.delete(key) };
    const stored = (): unknown[] => [...kept.values()].flatMap((value) => JSON.parse(value) as unknown[]);
    const tabs: [NotificationsStore, FakeSocket, () => void][] = [];
    for (let n = 0; n < 2; n += 1) {
      make(storage);
      await live();
      await answer('feed', feed([note('a'), note('bb')], [], 2));
      const [own, end] = [client, stop];
      tabs.push([bell, FakeSocket.last, () => (end(), own.close())]);
    }
    for (const [, socket] of tabs) socket.end(1006);
    tabs[0]?.[0].mark(['a'], 'archived');
    tabs[1]?.[0].mark(['bb', 'a'], 'read');
    expect(stored()).toEqual([['a', 'archived'], ['bb', 'read']]);
    for (const [, , close] of tabs) close();
    make(storage);
    await live();
    expect(await answer('mark', feed([], [], 1))).toEqual({ ids: ['a'], as: 'archived' });
    expect(stored()).toEqual([['bb', 'read']]);
    expect(await answer('mark', { error: { code: 'forbidden', message: '', temporary: false } })).toEqual({ ids: ['bb'], as: 'read' });
    expect([...kept.keys()]).toEqual([]);
  });

  it('what makes no sense breaks nothing', async () => {
    make();
    await live();
    await answer('feed', { feed: { notifications: [null, { event: {} }, { event: { id: 'x' } }], marks: [1, { id: 'q', as: 'eaten' }], counters: 7 } });
    FakeSocket.last.say(push(note('a', { data: [], time: 'yesterday', priority: 'urgent' })));
    expect(bell.get().items).toMatchObject([{ id: 'a', title: 'notification.alert', time: 0, priority: 'medium' }]);
  });

  it('groups have counts and the most urgent first', async () => {
    make();
    await live();
    await answer('feed', feed([note('a', { priority: 'low', data: { title: 'x', group: 'bills' } }), note('bb', { priority: 'critical' }), note('ccc')], [{ id: 'ccc', as: 'read' }]));
    expect(groupNotifications(bell.get().items).map(({ name, items, unread, priority }) => [name, items.length, unread, priority])).toEqual([
      ['notification.alert', 2, 1, 'critical'],
      ['bills', 1, 1, 'low'],
    ]);
  });
});
