import { describe, expect, it } from 'vitest';
import { RoomcastError } from './error.js';
import type { Transport } from './follow.js';
import { INITIAL, STABLE_MS, step, type ConnectionInput, type ConnectionState, type Effect } from './machine.js';

const SESSION = { connection: 'c', user: 'u', roles: [], epoch: 'e', pingSeconds: 25, resumeSeconds: 60 };

/** Runs inputs one after the other; `at` sets the clock from there on. */
function run(inputs: (ConnectionInput & { at?: number })[], start: ConnectionState = INITIAL, random = 0.5, transports: readonly Transport[] = ['websocket']): { state: ConnectionState; effects: Effect[]; last: Effect[] } {
  let state = start;
  let now = 1_000_000;
  const effects: Effect[] = [];
  let last: Effect[] = [];
  for (const { at, ...input } of inputs) {
    if (at !== undefined) now = 1_000_000 + at;
    [state, last] = step(state, input as ConnectionInput, { now, random, transports });
    effects.push(...last);
  }
  return { state, effects, last };
}

const START: ConnectionInput[] = [{ type: 'start' }, { type: 'opened' }];
const LIVE: ConnectionInput[] = [...START, { type: 'connected', session: SESSION, stale: false }];

describe('connection machine', () => {
  it('goes from idle over connecting and authenticating to live', () => {
    const { state, effects } = run(LIVE);
    expect(state).toMatchObject({ status: 'live', attempt: 0, session: SESSION });
    expect(effects.map((effect) => effect.do)).toEqual(['disarm', 'open', 'arm', 'authenticate', 'disarm', 'arm']);
    expect(effects).toContainEqual({ do: 'authenticate', fresh: false });
    expect(effects).toContainEqual({ do: 'arm', timer: 'watchdog', ms: 40_000 });
  });

  it.each([
    [1006, 'waiting'],
    [1000, 'waiting'],
    [1012, 'waiting'],
    [1002, 'closed'],
    [1009, 'closed'],
    [4001, 'waiting'],
    [4002, 'waiting'],
    [4003, 'waiting'],
    [4499, 'waiting'],
    [4500, 'closed'],
    [4501, 'closed'],
    [4777, 'closed'],
    [4999, 'closed'],
  ])('after close code %i it is %s', (code, status) => {
    const { state } = run([...LIVE, { type: 'dropped', code, reason: '' }]);
    expect(state.status).toBe(status);
    expect(state.error?.closeCode).toBe(code);
  });

  it.each([
    [4500, 'unauthenticated', true],
    [4501, 'revoked', true],
    [4502, 'forbidden', false],
  ])('close code %i is the error %s', (code, name, isAuth) => {
    const { state } = run([...LIVE, { type: 'dropped', code, reason: '' }]);
    expect(state.error?.code).toBe(name);
    expect(state.error?.isAuth).toBe(isAuth);
  });

  it('waits as long as the server asks', () => {
    const { state, last } = run([...LIVE, { type: 'disconnect', code: 4001, reason: 'drain', reconnect: true, retryAfterMs: 1_800, at: STABLE_MS }]);
    expect(state).toMatchObject({ status: 'waiting', attempt: 0, retryAt: 1_000_000 + STABLE_MS + 1_800 });
    expect(last).toContainEqual({ do: 'arm', timer: 'retry', ms: 1_800 });
  });

  it('does not come back when the server forbids it, nor when only the flag allows it', () => {
    expect(run([...LIVE, { type: 'disconnect', code: 4001, reason: '', reconnect: false }]).state.status).toBe('closed');
    expect(run([...LIVE, { type: 'disconnect', code: 4502, reason: '', reconnect: true }]).state.status).toBe('closed');
  });

  it('never gives up and counts its failures', () => {
    let state = run([{ type: 'start' }]).state;
    for (let attempt = 1; attempt <= 100; attempt += 1) {
      [state] = step(state, { type: 'dropped', code: 1006, reason: '' }, { now: 0, random: 0.999, transports: ['websocket'] });
      expect(state).toMatchObject({ status: 'waiting', attempt });
      expect(state.retryAt).toBeLessThanOrEqual(30_000);
      [state] = step(state, { type: 'fired', timer: 'retry' }, { now: 0, random: 0.5, transports: ['websocket'] });
      expect(state.status).toBe('connecting');
    }
  });

  it('starts its back-off anew only after a connection that stood', () => {
    const broken = run([{ type: 'start' }, { type: 'dropped', code: 1006, reason: '' }, { type: 'fired', timer: 'retry' }, { type: 'opened' }, { type: 'connected', session: SESSION, stale: false }]);
    expect(run([{ type: 'dropped', code: 1006, reason: '', at: 10 }], broken.state).state.attempt).toBe(2);
    expect(run([{ type: 'dropped', code: 1006, reason: '', at: STABLE_MS }], broken.state).state.attempt).toBe(0);
  });

  it('asks for a new token once after 4003, and stops when that one is expired too', () => {
    const expired = run([...LIVE, { type: 'dropped', code: 4003, reason: '' }, { type: 'fired', timer: 'retry' }, { type: 'opened' }]);
    expect(expired.last).toEqual([{ do: 'authenticate', fresh: true }]);
    const again = run([{ type: 'dropped', code: 4003, reason: '' }], expired.state);
    expect(again.state).toMatchObject({ status: 'closed' });
    expect(again.state.error?.code).toBe('expired');
  });

  it.each([
    ['is cut', { type: 'dropped', code: 1006, reason: '' }],
    ['is drained', { type: 'disconnect', code: 4001, reason: '', reconnect: true }],
    ['meets a gateway without the key', { type: 'dropped', code: 4005, reason: '' }],
    ['is refused for now', { type: 'refused', error: { code: 'unavailable', message: '', temporary: true } }],
    ['is answered by nobody', { type: 'fired', timer: 'handshake' }],
    ['does not fit', { type: 'unfit', error: new RoomcastError('unsupported', '') }],
  ] as [string, ConnectionInput][])('a token that was renewed is tried again when its attempt %s', (_, input) => {
    const retry: ConnectionInput[] = [{ type: 'fired', timer: 'retry' }, { type: 'opened' }];
    const renewed = run([...LIVE, { type: 'dropped', code: 4003, reason: '' }, ...retry]);
    const again = run([input, ...retry], renewed.state);
    expect(again.last).toContainEqual({ do: 'authenticate', fresh: false });
    expect(run([{ type: 'dropped', code: 4003, reason: '' }], again.state).state).toMatchObject({ status: 'waiting', renew: 'wanted' });
  });

  it.each([
    ['nobody was asked for one yet', [{ type: 'dropped', code: 1006, reason: '' }]],
    ['whoever brings it failed', [{ type: 'opened' }, { type: 'tokenFailed', error: new RoomcastError('network', '') }]],
  ] as [string, ConnectionInput[]][])('a new token is wanted on where %s', (_, inputs) => {
    const retry: ConnectionInput = { type: 'fired', timer: 'retry' };
    const { last } = run([...LIVE, { type: 'dropped', code: 4003, reason: '' }, retry, ...inputs, retry, { type: 'opened' }]);
    expect(last).toEqual([{ do: 'authenticate', fresh: true }]);
  });

  it('a refused connect follows its code', () => {
    const refuse = (code: string, temporary: boolean): ConnectionState =>
      run([...START, { type: 'refused', error: { code, message: '', temporary } }]).state;
    expect(refuse('expired', false)).toMatchObject({ status: 'waiting', renew: 'wanted' });
    expect(refuse('unauthenticated', false).status).toBe('closed');
    expect(refuse('unavailable', true).status).toBe('waiting');
  });

  it('a watchdog that fires after news only waits on; after silence it reconnects', () => {
    const heard = run([...LIVE, { type: 'heard', at: 30_000 }, { type: 'fired', timer: 'watchdog', at: 40_000 }]);
    expect(heard.state.status).toBe('live');
    expect(heard.last).toEqual([{ do: 'arm', timer: 'watchdog', ms: 30_000 }]);
    const silent = run([...LIVE, { type: 'fired', timer: 'watchdog', at: 40_000 }]);
    expect(silent.state).toMatchObject({ status: 'waiting', error: { code: 'timeout' } });
    expect(silent.last).toContainEqual({ do: 'close', code: 4900 });
  });

  it('answers pings', () => {
    expect(run([...LIVE, { type: 'ping' }]).last).toEqual([{ do: 'pong' }]);
  });

  it('comes back at once when the network does, and replaces a socket that lived through the break', () => {
    const waiting = run([...LIVE, { type: 'dropped', code: 1006, reason: '' }, { type: 'fired', timer: 'retry' }, { type: 'dropped', code: 1006, reason: '' }, { type: 'dropped', code: 1006, reason: '' }], INITIAL, 0.99);
    const online = run([{ type: 'online', at: 0 }], { ...waiting.state, retryAt: 1_020_000 });
    expect(online.last).toEqual([{ do: 'arm', timer: 'retry', ms: 250 }]);
    const survived = run([...LIVE, { type: 'offline' }, { type: 'online', at: 1_000 }]);
    expect(survived.state).toMatchObject({ status: 'waiting' });
    expect((survived.state.retryAt ?? 0) - 1_001_000).toBeLessThanOrEqual(500);
  });

  it('after offline it gives the socket five seconds to prove itself', () => {
    const quiet = run([...LIVE, { type: 'offline', at: 10 }, { type: 'fired', timer: 'watchdog', at: 5_010 }]);
    expect(quiet.state.status).toBe('waiting');
    const alive = run([...LIVE, { type: 'offline', at: 10 }, { type: 'heard', at: 100 }, { type: 'fired', timer: 'watchdog', at: 5_010 }]);
    expect(alive.state.status).toBe('live');
  });

  it('hurries on waking but not before the server allows', () => {
    const drained = run([...LIVE, { type: 'disconnect', code: 4006, reason: '', retryAfterMs: 20_000 }]).state;
    expect(run([{ type: 'wake', at: 1_000 }], drained).state.retryAt).toBe(1_020_000);
    expect(run([{ type: 'retryNow', at: 1_000 }], drained).state.status).toBe('connecting');
  });

  it('waking after a long sleep replaces the socket', () => {
    expect(run([...LIVE, { type: 'wake', at: 60_000 }]).state.status).toBe('waiting');
    expect(run([...LIVE, { type: 'wake', at: 6_000 }]).state.status).toBe('live');
  });

  it('pauses and resumes by the user alone', () => {
    const paused = run([...LIVE, { type: 'pause' }, { type: 'online' }, { type: 'wake' }, { type: 'fired', timer: 'retry' }]);
    expect(paused.state.status).toBe('paused');
    expect(run([{ type: 'resume' }], paused.state).state.status).toBe('connecting');
  });

  it('without a token it is closed until somebody signs in', () => {
    const error = new RoomcastError('no_token', '');
    const closed = run([...START, { type: 'tokenMissing', error }]);
    expect(closed.state).toMatchObject({ status: 'closed', error });
    const again = run([{ type: 'start' }, { type: 'opened' }], closed.state);
    expect(again.last).toEqual([{ do: 'authenticate', fresh: true }]);
  });

  it('a handshake that does not end counts as a failure', () => {
    expect(run([{ type: 'start' }, { type: 'fired', timer: 'handshake' }]).state).toMatchObject({ status: 'waiting', attempt: 1 });
  });

  it('says stale and takes it back', () => {
    const stale = run([...LIVE, { type: 'status', stale: true, since: 'x' }]);
    expect(stale.state.stale).toEqual({ since: 'x' });
    expect(run([{ type: 'status', stale: false }], stale.state).state.stale).toBeUndefined();
  });

  it('ignores what does not belong to its state', () => {
    const inputs: ConnectionInput[] = [{ type: 'opened' }, { type: 'ping' }, { type: 'expiring' }, { type: 'resume' }, { type: 'retryNow' }, { type: 'dropped', code: 4001, reason: '' }, { type: 'fired', timer: 'watchdog' }];
    for (const input of inputs) expect(run([input])).toMatchObject({ state: INITIAL, effects: [] });
  });
});

