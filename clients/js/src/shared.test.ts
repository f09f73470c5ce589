import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { RoomcastClient, Subscription } from './api.js';
import { Client } from './client.js';
import { notifications } from './notifications.js';
import type { RoomHandlers } from './room.js';
import { sharedClient } from './shared.js';
import { LINGER_MS } from './store.js';
import { event, fakeFetch, FakeSocket, settle } from './testing/fakes.js';
import { eventsStore, presenceStore, roomStore } from './views.js';

const made: RoomcastClient[] = [];
const token = (sub: string, roles: string[] = []): string => `x.${btoa(JSON.stringify({ sub, roles }))}.x`;

async function tab(sub = 'u1'): Promise<RoomcastClient> {
  const client = sharedClient({ url: 'http://gateway', token: () => token(sub), transports: ['websocket'] });
  made.push(client);
  client.connect();
  await settle();
  await vi.dynamicImportSettled();
  await settle();
  return client;
}
async function open(): Promise<FakeSocket> {
  FakeSocket.last.open();
  await settle();
  await settle();
  return FakeSocket.last;
}

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
  vi.stubGlobal('WebSocket', FakeSocket);
  vi.stubGlobal('fetch', fakeFetch({}).fetch);
});
afterEach(() => {
  for (const client of made.splice(0)) client.close();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe('a tab without locks and workers', () => {
  it('has a connection of its own that looks like any other', async () => {
    const lines: string[] = [];
    const client = await tab();
    const subscription = client.subscribe('r', {
      history: 0,
      onEvent: ({ id }, { live }) => lines.push(`${id}${live ? ' live' : ''}`),
      onState: ({ key, event: value }) => lines.push(`${key}=${value?.id}`),
      onCaughtUp: () => lines.push('caughtUp'),
      onError: ({ code }) => lines.push(code),
    });
    await settle();
    const socket = await open();
    expect(socket.sentOf('connect')[0]).toMatchObject({ token: token('u1'), rooms: [{ room: 'r' }] });
    socket.connected([{ room: 'r', recovery: 'fresh' }]);
    socket.say({ caughtUp: { room: 'r', cursor: 'c1' } });
    socket.say({ event: { room: 'r', cursor: 'c2', event: event('1') } });
    socket.say({ event: { room: 'r', cursor: 'c3', event: event('v', { statekey: 'k', delivery: 'state' }) } });
    await settle();
    expect(client.connection).toMatchObject({ status: 'live', session: { user: 'u1' } });
    expect(lines).toEqual(['caughtUp', '1 live', 'k=v']);
    expect([...subscription.state.keys()]).toEqual(['k']);
    expect(subscription.cursor).toBe('c2');
    const answer = client.command('go', 1, { key: 'k' });
    await settle();
    const asked = socket.sent.at(-1);
    socket.say({ id: asked?.['id'], result: { data: 'done' } });
    expect(await answer).toBe('done');
    client.pause();
    await settle();
    expect(client.connection.status).toBe('paused');
    expect(socket.sentOf('unsubscribe')).toEqual([{ room: 'r' }]);
    client.resume();
    await settle();
    expect(client.connection.status).toBe('live');
    expect(socket.sentOf('subscribe')).toEqual([{ room: 'r', cursor: 'c3' }]);
    socket.say({ unsubscribed: { room: 'r', code: 'forbidden', reason: 'no' } });
    client.close();
    await settle();
    expect(socket.closedWith).toBe(1000);
  });

  it('reckons with the server’s clock from its first word on', async () => {
    const client = await tab();
    const ahead = Date.now() + 3_600_000;
    const clocks: number[] = [];
    client.onConnection(({ status }) => status === 'live' && clocks.push(client.serverNow() - ahead));
    (await open()).connected([], { serverTime: new Date(ahead).toISOString() });
    await settle();
    expect(clocks.length).toBeGreaterThan(0);
    expect(clocks.every((off) => Math.abs(off) < 1_000), String(clocks)).toBe(true);
  });

  it('a token that ended and is not renewed ends the connection, and a newer one begins it again', async () => {
    let given = token('u1');
    const client = sharedClient({ url: 'http://gateway', token: () => given, transports: ['websocket'] });
    made.push(client);
    client.connect();
    await settle();
    const socket = await open();
    socket.connected([]);
    await settle();
    socket.say({ disconnect: { code: 4003, reason: 'expired', reconnect: true } });
    // The first wait is 2 s at most.
    await vi.advanceTimersByTimeAsync(3_000);
    FakeSocket.last.open();
    await settle();
    await settle();
    expect(client.connection).toMatchObject({ status: 'closed', error: { code: 'expired' } });
    given = `${token('u1')}2`;
    client.connect();
    await settle();
    const next = await open();
    expect(next.sentOf('connect')[0]).toMatchObject({ token: given });
  });

  it.each([
    ['another user', token('u2'), ['unknown'], []],
    ['the same user with other roles', token('u1', ['admin']), [], ['k1']],
  ])('a token of %s ends what the one before showed', async (_, other, failures, carriedOver) => {
    let given = token('u1');
    const client = sharedClient({ url: 'http://gateway', token: () => given, transports: ['websocket'] });
    made.push(client);
    const lines: string[] = [];
    const failed: string[] = [];
    const subscription = client.subscribe('r', { history: 0, onState: ({ key, event: value, gone }) => lines.push(`${key}=${value?.id ?? gone}`), onReset: ({ reason }) => lines.push(`reset ${reason}`), onEvent: ({ id }) => lines.push(id) });
    const events = eventsStore(client, 'r', { history: 0 });
    const values = roomStore(client, 'r');
    const people = presenceStore(client, 'r');
    const bell = notifications(client);
    const unwatch = [events, values, people, bell].map((store) => store.subscribe(() => undefined));
    client.connect();
    for (let round = 0; round < 5; round += 1) await settle();
    const first = await open();
    first.connected([{ room: 'r', recovery: 'fresh' }]);
    for (const [id, statekey] of [['v', 'k'], ['n', 'notification/n']]) first.say({ event: { room: 'r', cursor: 'c1', event: event(String(id), { statekey, delivery: 'state' }) } });
    first.say({ caughtUp: { room: 'r', cursor: 'c1' } });
    first.say({ event: { room: 'r', cursor: 'c2', event: event('1') } });
    first.say({ presence: { room: 'r', users: [{ user: 'ada', connections: 1, since: '', status: 'active' }], total: 1 } });
    client.command('go', 1, { key: 'k1' }).catch(({ code }) => failed.push(code as string));
    await settle();
    expect([events.get().events.length, values.get().state.size, people.get().total, bell.get().items.length]).toEqual([1, 2, 1, 1]);
    given = other;
    first.say({ disconnect: { code: 4003, reason: 'expired', reconnect: true } });
    await vi.advanceTimersByTimeAsync(3_000);
    // The hub asks for a token, and gets none of its user.
    first === FakeSocket.last || FakeSocket.last.open();
    for (let round = 0; round < 20; round += 1) await settle();
    expect(lines).toEqual(['k=v', 'notification/n=n', '1', 'k=withdrawn', 'notification/n=withdrawn', 'reset user']);
    expect([events.get().events.length, values.get().state.size, people.get().total, bell.get().items.length]).toEqual([0, 0, 0, 0]);
    expect([subscription.state.size, subscription.cursor]).toEqual([0, undefined]);
    expect(failed).toEqual(failures);
    const next = await open();
    expect(next.sentOf('connect')[0]).toMatchObject({ token: other, rooms: [{ room: 'r' }] });
    expect(next.sentOf('connect')[0]?.['rooms'][0].cursor).toBeUndefined();
    next.connected([{ room: 'r', recovery: 'fresh' }], { user: 'u2' });
    next.say({ caughtUp: { room: 'r', cursor: 'c3' } });
    next.say({ event: { room: 'r', cursor: 'c2', event: event('1') } });
    await settle();
    expect(next.sentOf('command').map(({ key }) => key)).toEqual(carriedOver);
    expect(lines.at(-1)).toBe('1');
    expect(events.get().events.map(({ id }) => id)).toEqual(['1']);
    unwatch.forEach((stop) => stop());
  });

  it('a room that starts over shows nothing of before when it is refused', async () => {
    const client = new Client({ url: 'http://gateway', token: 'T', transports: ['websocket'] });
    made.push(client);
    const store = roomStore(client, 'r');
    store.subscribe(() => undefined);
    client.connect();
    await settle();
    const socket = await open();
    socket.connected([{ room: 'r', recovery: 'fresh' }]);
    for (const key of ['a', 'b']) socket.say({ event: { room: 'r', cursor: 'c1', event: event(key, { statekey: key, delivery: 'state' }) } });
    socket.say({ caughtUp: { room: 'r', cursor: 'c1' } });
    socket.connected([{ room: 'r', recovery: 'incomplete' }]);
    socket.say({ event: { room: 'r', cursor: 'c2', event: event('c', { statekey: 'c', delivery: 'state' }) } });
    expect([...store.get().state.keys()]).toEqual(['a', 'b']);
    socket.say({ unsubscribed: { room: 'r', code: 'forbidden', reason: 'rights ended' } });
    expect(store.get()).toMatchObject({ error: { code: 'forbidden' } });
    expect([...store.get().state.keys()]).toEqual([]);
  });

  it.each(['a shared connection', 'a client that is held'])('what is lost while its room starts over is not shown on, over %s', async (over) => {
    const isShared = over === 'a shared connection';
    vi.stubGlobal('fetch', fakeFetch({ r: { cursor: 'c1' } }).fetch);
    const client = isShared ? await tab() : new Client({ url: 'http://gateway', token: 'T', transports: ['websocket'] });
    made.push(client);
    const subscriptions: Subscription[] = [];
    const store = roomStore({ ...client, subscribe: (room: string, handlers: RoomHandlers) => subscriptions[subscriptions.push(client.subscribe(room, handlers)) - 1] } as RoomcastClient, 'r');
    const unwatch = store.subscribe(() => undefined);
    client.connect();
    await settle();
    const socket = await open();
    socket.connected([{ room: 'r', recovery: 'fresh' }]);
    const say = (key: string): void => socket.say({ event: { room: 'r', cursor: 'c1', event: event(key, { statekey: key, delivery: 'state' }) } });
    say('a');
    socket.say({ caughtUp: { room: 'r', cursor: 'c1' } });
    await settle();
    // Somebody else keeps the room open.
    client.subscribe('r', { history: 0 });
    if (!isShared) subscriptions.forEach((subscription) => subscription.hold());
    await settle();
    socket.connected([{ room: 'r', recovery: 'incomplete' }]);
    say('b');
    await settle();
    expect([...store.get().state.keys()]).toEqual(['a']);
    socket.say({ unsubscribed: { room: 'r', code: 'forbidden', reason: 'rights ended' } });
    await settle();
    if (!isShared) subscriptions.forEach((subscription) => subscription.release());
    expect(store.get()).toMatchObject({ error: { code: 'forbidden' } });
    expect([...store.get().state.keys()]).toEqual([]);
    unwatch();
  });

  it('a bell that is put up again knows what holds, and what does not any more', async () => {
    const client = await tab();
    const socket = await open();
    socket.connected([{ room: 'notifications', recovery: 'fresh' }]);
    const say = (id: string, more = {}): void => socket.say({ event: { room: 'notifications', cursor: 'c1', event: event(id, { statekey: `notification/${id}`, delivery: 'state', ...more }) } });
    const bell = notifications(client);
    const news: string[] = [];
    const watch = (): (() => void) => bell.onNew(({ id }) => news.push(id));
    let stop = watch();
    await settle();
    say('a');
    socket.say({ caughtUp: { room: 'notifications', cursor: 'c1' } });
    say('b');
    await settle();
    expect(bell.get().items.map(({ id }) => id)).toEqual(['a', 'b']);
    stop();
    await vi.advanceTimersByTimeAsync(LINGER_MS);
    say('a', { withdrawn: true });
    await settle();
    stop = watch();
    expect(bell.get().items.map(({ id }) => id)).toEqual(['b']);
    expect(news).toEqual(['b']);
    const replayed: [string, boolean][] = [];
    client.onNotification((push) => push.kind === 'value' && replayed.push([push.key, push.live]))();
    expect(replayed).toEqual([['notification/b', false]]);
    stop();
  });

  it('a command given while it is paused waits for its return', async () => {
    const client = await tab();
    const socket = await open();
    socket.connected([]);
    await settle();
    client.pause();
    const answer = client.command('go', 1, { key: 'k' });
    await settle();
    expect(client.queued()).toMatchObject([{ key: 'k', name: 'go' }]);
    expect(socket.sentOf('command')).toEqual([]);
    client.resume();
    await settle();
    expect(socket.sentOf('command')).toMatchObject([{ key: 'k' }]);
    socket.say({ id: socket.sent.at(-1)?.['id'], result: { data: 'done' } });
    expect(await answer).toBe('done');
    expect(client.queued()).toEqual([]);
  });

  it('says what was counted to whoever looks', async () => {
    const client = await tab();
    const socket = await open();
    socket.connected([]);
    await settle();
    await vi.advanceTimersByTimeAsync(2_000);
    socket.say('not JSON');
    expect(client.counters.malformed).toBe(0);
    await settle();
    expect(client.counters.malformed).toBe(1);
  });

  it('works on pages that came over plain HTTP, and where locks are refused', async () => {
    vi.stubGlobal('crypto', { getRandomValues: (bytes: Uint8Array) => bytes.fill(7) });
    vi.stubGlobal('navigator', { locks: { request: () => Promise.reject(new DOMException('no', 'SecurityError')) } });
    vi.stubGlobal('BroadcastChannel', class {
      onmessage = null;
      postMessage(): void {}
      close(): void {}
    });
    const client = await tab();
    await settle();
    const socket = await open();
    socket.connected([]);
    await settle();
    expect(client.connection.status).toBe('live');
  });

  it('says why it cannot sign in', async () => {
    const client = sharedClient({ url: 'http://gateway', token: () => null });
    made.push(client);
    client.connect();
    await settle();
    expect(client.connection).toMatchObject({ status: 'closed', error: { code: 'no_token' } });
    await expect(client.request('feed', {})).rejects.toMatchObject({ code: 'offline' });
  });
});

/** Locks and channels of a browser, as far as tabs use them; `die` lets go all locks of a tab. */
class Browser {
  readonly #held = new Map<string, { owner: string }>();
  readonly #waiting: { name: string; owner: string; run: () => void }[] = [];
  readonly #channels = new Set<{ name: string; owner: string; onmessage: ((event: { data: unknown }) => void) | null }>();
  /** Whose code runs now. */
  owner = '';

  readonly locks = {
    request: (name: string, options: { ifAvailable?: boolean } | (() => unknown), callback?: (lock: unknown) => unknown): Promise<unknown> => {
      const work = callback ?? (options as (lock: unknown) => unknown);
      const { owner } = this;
      const run = (): void => {
        this.#held.set(name, { owner });
        void Promise.resolve(this.as(owner, () => work({ name }))).then(() => this.#free(name, owner));
      };
      if (!this.#held.has(name)) run();
      else if (typeof options === 'object' && options.ifAvailable === true) this.as(owner, () => work(null));
      else this.#waiting.push({ name, owner, run });
      return Promise.resolve();
    },
  };

  /** A class of channels for `BroadcastChannel`. */
  channels(): unknown {
    const browser = this;
    return class {
      onmessage: ((event: { data: unknown }) => void) | null = null;
      readonly owner = browser.owner;
      constructor(readonly name: string) {
        browser.#channels.add(this);
      }
      postMessage(data: unknown): void {
        for (const other of browser.#channels) {
          if (other !== this && other.name === this.name) queueMicrotask(() => browser.#channels.has(other) && browser.as(other.owner, () => other.onmessage?.({ data: structuredClone(data) })));
        }
      }
      close(): void {
        browser.#channels.delete(this);
      }
    };
  }

  as<T>(owner: string, work: () => T): T {
    const before = this.owner;
    this.owner = owner;
    try {
      return work();
    } finally {
      this.owner = before;
    }
  }

  /** A tab is gone without a word. */
  die(owner: string): void {
    for (const channel of [...this.#channels]) if (channel.owner === owner) this.#channels.delete(channel);
    for (const waiting of [...this.#waiting]) if (waiting.owner === owner) this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
    for (const [name, held] of [...this.#held]) if (held.owner === owner) this.#free(name, owner);
  }

  #free(name: string, owner: string): void {
    if (this.#held.get(name)?.owner !== owner) return;
    this.#held.delete(name);
    const next = this.#waiting.find((waiting) => waiting.name === name);
    if (next === undefined) return;
    this.#waiting.splice(this.#waiting.indexOf(next), 1);
    next.run();
  }
}

describe('tabs that elect one of them', () => {
  it('go on where they were when the one that leads is gone: events, values, commands', async () => {
    const browser = new Browser();
    vi.stubGlobal('navigator', { locks: browser.locks });
    vi.stubGlobal('BroadcastChannel', browser.channels());
    const lines: Record<string, string[]> = { a: [], b: [] };
    const openTab = async (name: 'a' | 'b'): Promise<RoomcastClient> => {
      // What it does until the next one is opened is its own.
      browser.owner = name;
      const client = sharedClient({ url: 'http://gateway', token: () => token('u1'), transports: ['websocket'] });
      made.push(client);
      client.subscribe('r', {
        history: 0,
        onEvent: ({ id }, { live }) => lines[name]?.push(`${id}${live ? ' live' : ''}`),
        onState: ({ key, event: value }) => lines[name]?.push(`${key}=${value?.id}`),
      });
      client.connect();
      for (let round = 0; round < 10; round += 1) await settle();
      return client;
    };
    await openTab('a');
    const first = await open();
    first.connected([{ room: 'r', recovery: 'fresh' }]);
    first.say({ event: { room: 'r', cursor: 'c1', event: event('v1', { statekey: 'k', delivery: 'state' }) } });
    first.say({ event: { room: 'r', cursor: 'c1', event: event('w1', { statekey: 'gone', delivery: 'state' }) } });
    first.say({ caughtUp: { room: 'r', cursor: 'c1' } });
    const second = await openTab('b');
    expect(FakeSocket.all).toHaveLength(1);
    first.say({ event: { room: 'r', cursor: 'c2', event: event('1') } });
    await settle();
    expect(lines['b']).toEqual(['k=v1', 'gone=w1', '1 live']);
    const answer = second.command('go', 1, { key: 'k1' });
    await settle();
    expect(first.sentOf('command')).toMatchObject([{ key: 'k1' }]);
    browser.die('a');
    for (let round = 0; round < 10; round += 1) await settle();
    expect(FakeSocket.all).toHaveLength(2);
    const next = await open();
    for (let round = 0; round < 5; round += 1) await settle();
    expect(next.sentOf('connect')[0]?.['rooms']).toEqual([{ room: 'r', cursor: 'c2' }]);
    next.connected([{ room: 'r', recovery: 'complete' }]);
    // The last one again, one that was missed, a value that went meanwhile.
    next.say({ event: { room: 'r', cursor: 'c2', event: event('1') } });
    next.say({ event: { room: 'r', cursor: 'c3', event: event('2') } });
    next.say({ event: { room: 'r', cursor: 'c4', event: event('w2', { statekey: 'gone', delivery: 'state', withdrawn: true }) } });
    next.say({ caughtUp: { room: 'r', cursor: 'c4' } });
    for (let round = 0; round < 5; round += 1) await settle();
    expect(lines['b']).toEqual(['k=v1', 'gone=w1', '1 live', '2 live', 'gone=undefined']);
    const asked = next.sent.find((sent) => 'command' in sent);
    expect(asked?.['command']).toMatchObject({ key: 'k1' });
    next.say({ id: asked?.['id'], result: { data: 'once' } });
    for (let round = 0; round < 5; round += 1) await settle();
    expect(await answer).toBe('once');
  });

  it.each<[string, Partial<Record<'a' | 'b', readonly string[]>>, string | undefined]>([
    // What each tab's application brings whenever it is asked, the last one from then on.
    ['the newer one of the tab that was opened later', { a: ['1'], b: ['2'] }, '2'],
    ['one that the other tab can renew', { a: ['1'], b: ['1', '2'] }, '2'],
    ['its own, renewed', { a: ['1', '2'], b: ['1'] }, '2'],
    ['what an application brings now, where its tab was opened with one that has ended as well', { a: ['1'], b: ['2', '3'] }, '3'],
    ['none, when nobody has a newer one', { a: ['1'], b: ['1'] }, undefined],
  ])('whose token has ended go on with %s', async (_, bring, expected) => {
    const browser = new Browser();
    vi.stubGlobal('navigator', { locks: browser.locks });
    vi.stubGlobal('BroadcastChannel', browser.channels());
    for (const [name, tokens] of Object.entries(bring)) {
      browser.owner = name;
      const left = [...tokens];
      const client = sharedClient({ url: 'http://gateway', token: () => `${token('u1')}${left.length > 1 ? left.shift() : left[0]}`, transports: ['websocket'] });
      made.push(client);
      client.connect();
      for (let round = 0; round < 10; round += 1) await settle();
      if (FakeSocket.last.sent.length === 0) (await open()).connected([]);
    }
    const first = FakeSocket.last;
    expect(first.sentOf('connect')[0]).toMatchObject({ token: `${token('u1')}1` });
    first.say({ disconnect: { code: 4003, reason: 'expired', reconnect: true } });
    // The first wait is 2 s at most.
    await vi.advanceTimersByTimeAsync(3_000);
    FakeSocket.last.open();
    for (let round = 0; round < 20; round += 1) await settle();
    expect(FakeSocket.last.sentOf('connect')[0]).toEqual(expected === undefined ? undefined : expect.objectContaining({ token: token('u1') + expected }));
    if (expected !== undefined) FakeSocket.last.connected([]);
    await settle();
    expect(made.map(({ connection }) => connection.status)).toEqual(expected === undefined ? ['closed', 'closed'] : ['live', 'live']);
  });

  it('show no notification that ended while nobody led', async () => {
    const browser = new Browser();
    vi.stubGlobal('navigator', { locks: browser.locks });
    vi.stubGlobal('BroadcastChannel', browser.channels());
    const openTab = async (name: string): Promise<RoomcastClient> => {
      browser.owner = name;
      const client = await tab();
      for (let round = 0; round < 10; round += 1) await settle();
      return client;
    };
    const say = (socket: FakeSocket, ...ids: string[]): void => {
      socket.connected([{ room: 'notifications', recovery: 'fresh' }]);
      for (const id of ids) socket.say({ event: { room: 'notifications', cursor: 'c1', event: event(id, { statekey: `notification/${id}`, delivery: 'state' }) } });
      socket.say({ caughtUp: { room: 'notifications', cursor: 'c1' } });
    };
    await openTab('a');
    const second = await openTab('b');
    const bell = notifications(second);
    const unwatch = bell.subscribe(() => undefined);
    say(await open(), 'ended', 'holds');
    for (let round = 0; round < 5; round += 1) await settle();
    expect(bell.get().items.map(({ id }) => id)).toEqual(['ended', 'holds']);
    const told: string[] = [];
    second.onNotification((push) => told.push(push.kind === 'value' ? `${push.key}=${push.event?.id}` : push.kind));
    told.length = 0;
    browser.die('a');
    for (let round = 0; round < 10; round += 1) await settle();
    // Until the next connection has said what holds nothing is taken away.
    expect(bell.get().items.map(({ id }) => id)).toEqual(['ended', 'holds']);
    const next = await open();
    next.connected([{ room: 'notifications', recovery: 'fresh' }]);
    for (let round = 0; round < 5; round += 1) await settle();
    expect(second.connection.status).toBe('live');
    expect(bell.get().items.map(({ id }) => id)).toEqual(['ended', 'holds']);
    say(next, 'holds');
    for (let round = 0; round < 5; round += 1) await settle();
    expect(bell.get().items.map(({ id }) => id)).toEqual(['holds']);
    expect(told).toEqual(['notification/holds=holds', 'notification/ended=undefined', 'caughtUp']);
    unwatch();
  });
});
