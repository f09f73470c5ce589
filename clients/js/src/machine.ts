/**
 * The life of a connection as a pure function: state × input → state + effects. The driver (`client.ts`) feeds it what
 * happens and carries out what it asks for. No timers, no sockets, no clock in here; `env` brings time and chance.
 *
 * Ways are tried from the best down: one that does not work here is followed by the next at once, an unreachable gateway
 * by a wait. On a lower way the better ones are tried beside it, and taken when one works.
 *
 *   idle → connecting → authenticating → live ⇄ waiting
 *                 pause ⇅ resume: paused      closed: by the user, or for a reason that waiting would not mend
 */

import { BACKOFF_BASE_MS, backoffMs, readHint, retryDelayMs } from './backoff.js';
import { CLOSE_WATCHDOG, closeError, closeVerdict } from './close.js';
import { passing, RoomcastError } from './error.js';
import type { Transport } from './follow.js';
import type { Session, WireError } from './frame.js';

/** Where a connection stands. */
export type ConnectionStatus = 'idle' | 'connecting' | 'authenticating' | 'live' | 'waiting' | 'paused' | 'closed';

/** Everything that is known about the connection. Immutable: a change is a new object. */
export interface ConnectionState {
  readonly status: ConnectionStatus;
  /** The way on which frames come, or are about to. */
  readonly transport: Transport;
  /** The way that worked last: the first to try after a loss. */
  readonly proven?: Transport;
  /** A better way that is being tried beside this one. */
  readonly trying?: Transport;
  /** How often better ways were tried in vain since this one came live. */
  readonly trials: number;
  /** Attempts that failed since the connection last stood for a while. */
  readonly attempt: number;
  /** When the next attempt starts (`waiting`), in milliseconds since the Unix epoch by this machine's clock. */
  readonly retryAt?: number;
  /** The server asked for no return before this instant. */
  readonly notBefore?: number;
  /** The browser says that there is no network; since when. A hint only: it is wrong on loopback. */
  readonly offlineSince?: number;
  /** Live since. */
  readonly since?: number;
  /** When the server was last heard. */
  readonly heardAt: number;
  /** The gateway lost its source: what is shown may be old. `since` as the server said it. */
  readonly stale?: { readonly since?: string | undefined };
  /** What `connected` told; kept over a break. */
  readonly session?: Session;
  /** Why it is not live: the last failure, or the reason it is closed. */
  readonly error?: RoomcastError;
  /** The next sign-in must bring a new token; `tried` once one was asked for. */
  readonly renew: 'no' | 'wanted' | 'tried';
}

/** What happens to a connection. */
export type ConnectionInput =
  | { type: 'start' }
  | { type: 'stop' }
  | { type: 'pause' }
  | { type: 'resume' }
  | { type: 'retryNow' }
  | { type: 'online' }
  | { type: 'offline' }
  /** The page is looked at again, or a frozen machine woke up. */
  | { type: 'wake' }
  | { type: 'opened' }
  | { type: 'connected'; session: Session; stale: boolean }
  | { type: 'heard' }
  | { type: 'ping' }
  | { type: 'disconnect'; code: number; reason: string; reconnect?: boolean | undefined; retryAfterMs?: number | undefined }
  | { type: 'dropped'; code: number; reason: string }
  /** The server refused `connect`. */
  | { type: 'refused'; error: WireError }
  /** The token callback had none, or brought an expired one again. Final until somebody signs in. */
  | { type: 'tokenMissing'; error: RoomcastError }
  /** The token callback failed; may work later. */
  | { type: 'tokenFailed'; error: RoomcastError }
  | { type: 'unsupported'; error: RoomcastError }
  | { type: 'status'; stale: boolean; since?: string | undefined }
  | { type: 'expiring' }
  | { type: 'rights'; roles?: readonly string[] | undefined; expiresAt?: string | undefined }
  /** The way does not work here; the next one may. */
  | { type: 'unfit'; error: RoomcastError }
  /** The better way that was tried does not work. */
  | { type: 'trialFailed' }
  /** The better way works and carries the frames now; its `connected` follows. */
  | { type: 'switched'; transport: Transport }
  | { type: 'fired'; timer: Timer };

