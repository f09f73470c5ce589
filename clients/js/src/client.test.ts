import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Subscription } from './api.js';
import { Client, type ClientOptions } from './client.js';
import type { RoomcastError } from './error.js';
import { goOn } from './missed.js';
import { HELD_MAX } from './room.js';
import { event, fakeFetch, FakeSocket, settle } from './testing/fakes.js';

const clients: Client[] = [];

function client(options: ClientOptions = {}): Client {
  const made = new Client({ url: 'http://gateway', token: 'T', webSocket: FakeSocket, transports: ['websocket'], random: () => 0.5, fetch: fakeFetch({}).fetch, onProblem: () => undefined, ...options });
  clients.push(made);
  return made;
}

/** Listens and writes down what comes. */
function log(to: Client, room: string, history = 0): { lines: string[]; errors: RoomcastError[]; subscription: Subscription } {
  const lines: string[] = [];
  const errors: RoomcastError[] = [];
  const subscription = to.subscribe(room, {
    history,
    onEvent: (event, { live, recovered }) => lines.push(`${event.id}${live ? ' live' : ''}${recovered ? ' recovered' : ''}`),
    onState: ({ key, event, gone }) => lines.push(`${key}=${event?.id ?? gone}`),
    onCaughtUp: () => lines.push('caughtUp'),
    onReset: ({ recovery, reason }) => lines.push(`reset ${recovery}${reason === undefined ? '' : ` ${reason}`}`),
    onError: (error) => errors.push(error),
  });
  return { lines, errors, subscription };
}

const frame = (id: string, cursor: string, more = {}): unknown => ({ event: { room: 'r', cursor, event: event(id, more) } });
const caughtUp = (cursor: string): unknown => ({ caughtUp: { room: 'r', cursor } });
const joined = (recovery: string, more = {}): unknown => ({ room: 'r', recovery, ...more });

async function open(): Promise<FakeSocket> {
  await settle();
  FakeSocket.last.open();
  await settle();
  return FakeSocket.last;
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
});
afterEach(() => {
  for (const made of clients.splice(0)) made.close();
  vi.useRealTimers();
});

