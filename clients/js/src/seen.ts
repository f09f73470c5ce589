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

  /** Remembers an event; false when it, or another one at the same place of the room, was here before. */
  add(source: string, id: string, cursor?: string): boolean {
    // Length first, so that no pair of texts can be confused with another.
    const names = [`${source.length}:${source}${id}`];
    if (cursor !== undefined) names.push(`@${cursor}`);
    if (names.some((name) => this.#keys.has(name))) return false;
    for (const name of names) this.#keys.add(name);
    for (const oldest of this.#keys) {
      if (this.#keys.size <= SEEN_MAX * 2) break;
      this.#keys.delete(oldest);
    }
    return true;
  }
}
