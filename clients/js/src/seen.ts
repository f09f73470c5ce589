/**
 * Remembers which events were delivered, so that none is shown twice, whichever way it came a second time.
 * Bounded: the oldest entries are forgotten first.
 */

/** How many events one subscription remembers. Twice the largest recovery a gateway serves from memory for one quiet room. */
export const SEEN_MAX = 4_096;

/** A set of `(source, id)` pairs and cursors with a bound. */
export class Seen {
  // A Set iterates in order of insertion, which makes the first key the oldest.
  readonly #keys = new Set<string>();
  readonly #max: number;

  constructor(max: number = SEEN_MAX) {
    this.#max = max;
  }

  /** Remembers an event; false when it, or another one at the same place of the room, was here before. */
  add(source: string, id: string, cursor?: string): boolean {
    // Length first, so that no pair of texts can be confused with another.
    const name = `${source.length}:${source}${id}`;
    const place = cursor === undefined ? undefined : `@${cursor}`;
    if (this.#keys.has(name) || (place !== undefined && this.#keys.has(place))) return false;
    this.#put(name);
    if (place !== undefined) this.#put(place);
    return true;
  }

  #put(key: string): void {
    this.#keys.add(key);
    if (this.#keys.size > this.#max * 2) {
      for (const oldest of this.#keys) return void this.#keys.delete(oldest);
    }
  }
}
