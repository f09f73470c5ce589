/** What a tab asked and has no answer to yet. It survives the hub that was asked: the next one is asked with the same keys. */

import type { CommandOptions, QueuedCommand } from './api.js';
import { RoomcastError } from './error.js';
import { received, type Method, type ToHub, type ToTab } from './pipe.js';

interface Asked {
  readonly method: Method;
  readonly args: unknown[];
  readonly settle: (value: never) => void;
  readonly fail: (error: RoomcastError) => void;
}

/** How long a backend may take unless a command says it, in milliseconds. */
const COMMAND_MS = 10_000;

/** All of them, by number. */
export class TabAsks {
  readonly #asked = new Map<number, Asked>();
  /** Of those, what a hub was told. */
  readonly #given = new Set<number>();
  readonly #say: (message: ToHub) => boolean;

  /** `say`: to the hub; false if there is none. */
  constructor(say: (message: ToHub) => boolean) {
    this.#say = say;
  }

  /** Asks. `waits`: the hub is not told yet. */
  ask<T>(id: number, method: Method, args: unknown[], waits: boolean): Promise<T> {
    return new Promise<T>((settle, fail) => {
      this.#asked.set(id, { method, args, settle, fail });
      if (!waits) this.#give(id, method, args);
    });
  }

  /** There is another hub, which knows of nothing. `paused`: commands that no hub was told wait. */
  giveAgain(paused: boolean): void {
    for (const [id, { method, args }] of this.#asked) if (method !== 'command' || !paused || this.#given.has(id)) this.#give(id, method, args);
  }

  /** Gives the commands that waited. */
  release(): void {
    for (const [id, { method, args }] of this.#asked) if (method === 'command' && !this.#given.has(id)) this.#give(id, method, args);
  }

  /** The hub's answer to one. */
  answered(message: ToTab & { t: 'answer' | 'refused' }): void {
    const asked = this.#asked.get(message.id);
    this.#asked.delete(message.id);
    this.#given.delete(message.id);
    if (message.t === 'answer') asked?.settle(message.value as never);
    else asked?.fail(received(message.error));
  }

  /** Somebody else is signed in. What a hub was told may have been done, or may be yet, when its user is back. */
  refuse(): void {
    for (const [id, { fail }] of this.#asked) fail(new RoomcastError(this.#given.has(id) ? 'unknown' : 'forbidden', 'Somebody else is signed in.'));
    this.#asked.clear();
    this.#given.clear();
  }

  /** Commands among them. */
  commands(): QueuedCommand[] {
    return [...this.#asked.values()].flatMap(({ method, args }): QueuedCommand[] => {
      if (method !== 'command') return [];
      const { key = '', timeoutMs = COMMAND_MS } = args[2] as CommandOptions;
      return [{ key, name: String(args[0]), data: args[1], at: 0, timeoutMs, user: undefined }];
    });
  }

  #give(id: number, method: Method, args: unknown[]): void {
    if (this.#say({ t: 'ask', id, method, args })) this.#given.add(id);
  }
}
