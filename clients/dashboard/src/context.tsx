/** What every component may need: the live stores, the formats, and a clock that moves slowly. */

import { createContext, useContext, useSyncExternalStore } from 'react';
import type { Format } from './format.js';
import type { Live } from './live.js';
import type { PageConfig } from './page.js';

/** Shared by all components below the frame. */
export interface Page {
  readonly config: PageConfig;
  readonly live: Live;
  readonly format: Format;
}

/** Provided once by `app.tsx`. */
export const PageContext = createContext<Page | undefined>(undefined);

/** The page's shared values. */
export function usePage(): Page {
  const page = useContext(PageContext);
  if (page === undefined) throw new Error('usePage outside of a page');
  return page;
}

/** How often relative times age, in milliseconds. One timer for all, and none while nobody looks. */
const TICK_MS = 5_000;

const watchers = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;
let tick = Date.now();

function watch(watcher: () => void): () => void {
  watchers.add(watcher);
  timer ??= setInterval(() => {
    if (document.visibilityState !== 'visible') return;
    tick = Date.now();
    for (const each of watchers) each();
  }, TICK_MS);
  return () => {
    watchers.delete(watcher);
    if (watchers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

/** The server's time, renewed every few seconds. */
export function useNow(): number {
  const { live } = usePage();
  const local = useSyncExternalStore(watch, () => tick);
  return local + (live.client.serverNow() - Date.now());
}

/** "2 min ago", exact on hover. */
export function RelativeTime({ at }: { at: number }) {
  const { format } = usePage();
  const now = useNow();
  return (
    <time dateTime={new Date(at).toISOString()} title={format.full(at)}>
      {format.ago(at, now)}
    </time>
  );
}
