/** Web Locks, by which tabs and workers hear that one of them is gone, however it went: its lock is free then. */

/** The browser's locks; undefined where there are none, as on pages that came over plain HTTP. */
export function lockManager(): LockManager | undefined {
  return (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
}

/** Name of the lock that a tab holds as long as it lives. */
export function tabLock(tab: string): string {
  return `roomcast:tab:${tab}`;
}

/** Takes a lock for as long as this tab or worker lives. False where there are no locks, or it may not have any. */
export function holdLock(name: string): Promise<boolean> {
  const locks = lockManager();
  if (locks === undefined) return Promise.resolve(false);
  return new Promise((held) => {
    locks.request(name, { ifAvailable: true }, (lock) => {
      held(true);
      // Held before: by this tab itself, which was closed and connects again.
      return lock === null ? undefined : new Promise(() => undefined);
    }).catch(() => held(false));
  });
}

/** Calls back when nobody holds a lock any more. Returns how to stop waiting. */
export function whenFree(name: string, free: () => void): () => void {
  const stop = new AbortController();
  lockManager()?.request(name, { signal: stop.signal }, async () => free()).catch(() => undefined);
  return () => stop.abort();
}