/** Timers the machine asks for; one of each at most. */
export type Timer = 'retry' | 'handshake' | 'watchdog' | 'upgrade' | 'trial';

/** What the driver shall do, in order. */
export type Effect =
  | { do: 'open'; transport: Transport }
  /** Make a second connection, and say what becomes of it. */
  | { do: 'try'; transport: Transport }
  | { do: 'stopTrying' }
  | { do: 'close'; code: number }
  | { do: 'authenticate'; fresh: boolean }
  | { do: 'refresh' }
  | { do: 'pong' }
  | { do: 'arm'; timer: Timer; ms: number }
  | { do: 'disarm'; timer: Timer };

/** What the machine needs from outside. */
export interface Env {
  /** Milliseconds since the Unix epoch. */
  readonly now: number;
  /** Uniform in [0, 1). */
  readonly random: number;
  /** Ways that may be used, the best first. */
  readonly transports: readonly Transport[];
}

/** Longest time from opening a socket to `connected`, in milliseconds; the server gives 8 s for the first message alone. */
export const HANDSHAKE_MS = 15_000;
/** Longest time until a WebSocket is open where another way may work instead, in milliseconds. */
export const OPEN_MS = 5_000;
/** The same for a better way that is tried beside one that works, in milliseconds. */
export const TRIAL_MS = 10_000;
/** Longest pause between such trials, in milliseconds. */
export const TRIAL_PAUSE_MAX_MS = 60_000;
/** The server is taken for dead after this many ping intervals of silence: one late ping is forgiven, two are not. */
export const WATCHDOG_PINGS = 1.6;
/** A connection that stood this long counts as good: the back-off starts from the beginning, in milliseconds. */
export const STABLE_MS = 5_000;
/** Silence allowed after the browser said `offline`, in milliseconds. */
export const OFFLINE_GRACE_MS = 5_000;
/** Spread of returns after `online`: a whole office comes back at once, in milliseconds. */
export const ONLINE_SPREAD_MS = 500;

/** A connection before its first start. */
export const INITIAL: ConnectionState = { status: 'idle', transport: 'websocket', trials: 0, attempt: 0, heardAt: 0, renew: 'no' };

type Step = [ConnectionState, Effect[]];

/** One step. The same arguments give the same answer; the argument state is not touched. */
export function step(state: ConnectionState, input: ConnectionInput, env: Env): Step {
  switch (input.type) {
    case 'start':
      return state.status === 'idle' || state.status === 'closed' ? open(startOver(state), env) : [state, []];
    case 'stop':
      return end(omit(state, 'error'), 'closed');
    case 'pause':
      return state.status === 'closed' || state.status === 'idle' || state.status === 'paused' ? [state, []] : end(omit(state, 'error'), 'paused');
    case 'resume':
      return state.status === 'paused' ? open({ ...state, attempt: 0 }, env) : [state, []];
    case 'retryNow':
      if (state.status === 'waiting') return open(state, env);
      return state.status === 'closed' && state.error !== undefined ? open(startOver(state), env) : [state, []];
    case 'online':
      return online(omit(state, 'offlineSince'), state.offlineSince !== undefined, env);
    case 'offline':
      return offline(state, env);
    case 'wake':
      return wake(state, env);
    case 'fired':
      return fired(state, input.timer, env);
    default:
      return connectedOnly(state, input, env);
  }
}

