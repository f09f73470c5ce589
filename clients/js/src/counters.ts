/** What was not delivered, and why. Nothing is dropped silently; `client.counters` shows it. */

/** Counts since the client was made. */
export interface Counters {
  /** Messages read from sockets. */
  frames: number;
  /** Events handed to at least one listener. */
  delivered: number;
  /** Events that had been delivered before. */
  duplicates: number;
  /** Events whose `expirytime` had passed. */
  expired: number;
  /** Events of rooms nobody listens to. */
  unheard: number;
  /** State values and ephemeral events that the server left out because this line was too slow for all of them. */
  thinned: number;
  /** Well-formed messages of a kind this version does not know. */
  unknown: number;
  /** Messages that could not be read. */
  malformed: number;
  /** Exceptions thrown by listeners. */
  listenerErrors: number;
  /** Times a connection went live. */
  connects: number;
  /** Times a connection that was live ended without the user's wish. */
  losses: number;
}

/** All at zero. */
export function newCounters(): Counters {
  return { frames: 0, delivered: 0, duplicates: 0, expired: 0, unheard: 0, thinned: 0, unknown: 0, malformed: 0, listenerErrors: 0, connects: 0, losses: 0 };
}
