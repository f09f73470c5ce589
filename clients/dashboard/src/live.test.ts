import { RoomcastError, type CloudEvent, type RoomHandlers, type StateChange } from 'roomcast';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Format } from './format.js';
import { Live } from './live.js';
import { readPage } from './page.js';

interface Followed {
  readonly room: string;
  readonly say: RoomHandlers;
  readonly state: Map<string, CloudEvent>;
  isOver: boolean;
}

const followed: Followed[] = [];

vi.mock('./live-worker.js', () => ({ liveWorker: () => undefined }));
vi.mock(import('roomcast'), async (original) => ({
  ...(await original()),
  sharedClient: (() => ({
    connection: { status: 'live' },
    connect: () => undefined,
    close: () => undefined,
    serverNow: () => Date.now(),
    onConnection: () => () => undefined,
    onNotification: () => () => undefined,
    request: () => new Promise(() => undefined),
    subscribe: (room: string, say: RoomHandlers) => {
      const one: Followed = { room, say, state: new Map(), isOver: false };
      followed.push(one);
      return { room, state: one.state, cursor: undefined, unsubscribe: () => (one.isOver = true) };
    },
  })) as never,
}));

const PAGE = readPage({
  title: 'T',
  timezone: 'UTC',
  metrics: 'numbers',
  events: { 'a:new': { title: '{data.id}' }, 'a:done': { title: '{data.id}' } },
  views: [{ id: 'v', label: 'V', cards: [{ metric: 'sum', label: 'Sum' }], rankings: [{ metric: 'by', label: 'By' }], lists: [{ id: 'l', title: 'L', rooms: ['a', 'b'], key: 'data.id' }] }],
});
const event = (type: string, data: unknown, time = 1): CloudEvent => ({ specversion: '1.0', id: `${type} ${JSON.stringify(data)}`, source: 's', type, time: new Date(time * 1_000).toISOString(), data });
const NEWS = { live: true, recovered: false, from: 'socket' } as const;
const PAST = { live: false, recovered: false, from: 'snapshot' } as const;

/** The room as it is followed now. */
function on(room: string): Followed {
  const open = followed.filter((one) => one.room === room && !one.isOver);
  expect(open, `subscriptions of ${room}`).toHaveLength(1);
  return open[0] as Followed;
}

/** A value of a room: a metric's number, or none any more. */
function value({ say, state }: Followed, key: string, number: string | undefined): void {
  const [metric = '', group] = key.split('/');
  const data = { metric, group: group === undefined ? [] : [group], window: { start: null, end: null }, value: number, previous: null, change: null, change_percent: null, direction: null, sparkline: [], events: 1, as_of: '2026-01-01T00:00:00Z', revision: 1 };
  const update = number === undefined ? undefined : { ...event('metric.updated', data), statekey: key, delivery: 'state' as const };
  if (update === undefined) state.delete(key);
  else state.set(key, update);
  say.onState?.({ key, event: update, gone: update === undefined ? 'withdrawn' : undefined, live: true } as StateChange);
}

