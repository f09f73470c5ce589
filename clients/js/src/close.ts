/** What a close code asks of the client. Pure table; the range decides what the table does not know. */

import { RoomcastError, type ErrorCode } from './error.js';

/** What to do after a close. */
export type CloseVerdict =
  /** Come back with the same token. */
  | 'return'
  /** Come back with a new token. */
  | 'renew'
  /** Stay away: coming back unchanged would end the same. */
  | 'stay';

/** The client's own: the server stopped pinging. Sent as a close code so that a server's log can tell. */
export const CLOSE_WATCHDOG = 4900;

const NAMES: Readonly<Record<number, ErrorCode>> = {
  1002: 'protocol',
  1003: 'protocol',
  1007: 'protocol',
  1009: 'protocol',
  4001: 'drain',
  4002: 'too_slow',
  4003: 'expired',
  4004: 'no_pong',
  4005: 'resync',
  4006: 'rate',
  4007: 'kicked',
  4500: 'unauthenticated',
  4501: 'revoked',
  4502: 'forbidden',
  4503: 'protocol',
  4504: 'limit',
};

/**
 * Decides by code: 4003 asks for a new token; 4500–4999 and the protocol's refusals stay away; everything else
 * (4000–4499, 1001, a cable pulled: 1006) comes back.
 */
export function closeVerdict(code: number): CloseVerdict {
  if (code === 4003) return 'renew';
  // RFC 6455's own words for "what you sent is wrong": sent again, it would end the same.
  return (code >= 4500 && code <= 4999) || (code < 4000 && NAMES[code] !== undefined) ? 'stay' : 'return';
}

/** The error a close stands for, for `state.error`. */
export function closeError(code: number, reason: string): RoomcastError {
  const name = NAMES[code] ?? (code >= 4000 && code <= 4999 ? 'unknown' : 'network');
  const message = reason !== '' ? reason : `The connection ended with code ${code}.`;
  return new RoomcastError(name, message, { temporary: closeVerdict(code) !== 'stay', closeCode: code });
}
