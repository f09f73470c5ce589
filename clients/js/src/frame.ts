/**
 * Reads what the gateway sends. One JSON object per message with an optional `id` and one member named after the
 * message. Whatever is not understood is said so, never thrown: newer servers may say more than this client knows.
 */

import type { CloudEvent } from './event.js';

/** What the server said about a room on connect or subscribe. */
export interface RoomAnswer {
  readonly room: string;
  readonly cursor?: string | undefined;
  readonly recovery: 'complete' | 'incomplete' | 'fresh';
  readonly reason?: string | undefined;
  readonly error?: WireError | undefined;
}

/** An error as it stands on the wire. */
export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly temporary: boolean;
  readonly retryAfterMs?: number | undefined;
}

/** What `connected` tells about this connection. */
export interface Session {
  readonly connection: string;
  readonly user: string;
  readonly roles: readonly string[];
  readonly epoch: string;
  /** The server's promise: a ping at least this often, in seconds. */
  readonly pingSeconds: number;
  readonly expiresAt?: string | undefined;
  readonly serverTime?: string | undefined;
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
  | { kind: 'connected'; id?: number | undefined; session: Session; stale: boolean; rooms: RoomAnswer[] }
  | { kind: 'subscribed'; id?: number | undefined; answer: RoomAnswer }
  | { kind: 'unsubscribed'; id?: number | undefined; room: string; error?: WireError | undefined }
  | { kind: 'event'; room: string; cursor?: string | undefined; event: CloudEvent }
  | { kind: 'caughtUp'; room: string; cursor: string }
  | { kind: 'ping' }
  | { kind: 'error'; id?: number | undefined; error: WireError }
  | { kind: 'status'; stale: boolean; since?: string | undefined }
  | { kind: 'expiring'; expiresAt?: string | undefined }
  | { kind: 'refreshed'; id?: number | undefined; expiresAt?: string | undefined; roles?: string[] | undefined }
  | { kind: 'roles'; roles: string[] }
  | { kind: 'thinned'; count: number }
  | { kind: 'disconnect'; code: number; reason: string; reconnect?: boolean | undefined; retryAfterMs?: number | undefined }
  | { kind: 'presence'; id?: number | undefined; presence: Presence }
  | { kind: 'counters'; counters: NotificationCounters }
  /** Well formed, but of no kind that means something by itself: the answer to a request, or what a newer server says. */
  | { kind: 'other'; name: string; id?: number | undefined; body: Json }
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
  const id = number(frame['id']);
  for (const name in frame) {
    const reader = READERS[name];
    if (reader === undefined || !Object.hasOwn(READERS, name)) continue;
    const body = frame[name];
    const read = isObject(body) ? reader(body) : undefined;
    return read === undefined ? malformed(`${name} lacks what it needs`) : ({ ...read, id } as ServerFrame);
  }
  const name = Object.keys(frame).find((name) => name !== 'id') ?? '';
  const body = frame[name];
  return { kind: 'other', name, body: isObject(body) ? body : {}, id };
}

