/** Requests of one client that wait for their answers, by the id they were sent with. Knows no socket. */

import { passing, RoomcastError } from './error.js';
import type { Json } from './frame.js';
import type { Room } from './room.js';

/** One that waits. */
export interface Asked {
  /** The room it opens. */
  readonly room?: Room;
  readonly answered?: (body: Json) => void;
  readonly refused?: (error: RoomcastError) => void;
}

/** All of them. */
export class Requests {
  readonly #asked = new Map<number, Asked>();

  /** What came of it is told to `asked`. */
  put(id: number, asked: Asked): void {
    this.#asked.set(id, asked);
  }

  /** The body of the answer. Throws `RoomcastError`; `timeout` when none comes. */
  answer(id: number, name: string, timeoutMs: number): Promise<Json> {
    return new Promise<Json>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(id);
        reject(passing('timeout', `${name}: The server fell silent.`));
      }, timeoutMs);
      const ended =
        <T>(settle: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          settle(value);
        };
      this.#asked.set(id, { answered: ended(resolve), refused: ended(reject) });
    });
  }

  /** The one that an answer is for, which waits no more. */
  done(id: number | undefined): Asked | undefined {
    const asked = this.#asked.get(id as number);
    this.#asked.delete(id as number);
    return asked;
  }

  /** Rooms have their answer: each by its name. */
  roomsAnswered(): void {
    for (const [id, { room }] of this.#asked) if (room !== undefined) this.#asked.delete(id);
  }

  /** The connection is gone, and with it every answer. What was asked may have been done. */
  abandon(): void {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { refused } of asked) refused?.(passing('network', 'The connection ended.'));
  }
}
