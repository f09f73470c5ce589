/**
 * Reads what the gateway sends. One JSON object per message with an optional `id` and one member named after the
 * message. Whatever is not understood is said so, never thrown: newer servers may say more than this client knows.
 */

import type { CloudEvent } from './event.js';

/** What the server said about a room on connect or subscribe. */
export interface RoomAnswer {
  readonly room: string;
  readonly cursor?: string;
  readonly recovery: 'complete' | 'incomplete' | 'fresh';
  readonly reason?: string;
  readonly error?: WireError;
}

/** An error as it stands on the wire. */
export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly temporary: boolean;
  readonly retryAfterMs?: number;
}

/** What `connected` tells about this connection. */
export interface Session {
  readonly connection: string;
  readonly user: string;
  readonly roles: readonly string[];
  readonly epoch: string;
  /** The server's promise: a ping at least this often, in seconds. */
  readonly pingSeconds: number;
  readonly expiresAt?: string;
  readonly serverTime?: string;
  /** How long a cursor stays good, in seconds; 0 when the server did not say. */
  readonly resumeSeconds: number;
}

/** One user in a room, however many tabs. */
export interface PresentUser {
  readonly user: string;
  /** Open connections; 0: it has just left and may come back. */
  readonly connections: number;
  readonly since: string;
  readonly status: 'active' | 'away' | (string & {});
}

/** Who is in a room, as far as the asker may see. */
export interface Presence {
  readonly room: string;
  /** At most 500, those longest there first. */
  readonly users: readonly PresentUser[];
  readonly total: number;
}

/** Notifications that are not read, by priority; absolute. */
export interface NotificationCounters {
  /** Grows with every change. */
  readonly version: number;
  readonly unread: number;
  readonly critical: number;
  readonly high: number;
  readonly medium: number;
  readonly low: number;
}

/** A message of the server, read. */
export type ServerFrame =
  | { kind: 'connected'; id?: number; session: Session; stale: boolean; rooms: RoomAnswer[] }
  | { kind: 'subscribed'; id?: number; answer: RoomAnswer }
  | { kind: 'unsubscribed'; id?: number; room: string; error?: WireError }
  | { kind: 'event'; room: string; cursor?: string; event: CloudEvent }
  | { kind: 'caughtUp'; room: string; cursor: string }
  | { kind: 'ping' }
  | { kind: 'error'; id?: number; error: WireError }
  | { kind: 'status'; stale: boolean; since?: string }
  | { kind: 'expiring'; expiresAt?: string }
  | { kind: 'refreshed'; id?: number; expiresAt?: string; roles?: string[] }
  | { kind: 'roles'; roles: string[] }
  | { kind: 'thinned'; count: number }
  | { kind: 'disconnect'; code: number; reason: string; reconnect?: boolean; retryAfterMs?: number }
  | { kind: 'presence'; id?: number; presence: Presence }
  | { kind: 'counters'; counters: NotificationCounters }
  /** Well formed, but of no kind that means something by itself: the answer to a request, or what a newer server says. */
  | { kind: 'other'; name: string; id?: number; body: Json }
  /** Not a frame at all, or one whose needed members are missing. */
  | { kind: 'malformed'; why: string };

/** A JSON object. */
export type Json = Record<string, unknown>;

/** How far apart pings may be before a server's word is taken for a mistake, in seconds. */
const PING_SECONDS_MAX = 300;
const PING_SECONDS_DEFAULT = 25;

/** Reads one message. Never throws. */
export function readFrame(message: unknown): ServerFrame {
  if (typeof message !== 'string') return malformed('not a text message');
  let frame: unknown;
  try {
    frame = JSON.parse(message);
  } catch {
    return malformed('not JSON');
  }
  if (!isObject(frame)) return malformed('not an object');
  const id = typeof frame['id'] === 'number' ? frame['id'] : undefined;
  for (const name in frame) {
    const reader = READERS[name];
    if (reader === undefined || !Object.hasOwn(READERS, name)) continue;
    const body = frame[name];
    return isObject(body) ? reader(body, id) : malformed(`${name} is not an object`);
  }
  const name = Object.keys(frame).find((name) => name !== 'id') ?? '';
  const body = frame[name];
  return { kind: 'other', name, body: isObject(body) ? body : {}, ...optional('id', id) };
}

