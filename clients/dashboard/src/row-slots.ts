/**
 * Which element of the document shows which row. A row that leaves the screen gives its element to one that comes, so that a
 * jump over thousands of rows writes texts instead of building rows.
 */

import { useRef } from 'react';

/** Elements by what they show. */
export interface Slots {
  readonly byId: Map<string, number>;
  next: number;
}

/** None yet. */
export function noSlots(): Slots {
  return { byId: new Map(), next: 0 };
}

/**
 * Gives each of `ids` a slot: the one it has, else one that is free, else a new one. `isNew` rows get a new one in any case:
 * what they do when they appear is the element's.
 */
export function assign(slots: Slots, ids: readonly string[], isNew: (index: number) => boolean): number[] {
  const wanted = new Set(ids);
  const free: number[] = [];
  for (const [id, slot] of slots.byId) {
    if (wanted.has(id)) continue;
    slots.byId.delete(id);
    free.push(slot);
  }
  free.reverse();
  return ids.map((id, index) => {
    const has = slots.byId.get(id);
    if (has !== undefined) return has;
    const slot = (isNew(index) ? undefined : free.pop()) ?? slots.next++;
    slots.byId.set(id, slot);
    return slot;
  });
}

/** The slots of a list's rows, as keys for React. */
export function useSlots(ids: readonly string[], isNew: (index: number) => boolean): number[] {
  const slots = useRef<Slots>(undefined);
  slots.current ??= noSlots();
  return assign(slots.current, ids, isNew);
}
