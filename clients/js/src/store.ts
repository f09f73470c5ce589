/**
 * Values that change and tell it: what views are made of. A store is lazy: it works while somebody watches, and a moment
 * longer, so that a view that is taken down and put up again finds its data. Watchers hear at most once per frame,
 * however many events a frame brings.
 */

/** One value and who watches it. */
export interface Store<T> {
  /** The present value: the same object until it changes. */
  get(): T;
  /** Calls the listener after changes, at most once per frame, and at once after what a reader sets here. Returns how to stop. */
  subscribe(listener: () => void): () => void;
}

/** How long a store goes on working without a watcher, in milliseconds. */
export const LINGER_MS = 5_000;
/** Pace of watchers while nobody can see them, in milliseconds; frames do not come there. */
const HIDDEN_MS = 250;

const dirty = new Set<Cell<unknown>>();
let scheduled = false;

/** A store that its owner sets. `start` runs with the first watcher and answers how to stop. */
export class Cell<T> implements Store<T> {
  #value: T;
  /** Makes the value when somebody looks: a hundred events in a frame make one list, not a hundred. */
  #make: (() => T) | undefined;
  readonly #start: (() => () => void) | undefined;
  #stop: (() => void) | undefined;
  #linger: ReturnType<typeof setTimeout> | undefined;
  readonly #watchers = new Set<() => void>();

  constructor(initial: T, start?: () => () => void) {
    this.#value = initial;
    this.#start = start;
  }

  readonly get = (): T => {
    if (this.#make !== undefined) {
      const make = this.#make;
      this.#make = undefined;
      this.#value = make();
    }
    return this.#value;
  };

  /** Sets the value; watchers hear of it with the next frame. The same value changes nothing. */
  set(value: T): void {
    if (this.#make === undefined && Object.is(value, this.#value)) return;
    this.#make = undefined;
    this.#value = value;
    this.#changed();
  }

  /** The value is another one, made by `make` when somebody looks. */
  change(make: () => T): void {
    this.#make = make;
    this.#changed();
  }

  #changed(): void {
    if (this.#watchers.size === 0) return;
    dirty.add(this as Cell<unknown>);
    schedule();
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    // A listener of its own for every call: the same function may watch twice.
    const watcher = (): void => listener();
    this.#watchers.add(watcher);
    clearTimeout(this.#linger);
    this.#stop ??= this.#start?.();
    return () => {
      if (!this.#watchers.delete(watcher) || this.#watchers.size > 0) return;
      this.#linger = setTimeout(() => {
        this.#stop?.();
        this.#stop = undefined;
      }, LINGER_MS);
    };
  };

  /** Tells the watchers. */
  tell(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

/**
 * A part of a store, or something made of it; watchers hear only when it is another by `equal` (default: `Object.is`).
 * `selector` must be pure.
 */
export function select<T, U>(store: Store<T>, selector: (value: T) => U, equal: (a: U, b: U) => boolean = Object.is): Store<U> {
  let from: T | undefined;
  let value: { readonly selected: U } | undefined;
  const get = (): U => {
    const next = store.get();
    if (value !== undefined && Object.is(next, from)) return value.selected;
    const selected = selector(next);
    from = next;
    if (value === undefined || !equal(value.selected, selected)) value = { selected };
    return value.selected;
  };
  return {
    get,
    subscribe(listener) {
      let before = get();
      return store.subscribe(() => {
        const now = get();
        if (Object.is(before, now)) return;
        before = now;
        listener();
      });
    },
  };
}

/** Equal when all members are, one level deep. For selectors that answer objects or arrays. */
export function shallowEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  const keys = Object.keys(a);
  const other = b as Record<string, unknown>;
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && Object.is((a as Record<string, unknown>)[key], other[key]));
}

function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  const page = globalThis as Partial<Pick<typeof globalThis, 'document' | 'requestAnimationFrame'>>;
  if (page.document === undefined || page.requestAnimationFrame === undefined) return void queueMicrotask(flush);
  // A frame that was asked for before the page was hidden comes only when it is seen again; the timer is for that.
  if (page.document.visibilityState === 'visible') page.requestAnimationFrame(flush);
  setTimeout(flush, HIDDEN_MS);
}

function flush(): void {
  if (!scheduled) return;
  scheduled = false;
  const cells = [...dirty];
  dirty.clear();
  for (const cell of cells) cell.tell();
}
