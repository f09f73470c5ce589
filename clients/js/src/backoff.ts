/**
 * How long to wait before trying again. Pure: the random number is an argument.
 * Called by the connection machine; never sleeps.
 */

/** Longest first wait, in milliseconds: a killed gateway is back in reach within a second. */
export const BACKOFF_BASE_MS = 1_000;
/** Longest wait of all, in milliseconds. There is no last attempt. */
export const BACKOFF_CAP_MS = 30_000;
/** Shortest wait, so that a server that accepts and drops at once is not asked in a tight loop. */
export const BACKOFF_FLOOR_MS = 50;
/** A server's hint above this is taken for a mistake and cut, in milliseconds. */
export const HINT_MAX_MS = 300_000;

/**
 * Full jitter: uniform between the floor and `min(cap, base · 2^attempt)`, so that clients that lost the same
 * gateway come back spread over the whole span.
 *
 * `attempt` counts failures since the last stable connection (0 = none yet); `random` lies in [0, 1).
 */
export function backoffMs(attempt: number, random: number): number {
  // 2^20 s is far above the cap already; the bound keeps the power finite for ever.
  const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempt, 20));
  return Math.max(BACKOFF_FLOOR_MS, Math.floor(random * ceiling));
}

/**
 * The wait after a loss, with the server's `retryAfterMs` honoured. The server spreads its hints itself, so a first
 * attempt keeps to it exactly; later ones never come sooner than it.
 */
export function retryDelayMs(attempt: number, random: number, hintMs?: number): number {
  const hint = readHint(hintMs);
  if (hint === undefined) return backoffMs(attempt, random);
  return attempt === 0 ? hint : Math.max(hint, backoffMs(attempt, random));
}

/** A usable hint in milliseconds, or undefined for anything a server should not have sent. */
export function readHint(hintMs: unknown): number | undefined {
  if (typeof hintMs !== 'number' || !Number.isFinite(hintMs) || hintMs < 0) return undefined;
  return Math.min(hintMs, HINT_MAX_MS);
}