/** Inputs that mean something only while a socket is there. */
function connectedOnly(state: ConnectionState, input: ConnectionInput, env: Env): Step {
  const { status } = state;
  if (!isUp(state)) return [state, []];
  switch (input.type) {
    case 'opened': {
      if (status !== 'connecting') return [state, []];
      const isFresh = state.renew === 'wanted';
      return [
        { ...state, status: 'authenticating', renew: isFresh ? 'tried' : 'no' },
        [{ do: 'authenticate', fresh: isFresh }, ...(below(state, env) === undefined ? [] : [{ do: 'arm', timer: 'handshake', ms: HANDSHAKE_MS } as const])],
      ];
    }
    case 'connected':
      // A stream begins again within its connection, and a better way takes over from another.
      if (status === 'live') return [{ ...omit(state, 'stale'), session: input.session, heardAt: env.now, ...(input.stale ? { stale: {} } : {}) }, []];
      return status === 'authenticating' ? goLive(state, input, env) : [state, []];
    case 'unfit':
      return fallBack(state, input.error, env);
    case 'trialFailed':
      return state.trying === undefined ? [state, []] : tryNext(state, env);
    case 'switched':
      return status === 'live' ? switched(state, input.transport, env) : [state, []];
    case 'heard':
      return [{ ...state, heardAt: env.now }, []];
    case 'ping':
      return [{ ...state, heardAt: env.now }, [{ do: 'pong' }]];
    case 'disconnect': {
      const error = closeError(input.code, input.reason);
      // The flag can forbid a return that the range would allow, never allow one that it forbids.
      const verdict = input.reconnect === false && closeVerdict(input.code) === 'return' ? 'stay' : closeVerdict(input.code);
      return afterClose(state, verdict, error, env, readHint(input.retryAfterMs));
    }
    case 'dropped':
      // A gateway that is there says why; a WebSocket that never came live was perhaps not let through.
      if (status !== 'live' && state.transport === 'websocket' && input.code < 4000 && closeVerdict(input.code) === 'return') {
        return fallBack(state, closeError(input.code, input.reason), env);
      }
      return afterClose(state, closeVerdict(input.code), closeError(input.code, input.reason), env);
    case 'refused':
      return status === 'authenticating' ? refused(state, input.error, env) : [state, []];
    case 'tokenMissing':
    case 'unsupported':
      return end({ ...state, error: input.error }, 'closed');
    case 'tokenFailed':
      return lose({ ...state, renew: state.renew === 'tried' ? 'wanted' : state.renew }, input.error, env);
    case 'status':
      if (!input.stale) return [omit(state, 'stale'), []];
      return [{ ...state, stale: { since: input.since } }, []];
    case 'expiring':
      return [state, [{ do: 'refresh' }]];
    case 'rights': {
      if (state.session === undefined) return [state, []];
      const session = {
        ...state.session,
        ...(input.roles === undefined ? {} : { roles: input.roles }),
        ...(input.expiresAt === undefined ? {} : { expiresAt: input.expiresAt }),
      };
      return [{ ...state, session }, []];
    }
    default:
      return [state, []];
  }
}

function goLive(state: ConnectionState, input: { session: Session; stale: boolean }, env: Env): Step {
  const live: ConnectionState = {
    ...omit(state, 'error', 'stale', 'retryAt', 'notBefore'),
    status: 'live',
    since: env.now,
    heardAt: env.now,
    session: input.session,
    renew: 'no',
    proven: state.transport,
    trials: 0,
    ...(input.stale ? { stale: {} } : {}),
  };
  return [live, [{ do: 'disarm', timer: 'handshake' }, { do: 'arm', timer: 'watchdog', ms: watchdogMs(live) }, ...upgrade(live, env)]];
}

/** Asks for a trial of a better way, where there is one, after a pause that grows. */
function upgrade(state: ConnectionState, env: Env): Effect[] {
  if (state.transport === env.transports[0]) return [];
  const ceiling = Math.min(TRIAL_PAUSE_MAX_MS, BACKOFF_BASE_MS * 2 ** Math.min(state.trials, 20));
  return [{ do: 'arm', timer: 'upgrade', ms: Math.floor(ceiling * (0.5 + env.random / 2)) }];
}

/** Tries the best way, or the next after the one that was tried in vain. */
function tryNext(state: ConnectionState, env: Env): Step {
  const next = env.transports[state.trying === undefined ? 0 : env.transports.indexOf(state.trying) + 1];
  if (next === undefined || next === state.transport) {
    const tried: ConnectionState = { ...omit(state, 'trying'), trials: state.trials + 1 };
    return [tried, [{ do: 'stopTrying' }, { do: 'disarm', timer: 'trial' }, ...upgrade(tried, env)]];
  }
  return [{ ...state, trying: next }, [{ do: 'try', transport: next }, { do: 'arm', timer: 'trial', ms: TRIAL_MS }]];
}