const READERS: Readonly<Record<string, (body: Json, id: number | undefined) => ServerFrame>> = {
  // The busiest first.
  event(body) {
    const room = body['room'];
    const event = body['event'];
    if (typeof room !== 'string' || !isEvent(event)) return malformed('event without room, id, source or type');
    return { kind: 'event', room, event, ...optional('cursor', text(body['cursor'])) };
  },
  caughtUp(body) {
    const { room, cursor } = body;
    if (typeof room !== 'string' || typeof cursor !== 'string') return malformed('caughtUp without room or cursor');
    return { kind: 'caughtUp', room, cursor };
  },
  ping: () => ({ kind: 'ping' }),
  connected(body, id) {
    const rooms = Array.isArray(body['rooms']) ? body['rooms'] : [];
    return {
      kind: 'connected',
      ...optional('id', id),
      session: readSession(body),
      stale: body['status'] === 'stale',
      rooms: rooms.map(readAnswer).filter((answer) => answer !== undefined),
    };
  },
  subscribed(body, id) {
    const answer = readAnswer(body);
    return answer === undefined ? malformed('subscribed without room') : { kind: 'subscribed', answer, ...optional('id', id) };
  },
  unsubscribed(body, id) {
    const room = body['room'];
    if (typeof room !== 'string') return malformed('unsubscribed without room');
    const error = body['code'] === undefined ? undefined : readError({ ...body, message: text(body['reason']) ?? body['message'] });
    return { kind: 'unsubscribed', room, ...optional('id', id), ...optional('error', error) };
  },
  error: (body, id) => ({ kind: 'error', error: readError(body), ...optional('id', id) }),
  status: (body) => {
    // Either {"status":"stale"} or {"stale":{}}: only the word counts.
    const stale = body['status'] === 'stale' || body['state'] === 'stale' || body['stale'] === true;
    return { kind: 'status', stale, ...optional('since', text(body['since'])) };
  },
  expiring: (body) => ({ kind: 'expiring', ...optional('expiresAt', text(body['expiresAt'])) }),
  refreshed: (body, id) => ({
    kind: 'refreshed',
    ...optional('id', id),
    ...optional('expiresAt', text(body['expiresAt'])),
    ...optional('roles', Array.isArray(body['roles']) ? texts(body['roles']) : undefined),
  }),
  roles: (body) => ({ kind: 'roles', roles: texts(body['roles']) }),
  presence(body, id) {
    const presence = readPresence(body);
    return presence === undefined ? malformed('presence without room') : { kind: 'presence', presence, ...optional('id', id) };
  },
  counters: (body) => ({ kind: 'counters', counters: readCounters(body) }),
  thinned: (body) => ({ kind: 'thinned', count: count(body['state']) + count(body['ephemeral']) }),
  disconnect(body) {
    const code = body['code'];
    if (typeof code !== 'number') return malformed('disconnect without code');
    const reconnect = body['reconnect'];
    const retryAfterMs = body['retryAfterMs'];
    return {
      kind: 'disconnect',
      code,
      reason: text(body['reason']) ?? '',
      ...optional('reconnect', typeof reconnect === 'boolean' ? reconnect : undefined),
      ...optional('retryAfterMs', typeof retryAfterMs === 'number' ? retryAfterMs : undefined),
    };
  },
};

/** Reads `{code, message, temporary, retryAfterMs}`; what is missing gets an honest default. */
export function readError(body: Json): WireError {
  const retryAfterMs = body['retryAfterMs'];
  const code = body['code'];
  return {
    code: typeof code === 'string' || typeof code === 'number' ? String(code) : 'unknown',
    message: text(body['message']) ?? text(body['detail']) ?? 'The server gave no reason.',
    temporary: body['temporary'] === true,
    ...optional('retryAfterMs', typeof retryAfterMs === 'number' ? retryAfterMs : undefined),
  };
}

/** Reads who is in a room; undefined where it does not say which. People that make no sense are left out. */
export function readPresence(body: Json): Presence | undefined {
  const { room, users, total } = body;
  if (typeof room !== 'string') return undefined;
  const read = (Array.isArray(users) ? users : []).filter(isObject).flatMap((one): PresentUser[] => {
    const user = text(one['user']);
    return user === undefined ? [] : [{ user, connections: count(one['connections']), since: text(one['since']) ?? '', status: text(one['status']) ?? 'active' }];
  });
  return { room, users: read, total: typeof total === 'number' ? total : read.length };
}

/** Reads counters; what is missing is 0. */
export function readCounters(body: Json): NotificationCounters {
  const of = (name: string): number => count(body[name]);
  return { version: of('version'), unread: of('unread'), critical: of('critical'), high: of('high'), medium: of('medium'), low: of('low') };
}

/** True for an object with the attributes every delivered event has. */
export function isEvent(value: unknown): value is CloudEvent {
  return isObject(value) && typeof value['id'] === 'string' && typeof value['source'] === 'string' && typeof value['type'] === 'string';
}

/** True for a JSON object. */
export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readSession(body: Json): Session {
  const limits = isObject(body['limits']) ? body['limits'] : {};
  const ping = body['pingSeconds'];
  const resume = limits['resumeSeconds'];
  return {
    connection: text(body['connection']) ?? '',
    user: text(body['user']) ?? '',
    roles: texts(body['roles']),
    epoch: text(body['epoch']) ?? '',
    pingSeconds: typeof ping === 'number' && ping > 0 && ping <= PING_SECONDS_MAX ? ping : PING_SECONDS_DEFAULT,
    resumeSeconds: typeof resume === 'number' ? resume : 0,
    ...optional('expiresAt', text(body['expiresAt'])),
    ...optional('serverTime', text(body['serverTime'])),
  };
}

function readAnswer(value: unknown): RoomAnswer | undefined {
  if (!isObject(value) || typeof value['room'] !== 'string') return undefined;
  const recovery = value['recovery'];
  return {
    room: value['room'],
    // An unknown word promises nothing, so the room starts over.
    recovery: recovery === 'complete' || recovery === 'fresh' ? recovery : 'incomplete',
    ...optional('cursor', text(value['cursor'])),
    ...optional('reason', text(value['reason'])),
    ...optional('error', isObject(value['error']) ? readError(value['error']) : undefined),
  };
}

function malformed(why: string): ServerFrame {
  return { kind: 'malformed', why };
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? value : 0;
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

/** `{[name]: value}`, or nothing when there is no value: absent and undefined are not the same on our types. */
function optional<N extends string, V>(name: N, value: V | undefined): { [K in N]?: V } {
  return (value === undefined ? {} : { [name]: value }) as { [K in N]?: V };
}
