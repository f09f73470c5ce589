/**
 * A value that changes often and is shown at most once per frame. Written by `live.ts`, read by components through
 * `useStore`. However many events a frame brings, each component renders once.
 */

import { useSyncExternalStore } from 'react';

/** Rendering pace of a hidden page, in milliseconds; frames do not come there. */
const HIDDEN_MS = 500;

const dirty = new Set<Store<unknown>>();
let scheduled = false;

/** One value and who watches it. */
export class Store<T> {
  #shown: T;
  #next: T;
  readonly #watchers = new Set<() => void>();

  constructor(initial: T) {
    this.#shown = initial;
    this.#next = initial;
  }

  /** The newest value, perhaps not on the screen yet. */
  get now(): T {
    return this.#next;
  }

  /** Changes the value; watchers hear of it with the next frame. */
  update(change: (value: T) => T): void {
    const next = change(this.#next);
    if (Object.is(next, this.#next)) return;
    this.#next = next;
    dirty.add(this as Store<unknown>);
    schedule();
  }

  /** Shows the newest value to the watchers. */
  publish(): void {
    this.#shown = this.#next;
    for (const watcher of this.#watchers) watcher();
  }

  readonly shown = (): T => this.#shown;

  readonly watch = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };
}

/** The value of a store, as a component sees it. */
export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.watch, store.shown);
}

function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  if (document.visibilityState === 'visible') requestAnimationFrame(flush);
  else setTimeout(flush, HIDDEN_MS);
}

function flush(): void {
  if (!scheduled) return;
  scheduled = false;
  const stores = [...dirty];
  dirty.clear();
  for (const store of stores) store.publish();
}

// A frame that was asked for before the page was hidden comes only when it is seen again: the value would wait unbounded.
if (typeof document !== 'undefined') {
  document.addEventListener('visibilitychange', () => {
    if (scheduled) setTimeout(flush, 0);
  });
}
