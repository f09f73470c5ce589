/** Why something is not there, for people: what it is, and whether anybody has to do something. Pure. */

import type { RoomcastError } from 'roomcast';

const WORDS: Readonly<Record<string, string>> = {
  network: 'The gateway cannot be reached.',
  timeout: 'The gateway did not answer in time.',
  unavailable: 'The gateway cannot answer at the moment.',
  rate: 'Too much was asked for at once.',
};

/** Whether it stays as it is until somebody's rights are changed: nothing of what was there before may be shown on. */
export function isRefusal(error: Pick<RoomcastError, 'isAuth' | 'temporary'> | undefined): boolean {
  return error !== undefined && !error.isAuth && !error.temporary;
}

/** One or two sentences; `what` is what the reader wanted to see. */
export function reason({ code, message, temporary }: Pick<RoomcastError, 'code' | 'message' | 'temporary'>, what: string): string {
  if (code === 'forbidden' || code === 'unknown_room') return `Your roles do not include ${what}.`;
  const said = WORDS[code] ?? (/[.!?]$/.test(message) ? message : `${message}.`);
  return temporary ? `${said} It is asked for again by itself.` : said;
}
