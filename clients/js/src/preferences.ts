/** How a user wants to be told of notifications: kept by the server, the same on every device, and what it means now. */

import type { RoomcastClient } from './api.js';
import { asError, RoomcastError } from './error.js';
import type { CloudEvent } from './event.js';
import { isObject, texts, type Json } from './frame.js';
import { Cell, type Store } from './store.js';

/** What a user set. A member that is undefined was never set: as the page likes it. */
export interface Preferences {
  /** Of these types, in these rooms, nothing is announced; 64 of each at most. */
  readonly mute: { readonly types: readonly string[]; readonly rooms: readonly string[] } | undefined;
  /** False: silently. */
  readonly sounds: boolean | undefined;
  /** Each day from `HH:MM` to the minute before `HH:MM` by the clock of the zone (IANA) nothing is announced; `to` before `from` is of the next day. */
  readonly quiet: { readonly from: string; readonly to: string; readonly zone: string } | undefined;
  /** False: nothing outside of the page. */
  readonly desktop: boolean | undefined;
}

/** What is to be another way; null takes a member away. */
export type PreferencesChange = { readonly [K in keyof Preferences]?: Preferences[K] | null };

/** What a page shows of them. */
export interface PreferencesView {
  readonly loaded: boolean;
  /** Why they could not be read. */
  readonly error: RoomcastError | undefined;
  readonly preferences: Preferences;
}

/** The preferences of whoever is signed in. */
export interface PreferencesStore extends Store<PreferencesView> {
  /** Sets some, here at once and then for every device; what is refused is taken back. Throws `RoomcastError`: `offline`, `bad_request` (nothing was changed), `unavailable`. */
  set(change: PreferencesChange): Promise<void>;
}

const made = new WeakMap<object, PreferencesStore>();

/** The preferences of whoever is signed in; the same store for all who ask. */
export function preferences(client: RoomcastClient): PreferencesStore {
  let store = made.get(client);
  if (store === undefined) made.set(client, (store = make(client)));
  return store;
}

function make(client: RoomcastClient): PreferencesStore {
  let version = -1;
  let user: string | undefined;
  let kept: Json = {};
  // What is on its way to the server stays on the screen, whatever is heard meanwhile.
  const wishes = new Set<PreferencesChange>();
  const shown = (): Preferences => readPreferences(Object.assign({}, kept, ...wishes));
  const take = (body: Json): void => {
    const said = typeof body['version'] === 'number' ? body['version'] : 0;
    // An answer that was overtaken by a newer word.
    if (said < version) return;
    version = said;
    kept = body['preferences'] as Json;
    cell.set({ loaded: true, error: undefined, preferences: shown() });
  };
  const ask = async (body: Json): Promise<void> => take(await client.request('preferences', body));
  const read = (): void => {
    const { status, session } = client.connection;
    if (status !== 'live') return;
    // Somebody else's are not shown on.
    if (session?.user !== user) version = -1;
    user = session?.user;
    ask({}).catch((thrown: unknown) => cell.set({ ...cell.get(), loaded: true, error: asError(thrown) }));
  };
  const cell: Cell<PreferencesView> = new Cell<PreferencesView>({ loaded: false, error: undefined, preferences: readPreferences({}) }, () => {
    const unlisten = client.onNotification((push) => push.kind === 'preferences' && take(push.body));
    let since: number | undefined;
    const off = client.onConnection((state) => {
      // Each connection once.
      if (state.status === 'live' && state.since !== since) read();
      since = state.status === 'live' ? state.since : undefined;
    });
    read();
    return () => {
      unlisten();
      off();
    };
  });
  const set = async (change: PreferencesChange): Promise<void> => {
    wishes.add(change);
    const show = (): void => cell.set({ ...cell.get(), preferences: shown() });
    show();
    // With the next frame would be too late: a controlled switch is turned back until then.
    cell.tell();
    try {
      await ask({ set: change });
    } finally {
      wishes.delete(change);
      show();
    }
  };
  return { get: cell.get, subscribe: cell.subscribe, set };
}

/** Reads preferences; what makes no sense was not set. */
export function readPreferences(value: unknown): Preferences {
  const said = isObject(value) ? value : {};
  const { mute, quiet } = said;
  const bool = (name: string): boolean | undefined => (typeof said[name] === 'boolean' ? said[name] : undefined);
  return {
    mute: isObject(mute) ? { types: texts(mute['types']), rooms: texts(mute['rooms']) } : undefined,
    sounds: bool('sounds'),
    quiet: isObject(quiet) && isTime(quiet['from']) && isTime(quiet['to']) ? { from: quiet['from'], to: quiet['to'], zone: String(quiet['zone'] ?? 'UTC') } : undefined,
    desktop: bool('desktop'),
  };
}

/** Whether an event is announced at an instant (milliseconds since the Unix epoch): it is not muted, and the hours are not quiet. */
export function announces({ mute, quiet }: Preferences, event: Pick<CloudEvent, 'type' | 'room'>, at: number): boolean {
  if (mute?.types.includes(event.type) === true || (event.room !== undefined && mute?.rooms.includes(event.room) === true)) return false;
  if (quiet === undefined) return true;
  const now = clockOf(at, quiet.zone);
  if (now === undefined) return true;
  const { from, to } = quiet;
  const isQuiet = from <= to ? now >= from && now < to : now >= from || now < to;
  return !isQuiet;
}

/** `HH:MM` by the clock of a zone; undefined for a zone that is not known here. */
function clockOf(at: number, timeZone: string): string | undefined {
  try {
    return new Intl.DateTimeFormat('en-GB', { timeZone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }).format(at);
  } catch {
    return undefined;
  }
}

function isTime(value: unknown): value is string {
  return typeof value === 'string' && /^([01]\d|2[0-3]):[0-5]\d$/.test(value);
}