describe('client', () => {
  it('sends connect first, with token, name and rooms', async () => {
    const c = client();
    log(c, 'r');
    c.connect();
    const socket = await open();
    expect(socket.url).toBe('ws://gateway/v1/ws');
    expect(socket.protocols).toEqual(['roomcast.v1.json']);
    expect(socket.sent).toEqual([{ id: 1, connect: { token: 'T', client: 'roomcast-js/0.1.0', rooms: [{ room: 'r' }] } }]);
  });

  it('shows history first, goes on from its cursor, and calls nothing news before it has caught up', async () => {
    const { fetch } = fakeFetch({ r: { cursor: 'c5', state: [event('v1', { statekey: 'k', delivery: 'state' })], events: [event('4'), event('5')] } });
    const c = client({ fetch });
    const { lines } = log(c, 'r', 50);
    c.connect();
    const socket = await open();
    expect(socket.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r', cursor: 'c5' }]);
    socket.connected([joined('complete')]);
    socket.say(frame('5', 'c5'));
    socket.say(frame('6', 'c6'));
    socket.say(caughtUp('c6'));
    socket.say(frame('7', 'c7'));
    expect(lines).toEqual(['k=v1', '4', '5', '6 recovered', 'caughtUp', '7 live']);
    expect(c.counters.duplicates).toBe(1);
  });

  it('resumes with the last cursor, and says what it missed once and in order', async () => {
    const c = client();
    const { lines } = log(c, 'r');
    c.connect();
    const first = await open();
    first.connected([joined('fresh')]);
    first.say(caughtUp('c1'));
    first.say(frame('2', 'c2'));
    first.end(1006);
    expect(c.connection.status).toBe('waiting');
    await vi.advanceTimersByTimeAsync(1_000);
    const second = await open();
    expect(second).not.toBe(first);
    expect(second.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r', cursor: 'c2' }]);
    second.connected([joined('complete')]);
    second.say(frame('2', 'c2'));
    second.say(frame('3', 'c3'));
    second.say(frame('4', 'c4'));
    second.say(caughtUp('c4'));
    second.say(frame('5', 'c5'));
    expect(lines).toEqual(['caughtUp', '2 live', '3 live recovered', '4 live recovered', 'caughtUp', '5 live']);
  });

  it('does not move its cursor inside a recovery that breaks, and shows nothing twice afterwards', async () => {
    const c = client();
    const { lines } = log(c, 'r');
    c.connect();
    let socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c1'));
    for (const broken of [true, false]) {
      socket.end(1006);
      await vi.advanceTimersByTimeAsync(5_000);
      socket = await open();
      expect(socket.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r', cursor: 'c1' }]);
      socket.connected([joined('complete')]);
      socket.say(frame('2', 'c2'));
      socket.say(frame('3', 'c3'));
      if (!broken) socket.say(caughtUp('c3'));
    }
    expect(lines).toEqual(['caughtUp', '2 live recovered', '3 live recovered', 'caughtUp']);
  });

  it('forgets state and loads history again when the server says incomplete', async () => {
    const rooms = { r: { cursor: 'c1', state: [event('v1', { statekey: 'k', delivery: 'state' })], events: [event('1')] } };
    const c = client({ fetch: fakeFetch(rooms).fetch });
    const { lines } = log(c, 'r', 50);
    c.connect();
    const first = await open();
    first.connected([joined('complete')]);
    first.say(caughtUp('c1'));
    first.end(4005);
    rooms.r = { cursor: 'c9', state: [], events: [event('1'), event('8'), event('9')] };
    await vi.advanceTimersByTimeAsync(1_000);
    const second = await open();
    second.connected([joined('incomplete', { reason: 'too_far' })]);
    second.say(frame('9', 'c9'));
    second.say(frame('v2', 'c9', { statekey: 'k', delivery: 'state' }));
    second.say(caughtUp('c9'));
    await settle();
    expect(lines).toEqual(['k=v1', '1', 'caughtUp', 'reset incomplete too_far', 'k=v2', '8', '9', 'caughtUp']);
  });

  it('subscribes to rooms that are opened later, and leaves with the last listener', async () => {
    const c = client();
    c.connect();
    const socket = await open();
    socket.connected([]);
    const lines: string[] = [];
    const one = c.subscribe('r', { history: 0, onEvent: ({ id }) => lines.push(`one ${id}`) });
    const two = c.subscribe('r', { history: 0, onEvent: ({ id }) => lines.push(`two ${id}`) });
    await settle();
    expect(socket.sentOf('subscribe')).toEqual([{ room: 'r' }]);
    socket.say({ id: socket.sent.at(-1)?.['id'], subscribed: { room: 'r', cursor: 'c0', recovery: 'fresh' } });
    socket.say(caughtUp('c0'));
    socket.say(frame('1', 'c1'));
    one.unsubscribe();
    socket.say(frame('2', 'c2'));
    expect(socket.sentOf('unsubscribe')).toEqual([]);
    two.unsubscribe();
    expect(socket.sentOf('unsubscribe')).toEqual([{ room: 'r' }]);
    socket.say(frame('3', 'c3'));
    expect(lines).toEqual(['one 1', 'two 1', 'two 2']);
    expect(c.counters.unheard).toBe(1);
  });

  it('keeps the state of rooms the server opens by itself for whoever comes later', async () => {
    const c = client();
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(frame('v1', 'c1', { statekey: 'k', delivery: 'state' }));
    socket.say(caughtUp('c1'));
    const { lines } = log(c, 'r');
    expect(lines).toEqual([]);
    await settle();
    expect(lines).toEqual(['k=v1', 'caughtUp']);
    expect(socket.sentOf('subscribe')).toEqual([]);
  });

  it('a refused room says so once and the others go on', async () => {
    const c = client();
    const { errors } = log(c, 'secret');
    const { lines } = log(c, 'r');
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh'), { room: 'secret', error: { code: 'forbidden', message: 'no', temporary: false } }]);
    socket.say(caughtUp('c0'));
    socket.say(frame('1', 'c1'));
    expect(errors.map(({ code, temporary }) => [code, temporary])).toEqual([['forbidden', false]]);
    expect(lines).toEqual(['caughtUp', '1 live']);
  });

  it('asks again for a room that was refused for a passing reason', async () => {
    const c = client();
    log(c, 'r');
    c.connect();
    const socket = await open();
    socket.connected([{ room: 'r', error: { code: 'unavailable', message: '', temporary: true, retryAfterMs: 700 } }]);
    expect(socket.sentOf('subscribe')).toEqual([]);
    await vi.advanceTimersByTimeAsync(700);
    expect(socket.sentOf('subscribe')).toEqual([{ room: 'r' }]);
  });

  it('drops what a closed room showed', async () => {
    const c = client();
    const { lines, errors } = log(c, 'r');
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(frame('v1', 'c1', { statekey: 'k', delivery: 'state' }));
    socket.say(caughtUp('c1'));
    socket.say({ unsubscribed: { room: 'r', code: 'forbidden', reason: 'rights ended' } });
    expect(lines).toEqual(['k=v1', 'caughtUp', 'k=withdrawn']);
    expect(errors[0]?.message).toBe('rights ended');
  });

  it('survives everything that is not a frame, counted', async () => {
    const c = client();
    const { lines } = log(c, 'r');
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c0'));
    for (const bad of ['', '{', '[]', '{"event":{}}', '{"caughtUp":{"room":"r"}}']) socket.say(bad);
    socket.say({ hologram: { room: 'r' } });
    for (const thinned of [{ state: 3, ephemeral: 2 }, { state: 'many' }]) socket.say({ thinned });
    socket.say(frame('1', 'c1', { futureattribute: [1, { two: 3 }] }));
    expect(lines).toEqual(['caughtUp', '1 live']);
    expect(c.counters).toMatchObject({ malformed: 5, unknown: 1, thinned: 5 });
    expect(c.connection.status).toBe('live');
  });

  it('a listener that throws hurts nobody else', async () => {
    const c = client();
    c.subscribe('r', { history: 0, onEvent: () => { throw new Error('mine'); } });
    const { lines } = log(c, 'r');
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c0'));
    socket.say(frame('1', 'c1'));
    expect(lines).toEqual(['caughtUp', '1 live']);
    expect(c.counters.listenerErrors).toBe(1);
  });

  it('asks the callback for a new token after 4003 and refreshes before the end', async () => {
    const reasons: string[] = [];
    const c = client({ token: (reason) => { reasons.push(reason); return `T${reasons.length}`; } });
    c.connect();
    const first = await open();
    first.connected([]);
    first.say({ expiring: { expiresAt: 'soon' } });
    await settle();
    expect(first.sentOf('refresh')).toEqual([{ token: 'T2' }]);
    first.say({ disconnect: { code: 4003, reason: 'expired', reconnect: true } });
    await vi.advanceTimersByTimeAsync(1_000);
    const second = await open();
    expect(second.sentOf('connect')[0]?.['token']).toBe('T3');
    expect(reasons).toEqual(['connect', 'expiring', 'expired']);
  });

  it('stops with an error when the token that expired is all there is', async () => {
    const c = client({ token: () => 'T' });
    c.connect();
    (await open()).say({ disconnect: { code: 4003, reason: 'expired', reconnect: true } });
    await vi.advanceTimersByTimeAsync(1_000);
    await vi.advanceTimersByTimeAsync(1_000);
    await open();
    expect(c.connection).toMatchObject({ status: 'closed', error: { code: 'expired' } });
  });

  it('without a token it never connects, and does after a sign-in', async () => {
    let token: string | null = null;
    const c = client({ token: () => token });
    c.connect();
    const socket = await open();
    expect(socket.sent).toEqual([]);
    expect(c.connection).toMatchObject({ status: 'closed', error: { code: 'no_token' } });
    token = 'T';
    c.connect();
    expect((await open()).sentOf('connect')[0]?.['token']).toBe('T');
  });

  it('pongs, and reconnects when pings stay away', async () => {
    const c = client();
    c.connect();
    const socket = await open();
    socket.connected([]);
    socket.say({ ping: {} });
    expect(socket.sentOf('pong')).toEqual([{}]);
    await vi.advanceTimersByTimeAsync(39_999);
    expect(c.connection.status).toBe('live');
    await vi.advanceTimersByTimeAsync(1);
    expect(socket.closedWith).toBe(4900);
    expect(c.connection.status).toBe('waiting');
  });

  it('a socket that was given up is not heard any more', async () => {
    const c = client();
    const { lines } = log(c, 'r');
    c.connect();
    const old = await open();
    old.connected([joined('fresh')]);
    old.say(caughtUp('c0'));
    c.pause();
    old.say(frame('1', 'c1'));
    old.end(4500);
    expect(c.connection.status).toBe('paused');
    c.resume();
    const socket = await open();
    expect(socket.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r', cursor: 'c0' }]);
    socket.connected([joined('complete')]);
    socket.say(frame('1', 'c1'));
    socket.say(caughtUp('c1'));
    expect(lines).toEqual(['caughtUp', '1 live recovered', 'caughtUp']);
  });

  it('connects without history when that does not come, and gets it afterwards without a hole', async () => {
    let answer: ((response: Response) => void) | undefined;
    let calls = 0;
    const slow = ((_: unknown, init: RequestInit) => {
      calls += 1;
      return new Promise<Response>((resolve, reject) => {
        answer = resolve;
        init.signal?.addEventListener('abort', () => reject(new Error('aborted')));
      });
    }) as typeof fetch;
    const c = client({ fetch: slow });
    const { lines } = log(c, 'r', 50);
    c.connect();
    await settle();
    FakeSocket.last.open();
    await vi.advanceTimersByTimeAsync(3_000);
    const socket = FakeSocket.last;
    expect(socket.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r' }]);
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c7'));
    socket.say(frame('8', 'c8'));
    expect(lines).toEqual([]);
    await settle();
    expect(calls).toBe(2);
    answer?.(Response.json({ room: 'r', cursor: 'c8', state: [], events: [event('7'), event('8')] }));
    await settle();
    await vi.advanceTimersByTimeAsync(0);
    expect(lines).toEqual(['7', '8', 'caughtUp']);
    expect(c.rooms()[0]).toMatchObject({ cursor: 'c8', caughtUp: true });
  });

  it('expired events are not shown and expired state goes by itself, by the server\'s clock', async () => {
    const c = client();
    const { lines } = log(c, 'r');
    c.connect();
    const socket = await open();
    const server = Date.now() + 3_600_000;
    const at = (ms: number): string => new Date(server + ms).toISOString();
    socket.connected([joined('fresh')], { serverTime: new Date(server).toISOString() });
    socket.say(caughtUp('c0'));
    socket.say(frame('old', 'c1', { expirytime: at(-1) }));
    socket.say(frame('v', 'c2', { statekey: 'k', delivery: 'state', expirytime: at(2_000) }));
    await vi.advanceTimersByTimeAsync(1_999);
    expect(lines).toEqual(['caughtUp', 'k=v']);
    await vi.advanceTimersByTimeAsync(1);
    expect(lines).toEqual(['caughtUp', 'k=v', 'k=expired']);
    expect(c.counters.expired).toBe(1);
  });

  it('ends a refused history without holding back news', async () => {
    const c = client();
    const { lines, errors } = log(c, 'r', 50);
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c0'));
    socket.say(frame('1', 'c1'));
    expect(errors.map(({ code }) => code)).toEqual(['forbidden']);
    expect(lines).toEqual(['caughtUp', '1 live']);
  });

  it('says to those who wait for it that a history does not come, and goes on with news', async () => {
    const c = client({ fetch: (async () => Response.json({ code: 'unavailable', detail: 'later', retryAfterMs: 7_000 }, { status: 503 })) as typeof fetch });
    const [waits, without] = [log(c, 'r', 50), log(c, 'r')];
    c.connect();
    const socket = await open();
    expect(waits.errors, 'without a connection the next one asks again').toEqual([]);
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c0'));
    await settle();
    socket.say(frame('1', 'c1'));
    expect(waits.errors).toMatchObject([{ code: 'unavailable', temporary: true, retryAfterMs: 7_000 }]);
    expect(without.errors).toEqual([]);
    expect([waits.lines, without.lines]).toEqual([['caughtUp', '1 live'], ['caughtUp', '1 live']]);
  });

  it('who subscribes anew when the room starts over is told of it once', async () => {
    const c = client();
    let resets = 0;
    const follow = (): void => {
      const subscription = c.subscribe('r', {
        history: 0,
        onReset: () => {
          resets += 1;
          if (resets < 5) follow();
          subscription.unsubscribe();
        },
      });
    };
    follow();
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c0'));
    socket.connected([joined('incomplete')]);
    expect(resets).toBe(1);
  });

  it('says what is missing where there is no WebSocket', async () => {
    vi.stubGlobal('WebSocket', undefined);
    const bare = new Client({ url: 'http://gateway', token: 'T', transports: ['websocket'] });
    bare.connect();
    await settle();
    expect(bare.connection).toMatchObject({ status: 'closed', error: { code: 'unsupported' } });
    vi.unstubAllGlobals();
  });

  it('held back it gets nothing, the server nothing to send, and everything comes in order afterwards', async () => {
    const c = client();
    const lines: string[] = [];
    const one = c.subscribe('r', { history: 0, onEvent: ({ id }, { live }) => lines.push(`${id}${live ? ' live' : ''}`), onState: ({ key, event }) => lines.push(`${key}=${event?.id}`) });
    const two = c.subscribe('r', { history: 0, onEvent: ({ id }) => lines.push(`two ${id}`) });
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(caughtUp('c0'));
    one.hold();
    socket.say(frame('1', 'c1'));
    socket.say(frame('v', 'c1', { statekey: 'k', delivery: 'state' }));
    expect(lines).toEqual(['two 1']);
    expect(socket.sentOf('unsubscribe')).toEqual([]);
    two.hold();
    expect(socket.sentOf('unsubscribe')).toEqual([{ room: 'r' }]);
    socket.say(frame('2', 'c2'));
    one.release();
    expect(lines).toEqual(['two 1', 'k=v', '1 live']);
    expect(socket.sentOf('subscribe')).toEqual([{ room: 'r', cursor: 'c1' }]);
    socket.say({ id: socket.sent.at(-1)?.['id'], subscribed: { room: 'r', recovery: 'complete', cursor: 'c1' } });
    socket.say(frame('2', 'c2'));
    socket.say(caughtUp('c2'));
    two.release();
    expect(lines).toEqual(['two 1', 'k=v', '1 live', '2 live', 'two 2']);
    expect([one.cursor, two.cursor]).toEqual(['c2', 'c2']);
  });

  it('held back over a return that is incomplete it starts over when it is let go, with what holds then', async () => {
    const c = client();
    const { lines, subscription } = log(c, 'r');
    c.connect();
    const first = await open();
    first.connected([joined('fresh')]);
    first.say(frame('v1', 'c1', { statekey: 'k', delivery: 'state' }));
    first.say(frame('w1', 'c1', { statekey: 'gone', delivery: 'state' }));
    first.say(caughtUp('c1'));
    subscription.hold();
    first.end(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    const second = await open();
    second.connected([joined('incomplete', { reason: 'too_far' })]);
    second.say(frame('8', 'c8'));
    second.say(frame('v2', 'c9', { statekey: 'k', delivery: 'state' }));
    second.say(caughtUp('c9'));
    expect(second.sentOf('unsubscribe')).toEqual([{ room: 'r' }]);
    expect(lines).toEqual(['k=v1', 'gone=w1', 'caughtUp']);
    subscription.release();
    expect(lines.splice(3)).toEqual(['reset incomplete too_far', 'k=v2', '8 live recovered', 'caughtUp']);
    expect(second.sentOf('subscribe')).toEqual([{ room: 'r', cursor: 'c9' }]);
  });

  it.each([
    [0, ['reset incomplete held', 'k=v2', 'caughtUp', 'next live']],
    [2, ['reset incomplete held', 'k=v2', 'last but one', 'last', 'caughtUp', 'next live']],
  ])('held back for too long it starts over in a room that goes on, with a history of %i', async (history, after) => {
    const rooms = { r: { cursor: 'c1', events: [] as unknown[] } };
    const c = client({ fetch: fakeFetch(rooms).fetch });
    const { lines, subscription } = log(c, 'r', history);
    c.subscribe('r', { history: 0 });
    c.connect();
    const socket = await open();
    socket.connected([joined(history === 0 ? 'fresh' : 'complete')]);
    socket.say(frame('v1', 'c1', { statekey: 'k', delivery: 'state' }));
    socket.say(caughtUp('c1'));
    lines.length = 0;
    subscription.hold();
    for (let n = 0; n < HELD_MAX; n += 1) socket.say(frame(String(n), `n${n}`));
    for (const id of ['last but one', 'last']) socket.say(frame(id, id));
    socket.say(frame('v2', 'c2', { statekey: 'k', delivery: 'state' }));
    rooms.r = { cursor: 'c2', events: [event('last but one'), event('last')] };
    subscription.release();
    await settle();
    socket.say(frame('next', 'c3'));
    expect(lines).toEqual(after);
  });

  it('what other rights show of a value takes its place', async () => {
    const c = client();
    const seen: unknown[] = [];
    c.subscribe('r', { history: 0, onState: ({ event }) => seen.push(event?.data) });
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    for (const data of [{ name: 'Ada', salary: 1 }, { name: 'Ada' }, { name: 'Ada' }]) socket.say(frame('v', 'c1', { statekey: 'k', delivery: 'state', data }));
    expect(seen).toEqual([{ name: 'Ada', salary: 1 }, { name: 'Ada' }]);
  });

  it('a token that was renewed is not called expired because its first attempt failed for another reason', async () => {
    let token = 'T1';
    const c = client({ token: () => token });
    c.connect();
    (await open()).say({ disconnect: { code: 4003, reason: 'expired', reconnect: true } });
    token = 'T2';
    await vi.advanceTimersByTimeAsync(1_000);
    const second = await open();
    expect(second.sentOf('connect')[0]?.['token']).toBe('T2');
    second.end(4005);
    await vi.advanceTimersByTimeAsync(2_000);
    const third = await open();
    expect(third.sentOf('connect')[0]?.['token']).toBe('T2');
    third.connected([]);
    expect(c.connection.status).toBe('live');
  });

  it('goes on from a cursor that is too old with the values of the room as it is', async () => {
    const polls = (async () => Response.json({ rooms: [joined('incomplete', { reason: 'expired' })], frames: [], cursor: 'c2', more: false })) as typeof fetch;
    const c = client({ fetch: polls });
    const lines: string[] = [];
    c.subscribe('r', { history: 0, from: goOn('old'), onState: ({ key, event }) => lines.push(`${key}=${event?.id}`), onReset: ({ reason }) => lines.push(`reset ${reason}`), onCaughtUp: () => lines.push('caughtUp') });
    c.connect();
    const socket = await open();
    socket.connected([joined('fresh')]);
    socket.say(frame('v', 'c2', { statekey: 'k', delivery: 'state' }));
    socket.say(caughtUp('c2'));
    await settle();
    expect(lines).toEqual(['k=v', 'reset expired', 'k=v', 'caughtUp']);
  });

  it('goes on from a cursor: what was missed since comes as news, once, before what follows', async () => {
    const calls: string[] = [];
    const polls = (async (url: string) => {
      calls.push(new URL(url).search);
      const isFirst = new URL(url).searchParams.get('cursor') === 'old';
      return Response.json({ rooms: [joined('complete')], frames: isFirst ? [frame('1', 'c1')] : [frame('2', 'c2'), frame('3', 'c3')], cursor: 'c3', more: isFirst });
    }) as typeof fetch;
    const c = client({ fetch: polls });
    const lines: string[] = [];
    c.subscribe('r', { from: goOn('old'), onEvent: ({ id }, { live }) => lines.push(`${id} ${live}`), onState: ({ key, event }) => lines.push(`${key}=${event?.id}`), onCaughtUp: () => lines.push('caughtUp') });
    c.connect();
    const socket = await open();
    // The room begins afresh: its state is needed whole.
    expect(socket.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r' }]);
    socket.connected([joined('fresh')]);
    socket.say(frame('v', 'c2', { statekey: 'k', delivery: 'state' }));
    expect(calls).toEqual([]);
    socket.say(caughtUp('c2'));
    socket.say(frame('3', 'c3'));
    await settle();
    socket.say(frame('4', 'c4'));
    expect(calls).toEqual(['?room=r&cursor=old&room=r&cursor=old&wait=0', '?room=r&cursor=c1&room=r&cursor=c1&wait=0']);
    expect(lines).toEqual(['k=v', '1 true', '2 true', '3 true', 'caughtUp', '4 true']);
  });
});
