/**
 * One subscription of a tab whose connection lives elsewhere: what it has been told, so that nothing is told twice and a hub
 * that takes over goes on where the one before stopped.
 */

import type { CloudEvent, EventMap, EventOf, Reset } from './event.js';
import { received, type ToHub, type ToTab } from './pipe.js';
import type { RoomHandlers } from './room.js';
import { Seen } from './seen.js';
import { isSame } from './state.js';

/** One of a tab's subscriptions. */
export class TabSubscription {
  /** The latest value of every key. */
  readonly values = new Map<string, CloudEvent>();
  cursor: string | undefined;
  /** It had caught up: from a new place it goes on where it was. */
  stood = false;
  /** Its owner wants nothing for now. */
  isHeld = false;
  #seen = new Seen();
  /** Keys told since it went on elsewhere; the others are gone. */
  #coming: Set<string> | undefined;
  readonly #call: (listener: () => void) => void;

  /** `call` runs a listener and keeps what it throws. */
  constructor(
    readonly n: number,
    readonly room: string,
    readonly handlers: RoomHandlers,
    call: (listener: () => void) => void,
  ) {
    this.cursor = handlers.from?.cursor;
    this.#call = call;
  }

  /** What asks a hub for it: from where it stands. */
  begin(): ToHub {
    const { n, room, handlers, cursor } = this;
    const goesOn = this.stood && cursor !== undefined;
    if (goesOn) this.#coming = new Set();
    return {
      t: 'sub',
      n,
      room,
      history: handlers.history ?? 50,
      presence: handlers.onPresence !== undefined,
      ...(cursor === undefined ? {} : { from: cursor }),
      ...(goesOn ? { values: [...this.values.values()] } : {}),
    };
  }

  /** Hears what the hub says of it. */
  hear(message: ToTab & { n: number }): void {
    const { handlers } = this;
    switch (message.t) {
      case 'event': {
        const { event, delivery } = message;
        this.cursor = message.cursor ?? this.cursor;
        // A hub that took over may tell what the one before told already.
        if (this.#seen.add(event.source, event.id)) this.#call(() => handlers.onEvent?.(event as EventOf<EventMap>, delivery));
        return;
      }
      case 'value':
        return this.#value(message);
      case 'caughtUp': {
        this.cursor = message.cursor ?? this.cursor;
        this.stood = true;
        const coming = this.#coming;
        this.#coming = undefined;
        if (coming !== undefined) {
          for (const key of [...this.values.keys()]) if (!coming.has(key)) this.#value({ key, event: undefined, gone: 'withdrawn', live: true });
        }
        return this.#call(() => handlers.onCaughtUp?.());
      }
      case 'reset':
        return this.#reset(message.reset);
      case 'presence':
        return this.#call(() => handlers.onPresence?.(message.presence));
      case 'error':
        return this.#call(() => handlers.onError?.(received(message.error)));
      default:
        return;
    }
  }

  /** Another user is signed in, or the same with other roles: nothing of what was told holds. */
  forget(): void {
    for (const key of this.values.keys()) this.#value({ key, event: undefined, gone: 'withdrawn', live: true });
    this.#seen = new Seen();
    this.#reset({ recovery: 'fresh', reason: 'user' });
  }

  #reset(reset: Reset): void {
    this.values.clear();
    // Until it has caught up there is no place to go on from.
    this.cursor = this.#coming = undefined;
    this.stood = false;
    this.#call(() => this.handlers.onReset?.(reset));
  }

  #value({ key, event, gone, live }: Pick<ToTab & { t: 'value' }, 'key' | 'event' | 'gone' | 'live'>): void {
    this.#coming?.add(key);
    const before = this.values.get(key);
    if (event === undefined ? before === undefined : before !== undefined && isSame(before, event)) return;
    if (event === undefined) this.values.delete(key);
    else this.values.set(key, event);
    this.#call(() => this.handlers.onState?.({ key, event: event as EventOf<EventMap> | undefined, gone, live }));
  }
}
