import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Subscription } from './api.js';
import { Client, type ClientOptions } from './client.js';
import { followQuery } from './follow.js';
import { Lines } from './stream.js';
import { event, FakeSocket, settle } from './testing/fakes.js';

/** A request that the test answers. */
interface Asked {
  readonly url: URL;
  readonly init: RequestInit;
  answer(response: Response): Promise<void>;
  fail(): Promise<void>;
}

let asked: Asked[] = [];
let client: Client;
let subscription: Subscription;
const statuses: string[] = [];
const lines: string[] = [];

const http = ((url: string, init: RequestInit) =>
  new Promise<Response>((resolve, reject) => {
    const one: Asked = {
      url: new URL(url),
      init,
      answer: async (response) => (resolve(response), settle()),
      fail: async () => (reject(new TypeError('fetch failed')), settle()),
    };
    init.signal?.addEventListener('abort', () => reject(new Error('aborted')));
    asked.push(one);
  })) as typeof fetch;

function last(path: string): Asked {
  const one = asked.filter(({ url }) => url.pathname === path).at(-1);
  if (one === undefined) throw new Error(`nothing asked for ${path}`);
  return one;
}
/** A stream that the test writes. */
function stream(): { response: Response; say(...frames: unknown[]): Promise<void>; comment(): Promise<void>; end(): Promise<void> } {
  let out: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array>({ start: (controller) => void (out = controller) });
  const write = async (text: string): Promise<void> => (out?.enqueue(new TextEncoder().encode(text)), settle());
  return {
    response: new Response(body, { headers: { 'content-type': 'text/event-stream' } }),
    say: (...frames) => write(frames.map((frame) => `data: ${JSON.stringify(frame)}\n\n`).join('')),
    comment: () => write(': here\n\n'),
    end: async () => (out?.close(), settle()),
  };
}
function make(options: ClientOptions = {}): void {
  client = new Client({ url: 'http://gateway', token: 'T', webSocket: FakeSocket, random: () => 0.5, fetch: http, onProblem: () => undefined, ...options });
  client.onConnection(({ status, transport }) => {
    const now = `${transport} ${status}`;
    if (statuses.at(-1) !== now) statuses.push(now);
  });
  subscription = client.subscribe('r', { history: 0, onEvent: ({ id }, { live, recovered }) => lines.push(`${id}${live ? ' live' : ''}${recovered ? ' recovered' : ''}`), onError: ({ code }) => lines.push(code) });
  client.connect();
}
const connected = (rooms: unknown[]): unknown => ({ connected: { connection: 'c1', user: 'u1', roles: [], epoch: 'e', pingSeconds: 25, status: 'ok', rooms } });
const joined = { room: 'r', recovery: 'complete', cursor: 'c0' };
const frame = (id: string, cursor: string): unknown => ({ event: { room: 'r', cursor, event: event(id) } });
const caughtUp = (cursor: string): unknown => ({ caughtUp: { room: 'r', cursor } });
async function blocked(): Promise<void> {
  await settle();
  FakeSocket.last.end(1006);
  await settle();
}
async function live(): Promise<ReturnType<typeof stream>> {
  make();
  await blocked();
  const sse = stream();
  await last('/v1/sse').answer(sse.response);
  await sse.say(connected([joined]), caughtUp('c1'));
  return sse;
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
  asked = [];
  statuses.length = lines.length = 0;
});
afterEach(() => {
  client?.close();
  vi.useRealTimers();
});

