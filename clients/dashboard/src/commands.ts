/** Commands that people give: sent once however often they are pressed or the line breaks, each with what came of it. */

import { RoomcastError, type RoomcastClient } from 'roomcast';

/** What became of a command. */
export type Outcome =
  | { readonly state: 'pending' }
  /** There is no connection: it is sent once on return. */
  | { readonly state: 'waiting' }
  | { readonly state: 'done'; readonly data: unknown }
  | { readonly state: 'failed'; readonly why: string; readonly again: boolean };

/** Longest that a backend may take, in milliseconds. */
const TIMEOUT_MS = 10_000;
/** What the way there and back may add, in milliseconds. */
const GRACE_MS = 5_000;

/** A key that nobody has used. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Gives a command under a key: the same key again is the same command, at any gateway. Never throws. Without a connection it waits for one. */
export async function give(client: Pick<RoomcastClient, 'connection' | 'command' | 'request'>, name: string, data: unknown, key: string): Promise<Outcome> {
  try {
    if (client.connection.status !== 'live') return { state: 'done', data: await client.command(name, data, { key }) };
    // Asked once, so that the reader hears of a backend that is away at once, and not after a minute of attempts.
    const answer = await client.request('command', { name, data, key, timeoutMs: TIMEOUT_MS }, TIMEOUT_MS + GRACE_MS);
    return { state: 'done', data: answer['data'] };
  } catch (thrown) {
    return failed(thrown instanceof RoomcastError ? thrown : new RoomcastError('internal', String(thrown)));
  }
}

/** A failure in words that say what to do. */
export function failed(error: RoomcastError): Outcome {
  return { state: 'failed', why: WHY[error.code] ?? error.message, again: error.temporary || error.code === 'unknown' };
}

const WHY: Readonly<Record<string, string>> = {
  unavailable: 'Nobody was there to do it. Nothing was done.',
  unknown: 'It is not known whether it was done. Ask again: it is done once.',
  forbidden: 'Your roles do not include this.',
  network: 'The gateway could not be reached. Ask again: it is done once.',
  timeout: 'It is not known whether it was done. Ask again: it is done once.',
  rate: 'Too many commands at once. Wait a moment.',
  conflict: 'Something else was asked under the same key.',
};
