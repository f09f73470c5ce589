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

function turn(): void {
  if (document.visibilityState !== 'visible') return;
  tick = Date.now();
  for (const each of watchers) each();
}

function watch(watcher: () => void): () => void {
  watchers.add(watcher);
  if (timer === undefined) {
    tick = Date.now();
    timer = setInterval(turn, TICK_MS);
    document.addEventListener('visibilitychange', turn);
  }
  return () => {
    watchers.delete(watcher);
    if (watchers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
    document.removeEventListener('visibilitychange', turn);
  };
}

/** What `read` makes of the server's time; renders again only when that is something else. */
export function useClock<T extends string | number | boolean | undefined>(read: (now: number) => T): T {
  const { live } = usePage();
  return useSyncExternalStore(watch, () => read(tick + (live.client.serverNow() - Date.now())));
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
  const text = useClock((now) => format.ago(at, now));
  return (
    // What nobody points at need not be written out.
    <time dateTime={new Date(at).toISOString()} onPointerEnter={({ currentTarget }) => (currentTarget.title = format.full(at))}>
      {text}
    </time>
  );
}
