/**
 * Why nothing arrives, for a person on the telephone. Pure: what is known goes in, sentences and tables come out, and the
 * same as a text to send to somebody. Never a token, never the content of an event.
 */

import type { ConnectionState, Counters } from 'roomcast';
import type { Format } from './format.js';
import type { RoomView } from './live.js';

/** One answer to "why": the worst first. */
export interface Finding {
  readonly tone: 'green' | 'amber' | 'red';
  readonly text: string;
  /** What helps. */
  readonly help: string;
}

/** One room as it stands. */
export interface RoomFacts {
  readonly room: string;
  readonly state: string;
  readonly cursor: string | undefined;
  readonly keys: number;
  readonly heard: number;
  readonly lastAt: number | undefined;
  readonly refusal: string | undefined;
}

/** Everything a diagnosis is made from. */
export interface Known {
  readonly state: ConnectionState;
  readonly counters: Counters;
  readonly rooms: readonly RoomFacts[];
  readonly lastEventAt: number | undefined;
  /** Server's clock minus this machine's, in milliseconds. */
  readonly skewMs: number;
  /** Now, by the server's clock. */
  readonly now: number;
  readonly transport: string | undefined;
  readonly claims: Record<string, unknown>;
  readonly zone: string;
}

/** A clock further off than this is worth a word, in milliseconds. */
const SKEW_MS = 2_000;
/** A sign-in that ends sooner is worth a word, in milliseconds. */
const EXPIRES_SOON_MS = 120_000;
/** Silence longer than this is worth a word, in milliseconds. */
const SILENCE_MS = 300_000;

/** What the page knows of one room. */
export function roomFacts(held: { room: string; cursor: string | undefined; joined: boolean; caughtUp: boolean; keys: number }, view: RoomView | undefined): RoomFacts {
  const refusal = view?.error === undefined ? undefined : `${view.error.code}: ${view.error.message}`;
  const state = refusal !== undefined ? 'refused' : held.caughtUp ? 'up to date' : held.joined ? 'catching up' : 'not open';
  return { room: held.room, state, cursor: held.cursor, keys: held.keys, heard: view?.heard ?? 0, lastAt: view?.lastAt, refusal };
}

/** Why nothing may arrive, the worst first; when all is well, that. */
export function findings(known: Known, format: Format): Finding[] {
  const found: Finding[] = [];
  const { state } = known;
  const say = (tone: Finding['tone'], text: string, help: string): number => found.push({ tone, text, help });
  if (state.status === 'closed') say('red', `The connection has ended: ${state.error?.message ?? 'no reason was given'}`, state.error?.isAuth === true ? 'Sign in again.' : 'Load the page again; if that does not help, show this text to whoever runs the gateway.');
  else if (state.status === 'paused') say('amber', 'You have paused the page.', 'Press Resume: what you missed comes then.');
  else if (state.offlineSince !== undefined && state.status !== 'live') say('red', `This machine has no network since ${format.time(state.offlineSince, known.now)}.`, 'Check the network; the page comes back by itself.');
  else if (state.status === 'waiting') say('red', `The gateway cannot be reached (${state.attempt} attempts): ${state.error?.message ?? 'no answer'}`, 'Check that it runs and that no proxy blocks WebSockets.');
  else if (state.status !== 'live') say('amber', 'The page is connecting.', 'Wait a few seconds.');
  if (state.stale !== undefined) say('amber', 'The gateway has lost its own source: what you see may be old.', 'Nothing is lost; whoever runs the gateway sees it as "stale".');
  const refused = known.rooms.filter(({ refusal }) => refusal !== undefined);
  if (refused.length > 0) say('amber', `${refused.length === 1 ? 'A room is' : `${refused.length} rooms are`} refused: ${refused.map(({ room }) => room).join(', ')}.`, `Your roles (${state.session?.roles.join(', ') || 'none'}) do not open ${refused.length === 1 ? 'it' : 'them'}; ask whoever manages roles.`);
  if (Math.abs(known.skewMs) > SKEW_MS) say('amber', `This machine's clock is ${span(Math.abs(known.skewMs))} ${known.skewMs > 0 ? 'slow' : 'fast'}.`, 'The page reckons with the server’s clock, so events still arrive; set the clock for everything else.');
  const expires = state.session?.expiresAt === undefined ? Number.NaN : Date.parse(state.session.expiresAt);
  if (state.status === 'live' && expires - known.now < EXPIRES_SOON_MS) say('amber', `The sign-in ends at ${format.time(expires)}.`, 'Sign in again, or let the page fetch a newer token.');
  if (known.counters.malformed + known.counters.unknown > 0) say('amber', `${format.count(known.counters.malformed)} messages could not be read, ${format.count(known.counters.unknown)} were of a kind this page does not know.`, 'A newer gateway may say more than this page knows: load the page again.');
  if (state.status === 'live' && known.lastEventAt !== undefined && known.now - known.lastEventAt > SILENCE_MS) say('amber', `Nothing has come since ${format.time(known.lastEventAt, known.now)}.`, 'The line is open, so nothing was published that you may see. Ask whoever publishes.');
  if (state.status === 'live' && known.lastEventAt === undefined) say('amber', 'Connected, and nothing has come yet.', 'Nothing was published that you may see.');
  if (found.length === 0) say('green', 'Everything works: connected, all rooms up to date.', 'If something is missing all the same, it was not published, or not for your roles.');
  return found.sort((a, b) => RANK[a.tone] - RANK[b.tone]);
}