describe('ways', () => {
  it('a WebSocket that is not let through is followed by a stream at once, and comes back without a hole or a double', async () => {
    const sse = await live();
    expect(statuses).toEqual(['websocket connecting', 'sse connecting', 'sse authenticating', 'sse live']);
    expect(last('/v1/sse').init.headers).toMatchObject({ authorization: 'Bearer T' });
    expect(last('/v1/sse').url.search).toBe('?room=r');
    await sse.say(frame('1', 'c2'));
    // The better way is tried beside it; in vain, and again after a longer pause.
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.all).toHaveLength(2);
    FakeSocket.last.end(1006);
    await vi.advanceTimersByTimeAsync(1_400);
    expect(FakeSocket.all).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(200);
    const socket = FakeSocket.last;
    expect(FakeSocket.all).toHaveLength(3);
    socket.open();
    await settle();
    expect(socket.sentOf('connect')[0]).toMatchObject({ token: 'T', rooms: [{ room: 'r', cursor: 'c2' }] });
    // While it signs in the stream goes on.
    await sse.say(frame('2', 'c3'));
    socket.connected([joined]);
    expect(last('/v1/sse').init.signal?.aborted).toBe(true);
    socket.say(frame('2', 'c3'));
    socket.say(frame('3', 'c4'));
    socket.say(caughtUp('c4'));
    socket.say(frame('4', 'c5'));
    expect(lines).toEqual(['1 live', '2 live', '3 live recovered', '4 live']);
    expect(statuses.slice(3)).toEqual(['sse live', 'websocket live']);
    expect(client.counters.duplicates).toBe(1);
  });

  it('an unreachable gateway is waited for, and the best way comes first again', async () => {
    make();
    await blocked();
    await last('/v1/sse').fail();
    expect(client.connection).toMatchObject({ status: 'waiting', attempt: 1, transport: 'sse' });
    await vi.advanceTimersByTimeAsync(2_000);
    expect(statuses.at(-1)).toBe('websocket connecting');
  });

  it.each([200, 404, 502])('a stream that a proxy spoils with %i is followed by held polls, those by polls', async (status) => {
    make();
    await blocked();
    await last('/v1/sse').answer(new Response('<html>', { status, headers: { 'content-type': 'text/html' } }));
    expect(statuses.at(-1)).toBe('longpoll authenticating');
    const answer = (body: Record<string, unknown>): Promise<void> => last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [], cursor: 'p1', more: false, ...body }));
    // At once, because somebody waits.
    expect(last('/v1/poll').url.searchParams.get('wait')).toBe('0');
    await answer({ frames: [frame('1', 'c1')], cursor: null, more: true });
    expect(statuses.at(-1)).toBe('longpoll live');
    await vi.advanceTimersByTimeAsync(1);
    expect(last('/v1/poll').url.searchParams.getAll('cursor')[0]).toBe('c1');
    await answer({ frames: [frame('2', 'c2')], cursor: 'p2' });
    await vi.advanceTimersByTimeAsync(250);
    expect(last('/v1/poll').url.searchParams.get('wait')).toBe('25');
    expect(last('/v1/poll').url.searchParams.getAll('cursor')[0]).toBe('p2');
    await answer({ frames: [frame('3', 'c3')], cursor: 'p3' });
    expect(lines).toEqual(['1 recovered', '2 recovered', '3 live']);
    await vi.advanceTimersByTimeAsync(250);
    // Cut off by something on the way, because it was held.
    await vi.advanceTimersByTimeAsync(5_000);
    await last('/v1/poll').answer(new Response('', { status: 504 }));
    expect(client.connection).toMatchObject({ transport: 'poll' });
    await answer({ frames: [frame('3', 'c3'), frame('4', 'c4')], cursor: 'p4' });
    const before = asked.length;
    await vi.advanceTimersByTimeAsync(5_999);
    expect(asked.filter(({ url }) => url.pathname === '/v1/poll').length).toBe(asked.slice(0, before).filter(({ url }) => url.pathname === '/v1/poll').length);
    await vi.advanceTimersByTimeAsync(1);
    expect(last('/v1/poll').url.searchParams.get('wait')).toBe('0');
    expect(lines).toEqual(['1 recovered', '2 recovered', '3 live', '4 live recovered']);
  });

  it('polls open and leave rooms, and say what became of them', async () => {
    make({ transports: ['longpoll'] });
    await settle();
    const answer = (rooms: unknown[], more: Record<string, unknown> = {}): Promise<void> => last('/v1/poll').answer(Response.json({ rooms, frames: [], cursor: 'p1', more: false, ...more }));
    await answer([joined]);
    await vi.advanceTimersByTimeAsync(300);
    client.subscribe('s', { history: 0, onEvent: ({ id }) => lines.push(`s ${id}`), onCaughtUp: () => lines.push('s caughtUp'), onError: ({ code }) => lines.push(`s ${code}`) });
    client.subscribe('secret', { history: 0, onError: ({ code }) => lines.push(`secret ${code}`) });
    await settle();
    await vi.advanceTimersByTimeAsync(0);
    const query = last('/v1/poll').url.searchParams;
    expect([query.getAll('room'), query.getAll('cursor'), query.get('wait')]).toEqual([['r', 's', 'secret'], ['p1', '', ''], '0']);
    await answer([joined, { room: 's', recovery: 'fresh', cursor: 'p2' }, { room: 'secret', error: { code: 'forbidden', message: 'no', temporary: false } }], { cursor: 'p2' });
    await vi.advanceTimersByTimeAsync(300);
    expect(last('/v1/poll').url.searchParams.getAll('room')).toEqual(['r', 's']);
    await answer([joined, { room: 's', error: { code: 'forbidden', message: 'rights ended', temporary: false } }], { cursor: 'p3' });
    expect(lines).toEqual(['secret forbidden', 's caughtUp', 's forbidden']);
  });

  it('a stream begins again for a room that is opened later, and where none is open follows what the policy joins', async () => {
    const sse = await live();
    client.subscribe('s', { history: 0, onError: ({ code }) => lines.push(`s ${code}`) });
    client.subscribe('q', { history: 0 });
    await settle();
    await vi.advanceTimersByTimeAsync(20);
    expect(last('/v1/sse').url.searchParams.getAll('room')).toEqual(['r', 's', 'q']);
    expect(last('/v1/sse').url.searchParams.getAll('cursor')).toEqual(['c1', '', '']);
    await sse.say(frame('lost', 'c9'));
    const next = stream();
    await last('/v1/sse').answer(next.response);
    await next.say(connected([joined, { room: 's', error: { code: 'forbidden', message: '', temporary: false } }, { room: 'q', recovery: 'fresh' }]), frame('1', 'c2'), caughtUp('c2'));
    expect(lines).toEqual(['s forbidden', '1 live recovered']);
    client.close();
    lines.length = 0;
    client.connect();
    await blocked();
    await last('/v1/sse').answer(Response.json({ code: 'forbidden', detail: 'no' }, { status: 403 }));
    expect(last('/v1/sse').url.search).toBe('');
    const bare = stream();
    await last('/v1/sse').answer(bare.response);
    await bare.say(connected([{ room: 'user.u1', recovery: 'fresh' }]));
    expect(client.connection.status).toBe('live');
    expect(lines).toContain('forbidden');
  });

  it('a room that was left for a while goes on from where it was left, whatever the stream said of it meanwhile', async () => {
    make({ transports: ['sse'] });
    await settle();
    const sse = stream();
    await last('/v1/sse').answer(sse.response);
    await sse.say(connected([joined]), caughtUp('c1'), frame('1', 'c2'));
    subscription.hold();
    // Nobody hears it, and a minute later the gateway says that nothing is missing.
    await sse.say(frame('2', 'c3'), caughtUp('c4'));
    subscription.release();
    await vi.advanceTimersByTimeAsync(20);
    expect(last('/v1/sse').url.searchParams.getAll('cursor')).toEqual(['c2', 'c2']);
    const next = stream();
    await last('/v1/sse').answer(next.response);
    await next.say(connected([joined]), frame('2', 'c3'), caughtUp('c4'));
    expect(lines).toEqual(['1 live', '2 live recovered']);
  });

  it('a room that is left while a poll is held does not come back with its answer', async () => {
    make({ transports: ['longpoll'] });
    await settle();
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [], cursor: 'p1', more: false }));
    await vi.advanceTimersByTimeAsync(300);
    const held = last('/v1/poll');
    expect(held.url.searchParams.get('wait')).toBe('25');
    subscription.unsubscribe();
    await held.answer(Response.json({ rooms: [joined], frames: [frame('1', 'c1')], cursor: 'p2', more: false }));
    await vi.advanceTimersByTimeAsync(300);
    expect(last('/v1/poll').url.searchParams.getAll('room')).toEqual([]);
    expect(client.rooms()).toEqual([]);
  });

  it('a room that the policy joins is followed while it is held, without polls that are answered at once, and keeps its place', async () => {
    make({ transports: ['longpoll'] });
    await settle();
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [frame('1', 'c1')], cursor: 'p1', more: false }));
    subscription.hold();
    await vi.advanceTimersByTimeAsync(10);
    expect(last('/v1/poll').url.searchParams.getAll('room')).toEqual([]);
    // The policy brings it back, and whatever is fresh is news.
    await last('/v1/poll').answer(Response.json({ rooms: [{ room: 'r', recovery: 'fresh', cursor: 'p2' }], frames: [frame('2', 'p2')], cursor: 'p3', more: false }));
    await vi.advanceTimersByTimeAsync(300);
    expect(last('/v1/poll').url.search).toBe('?room=r&cursor=p3&room=r&cursor=p3&wait=25');
    const polls = asked.length;
    await vi.advanceTimersByTimeAsync(20_000);
    expect(asked.length).toBe(polls);
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [frame('3', 'p4')], cursor: 'p5', more: false }));
    await vi.advanceTimersByTimeAsync(300);
    expect(last('/v1/poll').url.searchParams.getAll('cursor')).toEqual(['p5', 'p5']);
    expect([subscription.cursor, lines]).toEqual(['p1', ['1 recovered']]);
    subscription.release();
    await vi.advanceTimersByTimeAsync(10);
    expect(last('/v1/poll').url.search).toBe('?room=r&cursor=p1&room=r&cursor=p1&wait=0');
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [frame('2', 'p2'), frame('3', 'p4')], cursor: 'p6', more: false }));
    expect(lines).toEqual(['1 recovered', '2 live recovered', '3 live recovered']);
  });

  it('a room that is taken away while it is held is forgotten', async () => {
    make({ transports: ['longpoll'] });
    await settle();
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [], cursor: 'p1', more: false }));
    subscription.hold();
    await vi.advanceTimersByTimeAsync(10);
    await last('/v1/poll').answer(Response.json({ rooms: [{ room: 'r', recovery: 'fresh', cursor: 'p2' }], frames: [], cursor: 'p3', more: false }));
    await vi.advanceTimersByTimeAsync(300);
    await last('/v1/poll').answer(Response.json({ code: 'forbidden' }, { status: 403 }));
    await vi.advanceTimersByTimeAsync(300);
    expect(last('/v1/poll').url.searchParams.getAll('room')).toEqual([]);
    subscription.release();
    expect(lines).toEqual(['forbidden']);
  });

  it.each([
    ['503 with a hint', () => Response.json({ code: 'unavailable', retryAfterMs: 900 }, { status: 503 }), { status: 'waiting', attempt: 1 }],
    ['429 with Retry-After', () => new Response('', { status: 429, headers: { 'retry-after': '7' } }), { status: 'waiting', error: { code: 'rate' } }],
    ['401 expired', () => Response.json({ code: 'expired' }, { status: 401 }), { status: 'waiting', renew: 'wanted' }],
    ['401', () => Response.json({ code: 'unauthenticated' }, { status: 401 }), { status: 'closed', error: { code: 'unauthenticated' } }],
    ['404', () => new Response('', { status: 404 }), { status: 'authenticating', transport: 'longpoll' }],
  ])('an answer of %s', async (_, response, state: Record<string, unknown>) => {
    make();
    await blocked();
    await last('/v1/sse').answer(response());
    expect(client.connection).toMatchObject(state);
    if (client.connection.error?.code === 'rate') expect((client.connection.notBefore ?? 0) - Date.now()).toBe(7_000);
  });

  it('comments keep a stream alive, silence ends it', async () => {
    const sse = await live();
    FakeSocket.all.length = 1;
    for (let n = 0; n < 4; n += 1) {
      await vi.advanceTimersByTimeAsync(15_000);
      await sse.comment();
    }
    expect(client.connection.transport).toBe('sse');
    expect(client.connection.status).toBe('live');
    await vi.advanceTimersByTimeAsync(41_000);
    expect(client.connection.error?.code).toBe('timeout');
  });

  it('a newer token is brought to the stream there is', async () => {
    let n = 0;
    make({ token: () => `T${(n += 1)}` });
    await blocked();
    const sse = stream();
    await last('/v1/sse').answer(sse.response);
    await sse.say(connected([joined]), caughtUp('c1'), { expiring: {} });
    const { init } = last('/v1/refresh');
    expect(init).toMatchObject({ method: 'POST', body: '{"connection":"c1"}', headers: { authorization: 'Bearer T2' } });
    await last('/v1/refresh').answer(Response.json({ expiresAt: '2030-01-01T00:00:00Z', roles: ['admin'] }));
    expect(client.connection.session).toMatchObject({ expiresAt: '2030-01-01T00:00:00Z', roles: ['admin'] });
    expect(asked.filter(({ url }) => url.pathname === '/v1/sse')).toHaveLength(1);
    await sse.say({ event: { room: 'r', cursor: 'c2', event: event('after') } });
    expect(lines).toContain('after live');
  });

  it.each([
    ['the gateway knows no such stream', async () => last('/v1/refresh').answer(Response.json({ code: 'forbidden' }, { status: 403 }))],
    ['it cannot be reached', async () => last('/v1/refresh').fail()],
    ['the answer makes no sense', async () => last('/v1/refresh').answer(new Response('<p>a proxy'))],
  ])('where %s, a newer token makes a new stream from the same places', async (_, answer) => {
    let n = 0;
    make({ token: () => `T${(n += 1)}` });
    await blocked();
    const sse = stream();
    await last('/v1/sse').answer(sse.response);
    await sse.say(connected([joined]), caughtUp('c1'), { expiring: {} });
    await answer();
    expect(last('/v1/sse').init.headers).toMatchObject({ authorization: 'Bearer T2' });
    expect(last('/v1/sse').url.searchParams.getAll('cursor')[0]).toBe('c1');
    expect(client.connection.status).toBe('live');
  });

  it('whoever wants to know of notifications has the counters asked for, on every way', async () => {
    make();
    client.onNotification(() => undefined);
    await settle();
    FakeSocket.last.open();
    await settle();
    expect(FakeSocket.last.sentOf('connect')).toMatchObject([{ counters: true }]);
    FakeSocket.last.end(1006);
    await blocked();
    expect(last('/v1/sse').url.searchParams.get('counters')).toBe('0');
    await last('/v1/sse').answer(new Response('no', { status: 502 }));
    await settle();
    expect(last('/v1/poll').url.searchParams.get('counters')).toBe('0');
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [{ counters: { version: 7, unread: 1 } }], cursor: 'p1', more: false }));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(last('/v1/poll').url.searchParams.get('counters')).toBe('7');
  });

  it('nobody who does not want to know is told', async () => {
    make();
    await blocked();
    const sse = stream();
    await last('/v1/sse').answer(sse.response);
    await sse.say(connected([joined]), caughtUp('c1'));
    expect(last('/v1/sse').url.searchParams.has('counters')).toBe(false);
    client.onNotification(() => undefined);
    await vi.advanceTimersByTimeAsync(100);
    expect(last('/v1/sse').url.searchParams.get('counters')).toBe('0');
  });

  it('polls ask for a newer token before theirs ends', async () => {
    let n = 0;
    const token = (): string => `${(n += 1)}.${btoa(JSON.stringify({ sub: 'u1', exp: Math.floor(Date.now() / 1_000) + 100 }))}.x`;
    make({ token, transports: ['longpoll'] });
    await settle();
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [], cursor: 'p1', more: false }));
    expect(client.connection.session?.user).toBe('u1');
    await vi.advanceTimersByTimeAsync(41_000);
    expect(n).toBe(2);
  });

  it('who is there is told by a stream and by polls, of the rooms whose reader wants to know', async () => {
    const seen: string[] = [];
    const people = (room: string, ...users: string[]): unknown => ({ presence: { room, users: users.map((user) => ({ user, connections: 1, since: '', status: 'active' })), total: users.length } });
    const watched = (path: string): string[] => last(path).url.searchParams.getAll('presence');
    const sse = await live();
    expect(watched('/v1/sse')).toEqual([]);
    const subscription = client.subscribe('r', { history: 0, onPresence: ({ users }) => seen.push(users.map(({ user }) => user).join()) });
    await vi.advanceTimersByTimeAsync(20);
    expect(watched('/v1/sse')).toEqual(['r']);
    const next = stream();
    await last('/v1/sse').answer(next.response);
    await next.say(connected([joined]), caughtUp('c1'), people('r', 'ada'), caughtUp('c1'));
    await vi.advanceTimersByTimeAsync(100);
    expect(asked.filter(({ url }) => url.pathname === '/v1/sse')).toHaveLength(2);
    await sse.end();
    await next.say(people('r', 'ada', 'ben'));
    expect(seen).toEqual(['ada', 'ada,ben']);
    // The stream is lost, and there is none any more: it is asked for from the beginning.
    await next.end();
    await vi.advanceTimersByTimeAsync(2_000);
    FakeSocket.last.end(1006);
    await settle();
    expect(watched('/v1/sse')).toEqual(['r']);
    await last('/v1/sse').answer(new Response('no', { status: 502 }));
    await settle();
    expect(watched('/v1/poll')).toEqual(['r']);
    await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [people('r', 'ben')], cursor: 'p1', more: false }));
    expect(seen).toEqual(['ada', 'ada,ben', 'ben']);
    subscription.unsubscribe();
  });

  it.each(['sse', 'poll'] as const)('what a user does goes over HTTP while there is %s alone', async (transport) => {
    make({ transports: [transport] });
    await settle();
    const sse = stream();
    if (transport === 'sse') {
      await last('/v1/sse').answer(sse.response);
      await sse.say(connected([joined]), caughtUp('c1'));
    } else {
      await last('/v1/poll').answer(Response.json({ rooms: [joined], frames: [], cursor: 'p1', more: false }));
    }
    expect(client.connection).toMatchObject({ status: 'live', transport });
    const published = client.publish('chat', 'chat:said', { n: 1 }, 'e-1');
    const present = client.presence('floor of 2');
    client.activity('page', '/bookings');
    await settle();
    expect(last('/v1/publish').init).toMatchObject({ method: 'POST', body: '{"room":"chat","type":"chat:said","data":{"n":1},"eventId":"e-1"}', headers: { authorization: 'Bearer T' } });
    expect(last('/v1/activity').init).toMatchObject({ method: 'POST', body: '{"kind":"page","detail":"/bookings"}' });
    expect(last('/v1/presence').url.search).toBe('?room=floor+of+2');
    await last('/v1/publish').answer(Response.json({ eventId: 'e-1' }));
    await last('/v1/presence').answer(Response.json({ room: 'floor of 2', users: [{ user: 'u1', connections: 1, since: '', status: 'active' }], total: 1 }));
    expect([await published, (await present).total]).toEqual(['e-1', 1]);
    // It is about now: that it did not come through is nobody's trouble.
    await last('/v1/activity').answer(Response.json({ code: 'rate' }, { status: 429 }));
    const refused = client.publish('vault', 't', 1);
    await settle();
    await last('/v1/publish').answer(Response.json({ code: 'forbidden', detail: 'not there, or not yours' }, { status: 403 }));
    await expect(refused).rejects.toMatchObject({ code: 'forbidden', temporary: false });
    expect(client.connection.status).toBe('live');
  });

  it('a command goes over HTTP while there is no socket', async () => {
    await live();
    let result: unknown;
    void client.command('stats:request', { a: 1 }, { key: 'k' }).then((answer) => (result = answer));
    await settle();
    expect(last('/v1/commands/stats%3Arequest').init).toMatchObject({ method: 'POST', body: '{"data":{"a":1},"key":"k","timeoutMs":10000}' });
    await last('/v1/commands/stats%3Arequest').answer(Response.json({ data: { ok: true } }));
    expect(result).toEqual({ ok: true });
  });
});

