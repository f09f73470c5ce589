/**
 * A value that changes often and is shown at most once per frame. Written by `live.ts`, read by components through
 * `useStore`. However many events a frame brings, each component renders once.
 */

import { Cell } from 'roomcast';

export { useStore } from 'roomcast/react';

/** The SDK's cell, written by changes. */
export class Store<T> extends Cell<T> {
  /** The newest value, perhaps not on the screen yet. */
  get now(): T {
    return this.get();
  }

  /** Changes the value; watchers hear of it with the next frame. */
  update(change: (value: T) => T): void {
    this.set(change(this.get()));
  }
}
