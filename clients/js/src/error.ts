/**
 * What went wrong, typed by code. Codes come from the server's closed list; the client adds a few of its own for
 * what happens before or without a server. An unknown code is kept as it is and treated by its `temporary` flag.
 */

/** Codes a caller may want to tell apart. The list is open at the end: newer servers may say more. */
export type ErrorCode =
  // The server's, as far as a client may want to tell them apart:
  | 'forbidden'
  | 'unknown_room'
  | 'unauthenticated'
  | 'expired'
  | 'unavailable'
  | 'unknown'
  | 'internal'
  | 'bad_room'
  | 'bad_request'
  | 'bad_origin'
  | 'conflict'
  | 'too_large'
  | 'rate'
  | 'quota'
  | 'limit'
  // Ends of a connection:
  | 'drain'
  | 'too_slow'
  | 'no_pong'
  | 'resync'
  | 'revoked'
  | 'protocol'
  // The client's own:
  | 'no_token'
  | 'unsupported'
  | 'network'
  | 'offline'
  | 'timeout'
  | (string & {});

/** Facts beside the message of a {@link RoomcastError}. */
export interface ErrorFacts {
  /** Worth trying again later without change. */
  temporary?: boolean | undefined;
  /** The server's wish, in milliseconds. */
  retryAfterMs?: number | undefined;
  /** HTTP status, when it came over HTTP. */
  status?: number | undefined;
  /** WebSocket close code, when a close said it. */
  closeCode?: number | undefined;
  /** The room it is about. */
  room?: string | undefined;
}

/** Every error the client hands out. Compare `code`, show `message`. */
export class RoomcastError extends Error {
  declare readonly code: ErrorCode;
  declare readonly temporary: boolean;
  declare readonly retryAfterMs: number | undefined;
  declare readonly status: number | undefined;
  declare readonly closeCode: number | undefined;
  declare readonly room: string | undefined;

  constructor(code: ErrorCode, message: string, facts: ErrorFacts = {}) {
    super(message);
    this.name = 'RoomcastError';
    const { temporary = false, retryAfterMs, status, closeCode, room } = facts;
    Object.assign(this, { code, temporary, retryAfterMs, status, closeCode, room });
  }

  /** True when a new sign-in is what helps. */
  get isAuth(): boolean {
    return AUTH_CODES.has(this.code);
  }
}

const AUTH_CODES: ReadonlySet<string> = new Set(['unauthenticated', 'expired', 'revoked', 'no_token']);

/** An error that may pass. */
export function passing(code: ErrorCode, message: string, facts: ErrorFacts = {}): RoomcastError {
  return new RoomcastError(code, message, { temporary: true, ...facts });
}

/** Nothing can be asked at the moment. */
export function offline(): RoomcastError {
  return passing('offline', 'There is no connection.');
}

/** Whatever was thrown, as an error of ours; what is not one may pass. */
export function asError(thrown: unknown): RoomcastError {
  return thrown instanceof RoomcastError ? thrown : passing('network', String(thrown));
}
