/** What one tab listens to: its subscriptions, and which of them are held back because of its reader, a pause, or because nobody looks. */

import type { RoomStanding, Subscription } from './api.js';
import type { ToHub, ToTab } from './pipe.js';
import type { RoomHandlers } from './room.js';
import { TabSubscription } from './tab-subscription.js';

/** All of them. */
export class TabRooms {
  readonly #subs = new Map<number, TabSubscription>();
  readonly #say: (message: ToHub) => void;
  readonly #call: (listener: () => void) => void;
  readonly #whileHidden: 'deliver' | 'hold';
  #isPaused = false;
  #isHidden = false;

  /** `say`: to the hub, if there is one; `call`: a listener; `whileHidden`: of those that do not say it themselves. */
  constructor(say: (message: ToHub) => void, call: (listener: () => void) => void, whileHidden: 'deliver' | 'hold' = 'hold') {
    this.#say = say;
    this.#call = call;
    this.#whileHidden = whileHidden;
  }

  subscribe(n: number, room: string, handlers: RoomHandlers): Subscription {
    const sub = new TabSubscription(n, room, handlers, this.#call);
    this.#subs.set(n, sub);
    this.#begin(sub);
    const held = (isHeld: boolean) => (): void => {
      sub.isHeld = isHeld;
      this.#holdOrRelease(sub);
    };
    return {
      room,
      state: sub.values,
      get cursor() {
        return sub.cursor;
      },
      hold: held(true),
      release: held(false),
      unsubscribe: () => {
        if (this.#subs.delete(n)) this.#say({ t: 'unsub', n });
      },
    };
  }

  /** A hub is there: it learns what this tab wants, and where it stands. */
  begin(): void {
    for (const sub of this.#subs.values()) this.#begin(sub);
  }

  /** Nothing of what was told is this user's. */
  forget(): void {
    for (const sub of [...this.#subs.values()]) sub.forget();
  }

  paused(isPaused: boolean): void {
    this.#isPaused = isPaused;
    this.#again();
  }

  seen(isHidden: boolean): void {
    this.#isHidden = isHidden;
    this.#again();
  }

  hear(message: ToTab & { n: number }): void {
    this.#subs.get(message.n)?.hear(message);
  }

  standing(isLive: boolean): RoomStanding[] {
    const standing = new Map<string, RoomStanding>();
    for (const { room, cursor, stood, values } of this.#subs.values()) {
      const joined = stood && isLive;
      standing.set(room, { room, cursor, joined, caughtUp: joined, keys: values.size, subscriptions: (standing.get(room)?.subscriptions ?? 0) + 1 });
    }
    return [...standing.values()];
  }

  #begin(sub: TabSubscription): void {
    this.#say(sub.begin());
    this.#holdOrRelease(sub, true);
  }

  #again(): void {
    for (const sub of this.#subs.values()) this.#holdOrRelease(sub);
  }

  #holdOrRelease(sub: TabSubscription, isNew = false): void {
    const hides = (sub.handlers.whileHidden ?? this.#whileHidden) === 'hold';
    const isHeld = sub.isHeld || this.#isPaused || (this.#isHidden && hides);
    if (isHeld || !isNew) this.#say({ t: isHeld ? 'hold' : 'release', n: sub.n });
  }
}