function switched(state: ConnectionState, transport: Transport, env: Env): Step {
  const next: ConnectionState = { ...omit(state, 'trying'), transport, proven: transport, trials: 0, heardAt: env.now };
  return [next, [{ do: 'disarm', timer: 'trial' }, { do: 'disarm', timer: 'upgrade' }, ...upgrade(next, env)]];
}

/** The next way down, where there is one. */
function below(state: ConnectionState, env: Env): Transport | undefined {
  return env.transports[env.transports.indexOf(state.transport) + 1];
}

/** This way does not work: the next one is tried at once; after the last one it begins from the best, after a wait. */
function fallBack(state: ConnectionState, error: RoomcastError, env: Env): Step {
  const next = below(state, env);
  if (next === undefined) return lose(omit(state, 'proven'), error, env, undefined, true);
  const [opening, effects] = open({ ...omit(state, 'since', 'stale', 'trying'), error }, env, next);
  return [opening, [...letGo(1000), ...effects]];
}

function fired(state: ConnectionState, timer: Timer, env: Env): Step {
  if (timer === 'retry') return state.status === 'waiting' ? open(state, env) : [state, []];
  if (timer === 'handshake') {
    const shaking = state.status === 'connecting' || state.status === 'authenticating';
    return shaking ? fallBack(state, silence(), env) : [state, []];
  }
  if (timer === 'trial') return state.trying === undefined ? [state, []] : tryNext(state, env);
  if (timer === 'upgrade') return state.status === 'live' && state.trying === undefined ? tryNext(state, env) : [state, []];
  if (state.status !== 'live') return [state, []];
  const silent = env.now - state.heardAt;
  // After `offline` the question is whether anything came since; otherwise whether the silence is too long.
  const dead = state.offlineSince !== undefined && state.heardAt <= state.offlineSince ? env.now - state.offlineSince >= OFFLINE_GRACE_MS : false;
  if (dead || silent >= watchdogMs(state)) return lose(state, silence(), env);
  return [state, [{ do: 'arm', timer: 'watchdog', ms: Math.max(1, watchdogMs(state) - silent) }]];
}

/** The network is back: whatever was open before may be dead without knowing it, so it is replaced; the cursors make that cheap. */
function online(state: ConnectionState, wasOffline: boolean, env: Env): Step {
  // Another network may let through what this one did not.
  state = omit(state, 'proven');
  if (state.status === 'waiting') return hurry(state, env);
  return wasOffline && isUp(state) ? replace(state, env, true) : [state, []];
}

function offline(state: ConnectionState, env: Env): Step {
  if (state.offlineSince !== undefined) return [state, []];
  const next = { ...state, offlineSince: env.now };
  return [next, state.status === 'live' ? [{ do: 'arm', timer: 'watchdog', ms: OFFLINE_GRACE_MS }] : []];
}

function wake(state: ConnectionState, env: Env): Step {
  if (state.status === 'waiting') return hurry(state, env);
  if (state.status !== 'live') return [state, []];
  if (env.now - state.heardAt >= watchdogMs(state)) return replace(state, env);
  if (state.trying === undefined && state.transport !== env.transports[0]) {
    return [{ ...state, trials: 0 }, [{ do: 'arm', timer: 'upgrade', ms: Math.floor(env.random * ONLINE_SPREAD_MS) }]];
  }
  return [state, []];
}

/** The connection is given up, and another one made soon. */
function replace(state: ConnectionState, env: Env, isFromTheBest = false): Step {
  const [waiting, effects] = lose(state, silence(), env, undefined, isFromTheBest);
  const [soon, more] = hurry(waiting, env);
  return [soon, [...effects, ...more]];
}

/** Shortens a wait, but not below what the server asked for. */
function hurry(state: ConnectionState, env: Env): Step {
  const spread = Math.floor(env.random * ONLINE_SPREAD_MS);
  const ms = Math.max(spread, (state.notBefore ?? 0) - env.now);
  if (state.retryAt !== undefined && state.retryAt <= env.now + ms) return [state, []];
  return [{ ...state, retryAt: env.now + ms }, [{ do: 'arm', timer: 'retry', ms }]];
}