describe('ways', () => {
  const ALL = ['websocket', 'sse', 'longpoll', 'poll'] as const;
  const go = (inputs: (ConnectionInput & { at?: number })[], start?: ConnectionState): ReturnType<typeof run> => run(inputs, start, 0.5, ALL);
  const cut: ConnectionInput = { type: 'dropped', code: 1006, reason: '' };
  const unfit: ConnectionInput = { type: 'unfit', error: new RoomcastError('unsupported', '') };
  const up: ConnectionInput[] = [{ type: 'opened' }, { type: 'connected', session: SESSION, stale: false }];

  it.each([
    ['a WebSocket that is cut before it is live', [cut], 'connecting', 'sse'],
    ['one that opens and says nothing', [{ type: 'opened' }, { type: 'fired', timer: 'handshake' }], 'connecting', 'sse'],
    ['one that is not open in time', [{ type: 'fired', timer: 'handshake' }], 'connecting', 'sse'],
    ['one that the gateway closes', [{ type: 'dropped', code: 4001, reason: '' }], 'waiting', 'websocket'],
    ['one that the gateway refuses', [{ type: 'dropped', code: 4500, reason: '' }], 'closed', 'websocket'],
    ['one that was live', [...up, cut], 'waiting', 'websocket'],
    ['a stream that is unreachable too', [cut, cut], 'waiting', 'sse'],
    ['a stream that does not fit', [cut, unfit], 'connecting', 'longpoll'],
    ['a held poll that is cut while live', [cut, unfit, ...up, unfit], 'connecting', 'poll'],
    ['nothing that fits', [cut, unfit, unfit, unfit], 'waiting', 'poll'],
  ] as [string, ConnectionInput[], string, string][])('after %s it is %s', (_, inputs, status, transport) => {
    expect(go([{ type: 'start' }, ...inputs]).state).toMatchObject({ status, transport });
  });

  it('after a loss the way that worked comes first, after a change of network the best one', () => {
    const lost = go([{ type: 'start' }, cut, ...up, cut]).state;
    expect(go([{ type: 'fired', timer: 'retry' }], lost).last).toContainEqual({ do: 'open', transport: 'sse' });
    expect(go([{ type: 'online' }, { type: 'fired', timer: 'retry' }], lost).last).toContainEqual({ do: 'open', transport: 'websocket' });
    // It begins from the best where nothing fits.
    expect(go([{ type: 'start' }, cut, unfit, unfit, unfit, { type: 'fired', timer: 'retry' }]).last).toContainEqual({ do: 'open', transport: 'websocket' });
  });

  it('tries better ways beside a lower one, the best first, after pauses that grow, and never leaves live for it', () => {
    let { state, last } = go([{ type: 'start' }, cut, unfit, ...up]);
    const pauses: number[] = [];
    for (let n = 0; n < 10; n += 1) {
      const armed = last.find((effect) => effect.do === 'arm' && effect.timer === 'upgrade') as { ms: number };
      pauses.push(armed.ms);
      ({ state, last } = go([{ type: 'fired', timer: 'upgrade' }], state));
      expect(last).toContainEqual({ do: 'try', transport: 'websocket' });
      ({ state, last } = go([{ type: 'trialFailed' }], state));
      expect(last).toContainEqual({ do: 'try', transport: 'sse' });
      ({ state, last } = go([{ type: 'fired', timer: 'trial' }], state));
      expect(state).toMatchObject({ status: 'live', transport: 'longpoll' });
    }
    expect(pauses).toEqual([750, 1_500, 3_000, 6_000, 12_000, 24_000, 45_000, 45_000, 45_000, 45_000]);
    const better = go([{ type: 'fired', timer: 'upgrade' }, { type: 'trialFailed' }, { type: 'switched', transport: 'sse' }], state);
    expect(better.state).toMatchObject({ status: 'live', transport: 'sse', proven: 'sse', trials: 0 });
    const best = go([{ type: 'fired', timer: 'upgrade' }, { type: 'switched', transport: 'websocket' }], better.state);
    expect(best.state).toMatchObject({ status: 'live', transport: 'websocket' });
    expect(best.last.filter(({ do: what }) => what === 'arm')).toEqual([]);
  });

  it('what ends a connection ends its trial', () => {
    const { state, last } = go([{ type: 'start' }, cut, ...up, { type: 'fired', timer: 'upgrade' }, { type: 'pause' }]);
    expect(last).toContainEqual({ do: 'stopTrying' });
    expect(state.trying).toBeUndefined();
  });
});
