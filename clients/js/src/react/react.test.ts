// @vitest-environment happy-dom
import { act, createElement, StrictMode, type ReactNode } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Client } from '../client.js';
import type { CloudEvent, EventMap } from '../event.js';
import { event, fakeFetch, FakeSocket, settle } from '../testing/fakes.js';
import { RoomcastProvider, useActivity, useCommand, useConnection, useEvents, useMetric, useNotifications, usePresence, useRoom, useSeries } from './index.js';

/** Renders by component name; StrictMode is off where it is counted. */
const renders: Record<string, number> = {};
const seen: Record<string, unknown> = {};
let root: Root | undefined;
let client: Client;

function count(name: string, value?: unknown): void {
  renders[name] = (renders[name] ?? 0) + 1;
  seen[name] = value;
}

const update = (metric: string, value: string, more = {}): Record<string, unknown> =>
  event(`${metric}-${value}`, { type: 'metric.updated', statekey: metric, delivery: 'state', data: { metric, group: [], window: { start: '2026-01-01T00:00:00Z', end: null }, value, sparkline: [null, '1'], events: 1, as_of: 'now', revision: Number(value), ...more } });
const push = (room: string, cursor: string, body: Record<string, unknown>): unknown => ({ event: { room, cursor, event: body } });

async function show(node: ReactNode): Promise<void> {
  await act(async () => {
    root = createRoot(document.createElement('div'));
    root.render(createElement(RoomcastProvider, { client }, node));
  });
}
/** The gateway speaks; a frame goes by. */
async function say(...frames: unknown[]): Promise<void> {
  await act(async () => {
    for (const frame of frames) FakeSocket.last.say(frame);
    await settle();
    await vi.advanceTimersByTimeAsync(300);
  });
}
async function live(rooms: string[]): Promise<void> {
  await act(async () => {
    client.connect();
    await settle();
    FakeSocket.last.open();
    await settle();
    await vi.advanceTimersByTimeAsync(0);
  });
  await act(async () => {
    FakeSocket.last.connected(rooms.map((room) => ({ room, recovery: 'complete' })));
    for (const room of rooms) FakeSocket.last.say({ caughtUp: { room, cursor: 'c1' } });
    await settle();
    await vi.advanceTimersByTimeAsync(300);
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
  FakeSocket.all = [];
  for (const name of Object.keys(renders)) delete renders[name];
  const rooms = { numbers: { cursor: 'c1', state: [update('revenue', '5'), update('orders', '2')] }, r: { cursor: 'c1', events: [event('1'), event('2')] } };
  client = new Client({ url: 'http://gateway', token: 'T', webSocket: FakeSocket, transports: ['websocket'], random: () => 0.5, fetch: fakeFetch(rooms).fetch, onProblem: () => undefined });
});
afterEach(async () => {
  await act(async () => root?.unmount());
  root = undefined;
  client.close();
  vi.useRealTimers();
});

describe('hooks', () => {
  it('render once for what changed and not at all for what did not', async () => {
    const Revenue = (): null => (count('revenue', useMetric('numbers', 'revenue')?.value), null);
    const Orders = (): null => (count('orders', useMetric('numbers', 'orders')?.number), null);
    const Status = (): null => (count('status', useConnection((state) => state.status)), null);
    const Keys = (): null => (count('keys', useRoom('numbers', (view) => view.state.size)), null);
    await show([Revenue, Orders, Status, Keys].map((view, key) => createElement(view, { key })));
    await live(['numbers']);
    expect(seen).toMatchObject({ revenue: '5', orders: 2, status: 'live', keys: 2 });
    const before = { ...renders };
    // Three updates of one metric within a frame, a ping, a newer cursor.
    await say(push('numbers', 'c2', update('revenue', '6')), push('numbers', 'c3', update('revenue', '7')), push('numbers', 'c4', update('revenue', '8')), { ping: {} }, { caughtUp: { room: 'numbers', cursor: 'c9' } });
    expect(seen['revenue']).toBe('8');
    expect(renders).toEqual({ ...before, revenue: (before['revenue'] ?? 0) + 1 });
  });

  it('list events, newest first, and tell each one once even in StrictMode', async () => {
    const told: string[] = [];
    const List = (): null => {
      const { events, loaded } = useEvents('r', { limit: 3, onEvent: (one, { live }) => void (live && told.push((one as CloudEvent).id)) });
      count('list', loaded ? events.map((one) => (one as CloudEvent).id) : 'loading');
      return null;
    };
    await show(createElement(StrictMode, null, createElement(List), createElement(List)));
    await live(['r']);
    expect(seen['list']).toEqual(['2', '1']);
    await say(push('r', 'c3', event('3')), push('r', 'c4', event('4')), push('r', 'c4', event('4')));
    expect(seen['list']).toEqual(['4', '3', '2']);
    // Two components listen, each once.
    expect(told.sort()).toEqual(['3', '3', '4', '4']);
    // One subscription carries both.
    expect(client.rooms().find(({ room }) => room === 'r')?.subscriptions).toBe(1);
  });

  it('StrictMode mounts twice and connects once', async () => {
    const View = (): null => (count('view', useConnection().status), null);
    await act(async () => {
      root = createRoot(document.createElement('div'));
      const options = { url: 'http://gateway', token: 'T', webSocket: FakeSocket, transports: ['websocket'] as const };
      root.render(createElement(StrictMode, null, createElement(RoomcastProvider, { options }, createElement(View))));
    });
    await act(async () => vi.advanceTimersByTimeAsync(10));
    expect(FakeSocket.all).toHaveLength(1);
    await act(async () => root?.unmount());
    await vi.advanceTimersByTimeAsync(10);
    expect(FakeSocket.last.closedWith).toBe(1000);
  });

  it('leave their room some time after the last component did', async () => {
    const View = (): null => (count('view', useRoom('r').loaded), null);
    await show(createElement(View));
    await live(['r']);
    await act(async () => root?.render(createElement(RoomcastProvider, { client }, null)));
    await vi.advanceTimersByTimeAsync(4_000);
    expect(FakeSocket.last.sentOf('unsubscribe')).toEqual([]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.last.sentOf('unsubscribe')).toEqual([{ room: 'r' }]);
  });

  it('a command goes from idle over pending to done, and says why it failed', async () => {
    const states: unknown[] = [];
    let run: (data: unknown) => Promise<unknown> = async () => undefined;
    const Button = (): null => {
      const [send, state] = useCommand('delivery:update');
      run = send;
      states.push(state.status === 'failed' ? state.error.code : state.status);
      return null;
    };
    await show(createElement(Button));
    await live([]);
    const ask = async (answer: (id: number) => unknown): Promise<unknown> => {
      let outcome: unknown;
      await act(async () => {
        void run({ id: 7 }).then((result) => (outcome = result), (error: { code: string }) => (outcome = error.code));
        await settle();
      });
      const sent = FakeSocket.last.sent.at(-1) as { id: number; command: Record<string, unknown> };
      expect(sent.command).toMatchObject({ name: 'delivery:update', data: { id: 7 }, timeoutMs: 10_000 });
      await say(answer(sent.id));
      return outcome;
    };
    expect(await ask((id) => ({ id, result: { data: { ok: true } } }))).toEqual({ ok: true });
    expect(await ask((id) => ({ id, error: { code: 'forbidden', message: '', temporary: false } }))).toBe('forbidden');
    expect(states).toEqual(['idle', 'pending', 'done', 'pending', 'forbidden']);
  });

  it('presence follows its room, activity is said once a connection', async () => {
    const View = (): null => {
      useActivity('page', 'customers');
      count('there', usePresence('r').users.map(({ user }) => user));
      return null;
    };
    await show(createElement(View));
    await live(['r']);
    expect(FakeSocket.last.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r', presence: true }]);
    expect(FakeSocket.last.sentOf('subscribe')).toEqual([]);
    expect(FakeSocket.last.sentOf('activity')).toEqual([{ kind: 'page', detail: 'customers' }]);
    await say({ presence: { room: 'r', users: [{ user: 'u1', connections: 2, since: '', status: 'active' }, { nobody: 1 }], total: 1 } });
    expect(seen['there']).toEqual(['u1']);
  });

  it('a series loads its past and goes on live', async () => {
    const answers = fakeFetch({ numbers: { cursor: 'c1' } }).fetch;
    const point = (start: string, value: string): unknown => update('revenue', value, { window: { start, end: null } })['data'];
    client = new Client({
      url: 'http://gateway', token: 'T', webSocket: FakeSocket, transports: ['websocket'], random: () => 0.5, onProblem: () => undefined,
      fetch: ((url: string) => (String(url).includes('/v1/metrics/') ? Promise.resolve(Response.json({ cursor: 'c1', windows: [point('2026-01-01T00:00:00Z', '1'), point('2026-01-02T00:00:00Z', '2')] })) : answers(url))) as typeof fetch,
    });
    const Chart = (): null => (count('chart', useSeries('numbers', 'revenue').windows.map(({ number }) => number)), null);
    await show(createElement(Chart));
    await live(['numbers']);
    await say(push('numbers', 'c2', update('revenue', '5', { window: { start: '2026-01-02T00:00:00Z', end: null } })), push('numbers', 'c3', update('revenue', '9', { window: { start: '2026-01-03T00:00:00Z', end: null } })));
    expect(seen['chart']).toEqual([1, 5, 9]);
  });

  it('the bell renders on a server, where nothing connects', () => {
    const Bell = (): ReactNode => useNotifications().counters.unread;
    const Typed = (): ReactNode => useEvents<EventMap>('r').events.length;
    expect(renderToString(createElement(RoomcastProvider, { client }, createElement(Bell), createElement(Typed)))).toContain('0');
    expect(FakeSocket.all).toHaveLength(0);
  });
});