describe('the page', () => {
  let live: Live;
  const rows = (): string[] => live.entries('l').now.order.map((id) => `${id} ${live.entries('l').now.byId.get(id)?.type}`);

  beforeEach(() => {
    vi.useFakeTimers();
    followed.length = 0;
    live = new Live(PAGE, new Format(PAGE), 'ada');
    for (const room of ['a', 'b']) {
      on(room).say.onEvent?.(event('a:new', { id: `${room}1` }), PAST);
      on(room).say.onCaughtUp?.();
    }
    expect(rows()).toEqual(['b1 a:new', 'a1 a:new']);
  });
  afterEach(() => {
    live.close();
    vi.useRealTimers();
  });

  it.each([
    ['is not open any more', new RoomcastError('forbidden', 'rights ended'), ['b1 a:new']],
    ['is away', new RoomcastError('unavailable', 'later', { temporary: true }), ['b1 a:new', 'a1 a:new']],
    ['waits for a sign-in', new RoomcastError('expired', 'ended'), ['b1 a:new', 'a1 a:new']],
  ])('of a room that %s shows the rows that it may', (_, error, expected) => {
    live.opened.update(() => ({ list: 'l', id: 'a1' }));
    on('a').say.onError?.(error);
    expect(rows()).toEqual(expected);
    expect(live.opened.now?.id).toBe(expected.length === 2 ? 'a1' : undefined);
  });

  it('follows a room that starts over anew, and its rows are what came then', () => {
    const before = on('a');
    on('a').say.onEvent?.(event('a:new', { id: 'gone' }), NEWS);
    before.say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    expect(before.isOver).toBe(true);
    expect(rows(), 'what was there stays until something comes').toEqual(['gone a:new', 'b1 a:new', 'a1 a:new']);
    on('a').say.onEvent?.(event('a:new', { id: 'a1' }), PAST);
    on('a').say.onEvent?.(event('a:done', { id: 'a1' }, 2), PAST);
    expect(rows(), 'and until all of it is there').toEqual(['gone a:new', 'b1 a:new', 'a1 a:new']);
    on('a').say.onCaughtUp?.();
    expect(rows().sort()).toEqual(['a1 a:done', 'b1 a:new']);
    on('b').say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    on('b').say.onEvent?.(event('a:new', { id: 'b2' }), PAST);
    on('b').say.onEvent?.(event('a:new', { id: 'b3' }, 2), NEWS);
    expect(rows().sort(), 'news wait for nothing').toEqual(['a1 a:done', 'b2 a:new', 'b3 a:new']);
  });

  it('keeps the rows of a room that has no past to tell', () => {
    on('b').say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    on('b').say.onEvent?.(event('a:new', { id: 'b2' }), NEWS);
    on('b').say.onCaughtUp?.();
    expect(rows().sort()).toEqual(['a1 a:new', 'b1 a:new', 'b2 a:new']);
  });

  it.each([[undefined, 5_000], [2_000, 2_000]])('asks again for a past that did not come; the server says after %s ms', (retryAfterMs, after) => {
    on('a').say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    const failed = on('a');
    failed.say.onError?.(new RoomcastError('unavailable', 'later', { temporary: true, retryAfterMs }));
    failed.say.onCaughtUp?.();
    expect(rows()).toEqual(['b1 a:new', 'a1 a:new']);
    vi.advanceTimersByTime(after - 1);
    expect(on('a')).toBe(failed);
    vi.advanceTimersByTime(1);
    on('a').say.onEvent?.(event('a:new', { id: 'a2' }), PAST);
    on('a').say.onCaughtUp?.();
    expect(rows().sort()).toEqual(['a2 a:new', 'b1 a:new']);
    const whole = on('a');
    whole.say.onError?.(new RoomcastError('unavailable', 'later', { temporary: true }));
    on('b').say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    const last = on('b');
    last.say.onError?.(new RoomcastError('unavailable', 'later', { temporary: true }));
    live.close();
    vi.advanceTimersByTime(60_000);
    expect([on('a'), on('b')], 'neither where all is there nor when the page is gone').toEqual([whole, last]);
  });

  it.each([['has it as well', 'a1', 'a1'], ['has it no more', 'a2', undefined]])('the sheet of a row stays open where what came then %s', (_, id, expected) => {
    live.opened.update(() => ({ list: 'l', id: 'a1' }));
    on('a').say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    on('a').say.onEvent?.(event('a:new', { id }), PAST);
    expect(rows(), 'until all of it is there').toContain('a1 a:new');
    on('a').say.onCaughtUp?.();
    expect(live.opened.now?.id).toBe(expected);
  });

  it('keeps nothing for somebody else', () => {
    on('a').say.onReset?.({ recovery: 'fresh', reason: 'user' });
    expect(rows()).toEqual(['b1 a:new']);
  });

  it('knows of numbers and groups that ended while the room was away', () => {
    const numbers = on('numbers');
    for (const key of ['sum', 'by/x', 'by/y']) value(numbers, key, '1');
    numbers.say.onReset?.({ recovery: 'incomplete', reason: 'expired' });
    expect(on('numbers'), 'a room without rows goes on').toBe(numbers);
    numbers.state.clear();
    value(numbers, 'by/y', '2');
    numbers.say.onCaughtUp?.();
    const { values, groups } = live.metrics.now;
    expect([[...values.keys()], [...(groups.get('by')?.keys() ?? [])]]).toEqual([[], ['y']]);
  });
});
