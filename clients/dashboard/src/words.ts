/** What people call types of events and rooms: as the configuration says, else made readable. Pure. */

import type { PageConfig } from './page.js';

/** `booking:new` → `Booking new`, `orderCreated` → `Order created`, `os_dashboard` → `Os dashboard`. */
export function readable(name: string): string {
  const words = name
    .replaceAll(/(\p{Ll})(\p{Lu})/gu, (_, end: string, begin: string) => `${end} ${begin.toLowerCase()}`)
    .replaceAll(/[\s._:/-]+/g, ' ')
    .trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A type of events. */
export function wordOfType(config: Pick<PageConfig, 'events'>, type: string): string {
  return config.events.get(type)?.label ?? readable(type);
}

/** A room: by its own name, by `property.*`, by the title of the one list that shows it, or made readable. */
export function wordOfRoom(config: Pick<PageConfig, 'rooms' | 'views'>, room: string): string {
  const named = config.rooms.get(room);
  if (named !== undefined) return named;
  const dot = room.indexOf('.');
  const family = dot < 0 ? undefined : config.rooms.get(`${room.slice(0, dot)}.*`);
  if (family !== undefined) return family.replaceAll('*', room.slice(dot + 1));
  const lists = config.views.flatMap((view) => view.lists).filter(({ rooms }) => rooms.length === 1 && rooms[0] === room);
  return lists.length === 1 && lists[0] !== undefined ? lists[0].title : readable(room);
}

/** Rooms of one kind; without a name, one room by itself. */
export interface Family {
  readonly name: string | undefined;
  readonly rooms: readonly string[];
}

/** Rooms that are one of many, `property.4`, by what comes before the dot; the others each by itself. In order. */
export function families(rooms: readonly string[], least: number): Family[] {
  const of = (room: string): string | undefined => (room.includes('.') ? room.slice(0, room.indexOf('.')) : undefined);
  const found = new Map<string, string[]>();
  for (const room of rooms) {
    const family = of(room);
    if (family !== undefined) found.set(family, [...(found.get(family) ?? []), room]);
  }
  const told = new Set<string>();
  return rooms.flatMap((room): Family[] => {
    const family = of(room);
    const all = family === undefined ? undefined : found.get(family);
    if (family === undefined || all === undefined || all.length < least) return [{ name: undefined, rooms: [room] }];
    if (told.has(family)) return [];
    told.add(family);
    return [{ name: family, rooms: all }];
  });
}