const RANK = { red: 0, amber: 1, green: 2 };

/** Facts of the connection, by name. */
export function facts(known: Known, format: Format): [string, string][] {
  const { session, status } = known.state;
  const expires = session?.expiresAt === undefined ? undefined : Date.parse(session.expiresAt);
  return [
    ['State', status],
    ['Transport', status === 'live' ? (known.transport ?? 'WebSocket') : '–'],
    ['Signed in as', session === undefined ? String(known.claims['sub'] ?? '–') : session.user],
    ['Roles', session?.roles.join(', ') || 'none'],
    ['Sign-in ends', expires === undefined ? '–' : format.full(expires)],
    ['Connection', session?.connection ?? '–'],
    ['Resume promise', session === undefined || session.resumeSeconds === 0 ? '–' : format.span(session.resumeSeconds * 1_000)],
    ['Last event', known.lastEventAt === undefined ? 'none yet' : format.full(known.lastEventAt)],
    ['This machine’s clock', Math.abs(known.skewMs) <= SKEW_MS ? 'right' : `${span(Math.abs(known.skewMs))} ${known.skewMs > 0 ? 'slow' : 'fast'}`],
    ['Business zone', known.zone],
  ];
}

/** What was counted, by name. */
export function counts(counters: Counters, format: Format): [string, string][] {
  const all: [string, number][] = [
    ['Messages read', counters.frames],
    ['Events shown', counters.delivered],
    ['Copies left out', counters.duplicates],
    ['Expired', counters.expired],
    ['Left out by a slow line', counters.thinned],
    ['Not subscribed', counters.unheard],
    ['Unknown kind', counters.unknown],
    ['Unreadable', counters.malformed],
    ['Mistakes of this page', counters.listenerErrors],
    ['Connections made', counters.connects],
    ['Connections lost', counters.losses],
  ];
  return all.map(([name, value]) => [name, format.count(value)]);
}

/** All of it as a text, to be sent to somebody: without tokens, addresses of people and contents. */
export function asText(known: Known, format: Format, browser: string): string {
  const lines = [`Roomcast, ${format.full(known.now)}`, browser, ''];
  for (const { tone, text, help } of findings(known, format)) lines.push(`[${tone}] ${text} ${help}`);
  lines.push('', ...facts(known, format).map(([name, value]) => `${name}: ${value}`));
  lines.push('', ...counts(known.counters, format).map(([name, value]) => `${name}: ${value}`), '');
  for (const room of known.rooms) lines.push(`${room.room}: ${room.state}, cursor ${room.cursor ?? '–'}, ${room.keys} keys, ${room.heard} heard, last ${room.lastAt === undefined ? '–' : format.full(room.lastAt)}${room.refusal === undefined ? '' : `, ${room.refusal}`}`);
  return lines.join('\n');
}

/** "1 h 3 min", "42 s". */
function span(ms: number): string {
  const seconds = Math.round(ms / 1_000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