/** By name; the id of the request that a frame answers is put beside what they read: undefined where a needed member is missing. */
const READERS: Readonly<Record<string, (body: Json) => ServerFrame | undefined>> = {
  // The busiest first.
  event(body) {
    const room = body['room'];
    const event = body['event'];
    return typeof room === 'string' && isEvent(event) ? { kind: 'event', room, event, cursor: text(body['cursor']) } : undefined;
  },
  caughtUp(body) {
    const { room, cursor } = body;
    return typeof room === 'string' && typeof cursor === 'string' ? { kind: 'caughtUp', room, cursor } : undefined;
  },
  ping: () => ({ kind: 'ping' }),
  connected(body) {
    return {
      kind: 'connected',
      session: readSession(body),
      stale: body['status'] === 'stale',
      rooms: list(body['rooms']).map(readAnswer).filter((answer) => answer !== undefined),
    };
  },
  subscribed(body) {
    const answer = readAnswer(body);
    return answer && { kind: 'subscribed', answer };
  },
  unsubscribed(body) {
    const room = body['room'];
    if (typeof room !== 'string') return undefined;
    const error = body['code'] === undefined ? undefined : readError({ ...body, message: text(body['reason']) ?? body['message'] });
    return { kind: 'unsubscribed', room, error };
  },
  error: (body) => ({ kind: 'error', error: readError(body) }),
  status: (body) => {
    return { kind: 'status', stale: body['status'] === 'stale', since: text(body['since']) };
  },
  expiring: (body) => ({ kind: 'expiring', expiresAt: text(body['expiresAt']) }),
  refreshed: (body) => ({
    kind: 'refreshed',
    expiresAt: text(body['expiresAt']),
    roles: Array.isArray(body['roles']) ? texts(body['roles']) : undefined,
  }),
  roles: (body) => ({ kind: 'roles', roles: texts(body['roles']) }),
  presence(body) {
    const presence = readPresence(body);
    return presence && { kind: 'presence', presence };
  },
  counters: (body) => ({ kind: 'counters', counters: readCounters(body) }),
  thinned: (body) => ({ kind: 'thinned', count: count(body['state']) + count(body['ephemeral']) }),
  disconnect(body) {
    const code = body['code'];
    if (typeof code !== 'number') return undefined;
    const reconnect = body['reconnect'];
    return {
      kind: 'disconnect',
      code,
      reason: text(body['reason']) ?? '',
      reconnect: typeof reconnect === 'boolean' ? reconnect : undefined,
      retryAfterMs: number(body['retryAfterMs']),
    };
  },
};

/** Reads `{code, message, temporary, retryAfterMs}`; what is missing gets an honest default. */
export function readError(body: Json): WireError {
  const code = body['code'];
  return {
    code: typeof code === 'string' || typeof code === 'number' ? String(code) : 'unknown',
    message: text(body['message']) ?? text(body['detail']) ?? 'The server gave no reason.',
    temporary: body['temporary'] === true,
    retryAfterMs: number(body['retryAfterMs']),
  };
}

/** Reads who is in a room; undefined where it does not say which. People that make no sense are left out. */
export function readPresence(body: Json): Presence | undefined {
  const { room, users, total } = body;
  if (typeof room !== 'string') return undefined;
  const read = list(users).filter(isObject).flatMap((one): PresentUser[] => {
    const user = text(one['user']);
    return user === undefined ? [] : [{ user, connections: count(one['connections']), since: text(one['since']) ?? '', status: text(one['status']) ?? 'active' }];
  });
  return { room, users: read, total: number(total) ?? read.length };
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

/** A list, empty where there is none. */
export function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function readSession(body: Json): Session {
  const limits = isObject(body['limits']) ? body['limits'] : {};
  const ping = body['pingSeconds'];
  return {
    connection: text(body['connection']) ?? '',
    user: text(body['user']) ?? '',
    roles: texts(body['roles']),
    epoch: text(body['epoch']) ?? '',
    pingSeconds: typeof ping === 'number' && ping > 0 && ping <= PING_SECONDS_MAX ? ping : PING_SECONDS_DEFAULT,
    resumeSeconds: number(limits['resumeSeconds']) ?? 0,
    expiresAt: text(body['expiresAt']),
    serverTime: text(body['serverTime']),
  };
}

function readAnswer(value: unknown): RoomAnswer | undefined {
  if (!isObject(value) || typeof value['room'] !== 'string') return undefined;
  const recovery = value['recovery'];
  return {
    room: value['room'],
    // An unknown word promises nothing, so the room starts over.
    recovery: recovery === 'complete' || recovery === 'fresh' ? recovery : 'incomplete',
    cursor: text(value['cursor']),
    reason: text(value['reason']),
    error: isObject(value['error']) ? readError(value['error']) : undefined,
  };
}

function malformed(why: string): ServerFrame {
  return { kind: 'malformed', why };
}

/** A text, or nothing. */
export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function number(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? value : 0;
}

/** A list's texts. */
export function texts(value: unknown): string[] {
  return list(value).filter((item) => typeof item === 'string');
}
