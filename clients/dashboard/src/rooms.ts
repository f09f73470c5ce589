/** Which rooms a page follows, and how much of their past it wants. Pure. */

import type { PageConfig } from './page.js';

/** Events loaded for the first paint of a list. */
const HISTORY = 200;
/** Rooms one name with a claim in it may become; a connection has room for 128. */
const ROOMS_PER_NAME_MAX = 64;

/** Fills `{claim}` in a room's name from what the token says: one room for each value, as the policy does. */
export function expand(name: string, claims: Record<string, unknown>): string[] {
  const claim = /\{([a-z_]+)\}/.exec(name)?.[1];
  if (claim === undefined) return [name];
  const value = claims[claim === 'user' ? 'sub' : claim];
  const values = (Array.isArray(value) ? value : [value]).filter((one): one is string | number => typeof one === 'string' || typeof one === 'number');
  return values.slice(0, ROOMS_PER_NAME_MAX).map((one) => name.replace(`{${claim}}`, String(one)));
}

/** Every room of the page with the events of its past that are wanted: 1 where only its numbers count. */
export function roomsOf(config: PageConfig, claims: Record<string, unknown>): Map<string, number> {
  const rooms = new Map<string, number>([[config.metrics, 1]]);
  const want = (room: string | undefined, history: number): void => {
    if (room !== undefined) rooms.set(room, Math.max(history, rooms.get(room) ?? 0));
  };
  want(config.notifications, 1);
  for (const view of config.views) {
    for (const { room } of [...view.cards, ...view.charts, ...view.rankings]) want(room, 1);
    for (const list of view.lists) {
      const all = list.rooms.flatMap((name) => expand(name, claims));
      // Many rooms share the screen, so each brings less.
      for (const room of all) want(room, Math.max(20, Math.round(HISTORY / Math.max(1, all.length))));
    }
  }
  return rooms;
}