function refused(state: ConnectionState, wire: WireError, env: Env): Step {
  const error = new RoomcastError(wire.code, wire.message, wire);
  if (wire.code === 'expired') return afterClose(state, 'renew', error, env);
  return afterClose(state, wire.temporary ? 'return' : 'stay', error, env, readHint(wire.retryAfterMs));
}

function afterClose(state: ConnectionState, verdict: 'return' | 'renew' | 'stay', error: RoomcastError, env: Env, hintMs?: number): Step {
  if (verdict === 'stay') return end({ ...state, error }, 'closed');
  if (verdict === 'return') return lose(state, error, env, hintMs);
  // A token that was renewed for this very connection and is refused as expired will not get better by asking again.
  if (state.renew === 'tried') return end({ ...state, error }, 'closed');
  return lose({ ...state, renew: 'wanted' }, error, env, hintMs);
}

/** The connection is gone; it comes back after a wait. */
function lose(state: ConnectionState, error: RoomcastError, env: Env, hintMs?: number, isFromTheBest = false): Step {
  const stood = state.status === 'live' && state.since !== undefined && env.now - state.since >= STABLE_MS;
  const attempt = stood ? 0 : state.attempt + 1;
  const ms = hintMs === undefined ? backoffMs(attempt, env.random) : retryDelayMs(attempt, env.random, hintMs);
  const next: ConnectionState = {
    ...omit(state, 'since', 'stale', 'notBefore', 'trying', ...(isFromTheBest ? (['proven'] as const) : [])),
    status: 'waiting',
    attempt,
    error,
    retryAt: env.now + ms,
    ...(hintMs === undefined ? {} : { notBefore: env.now + hintMs }),
  };
  return [next, [...letGo(error.closeCode === CLOSE_WATCHDOG ? CLOSE_WATCHDOG : 1000), { do: 'arm', timer: 'retry', ms }]];
}

function open(state: ConnectionState, env: Env, way?: Transport): Step {
  // The token that was brought for an attempt that failed for another reason is still to be tried.
  const renew = state.renew === 'tried' ? 'no' : state.renew;
  const transport = way ?? state.proven ?? env.transports[0] ?? 'websocket';
  const opening: ConnectionState = { ...omit(state, 'retryAt', 'notBefore'), status: 'connecting', transport, renew };
  const ms = transport === 'websocket' && below(opening, env) !== undefined ? OPEN_MS : HANDSHAKE_MS;
  return [opening, [{ do: 'disarm', timer: 'retry' }, { do: 'open', transport }, { do: 'arm', timer: 'handshake', ms }]];
}

function end(state: ConnectionState, status: 'closed' | 'paused'): Step {
  const next = { ...omit(state, 'since', 'stale', 'retryAt', 'notBefore', 'trying', 'proven'), status, renew: 'no' as const };
  return [next, [...letGo(1000), { do: 'disarm', timer: 'retry' }]];
}

/** A new start after an end: with an authentication error behind it, the old token is of no use. */
function startOver(state: ConnectionState): ConnectionState {
  return { ...omit(state, 'error'), attempt: 0, renew: state.error?.isAuth === true ? 'wanted' : 'no' };
}

function letGo(code: number): Effect[] {
  const timers = (['handshake', 'watchdog', 'upgrade', 'trial'] as const).map((timer): Effect => ({ do: 'disarm', timer }));
  return [...timers, { do: 'stopTrying' }, { do: 'close', code }];
}

function silence(): RoomcastError {
  return passing('timeout', 'The server fell silent.', { closeCode: CLOSE_WATCHDOG });
}

/** A socket is there, or what looks like one. */
export function isUp({ status }: ConnectionState): boolean {
  return status === 'connecting' || status === 'authenticating' || status === 'live';
}

function watchdogMs(state: ConnectionState): number {
  return Math.round((state.session?.pingSeconds ?? 25) * WATCHDOG_PINGS * 1_000);
}

function omit<K extends keyof ConnectionState>(state: ConnectionState, ...keys: K[]): Omit<ConnectionState, K> & Partial<ConnectionState> {
  const copy: { -readonly [P in keyof ConnectionState]?: ConnectionState[P] } = { ...state };
  for (const key of keys) delete copy[key];
  return copy as Omit<ConnectionState, K> & Partial<ConnectionState>;
}