describe('a refresh that is not taken at the moment', () => {
  it('is tried again when the server says so', async () => {
    let n = 0;
    make({ token: () => `T${(n += 1)}`, transports: ['websocket'] });
    await settle();
    FakeSocket.last.open();
    await settle();
    FakeSocket.last.connected([joined]);
    FakeSocket.last.say({ expiring: {} });
    await settle();
    const id = FakeSocket.last.sent.at(-1)?.['id'];
    FakeSocket.last.say({ id, error: { code: 'unavailable', message: '', temporary: true, retryAfterMs: 800 } });
    await vi.advanceTimersByTimeAsync(800);
    expect(FakeSocket.last.sentOf('refresh')).toEqual([{ token: 'T2' }, { token: 'T3' }]);
  });
});

describe('the lines of a stream', () => {
  const vectors = JSON.parse(readFileSync(new URL('../../../proto/vectors/streams.json', import.meta.url), 'utf8')) as { name: string; frame: string; text: string }[];
  const read = (...pieces: string[]): string[] => {
    const found: string[] = [];
    const reader = new Lines((data) => found.push(data), () => found.push(':'));
    for (const piece of pieces) reader.push(piece);
    return found;
  };

  it.each(vectors.map(({ name, frame: data, text }) => [name, data, text]))('%s', (_, data, text) => {
    expect(read(text)).toEqual([data]);
    // Cut anywhere it is the same, whatever ends its lines.
    for (let at = 0; at <= text.length; at += 1) expect(read(text.slice(0, at), text.slice(at))).toEqual([data]);
    expect(read(...text.replaceAll('\n', '\r\n'))).toEqual([data]);
  });

  it('comments, unknown fields and empty events', () => {
    expect(read(': x\n\nevent: e\nid: 1\n\ndata\ndata:a\n\n')).toEqual([':', 'a']);
  });

  it('one without an end is no stream', () => {
    const reader = new Lines(() => undefined, () => undefined);
    expect(reader.push('data: '.padEnd(5 << 20, 'x'))).toBe(false);
  });
});

it.each([
  [[], ''],
  [[{ room: 'a' }], 'room=a'],
  [[{ room: 'a', cursor: 'x' }], 'room=a&cursor=x&room=a&cursor=x'],
  [[{ room: 'a', cursor: 'x' }, { room: 'b' }], 'room=a&room=b&cursor=x&cursor='],
])('rooms %j are asked for each at its own place', (rooms, query) => expect(followQuery(rooms).toString()).toBe(query));
