/** The types of events and what is told about each delivery. Types only; nothing here runs. */

/** Event types and the shape of their `data`: `{ 'booking:new': Booking }`. */
export type EventMap = Record<string, unknown>;

/** A CloudEvent as the gateway sends it. Attributes unknown to this version are kept. */
export interface CloudEvent<T extends string = string, D = unknown> {
  readonly specversion: string;
  readonly id: string;
  readonly source: string;
  readonly type: T;
  readonly data: D;
  readonly time?: string;
  readonly subject?: string;
  readonly room?: string;
  readonly audience?: string;
  readonly priority?: 'critical' | 'high' | 'medium' | 'low';
  readonly delivery?: 'event' | 'state' | 'ephemeral';
  readonly statekey?: string;
  readonly withdrawn?: boolean;
  readonly expirytime?: string;
  readonly [attribute: string]: unknown;
}

/** The union of the events a map names, so that `switch (event.type)` narrows `event.data`. */
export type EventOf<M extends EventMap> = { [K in keyof M & string]: CloudEvent<K, M[K]> }[keyof M & string];

/** How an event came. */
export interface Delivery {
  /** News: happened after this page had caught up for the first time. False for snapshot and first recovery: show, do not announce. */
  readonly live: boolean;
  /** Missed during a break and fetched on return. */
  readonly recovered: boolean;
  /** Where it came from. */
  readonly from: 'snapshot' | 'socket';
}

/** One change of a room's state. */
export interface StateChange<M extends EventMap = EventMap> {
  readonly key: string;
  /** The newest value, or undefined when it was withdrawn or expired. */
  readonly event: EventOf<M> | undefined;
  /** Why there is no value. */
  readonly gone?: 'withdrawn' | 'expired' | undefined;
  readonly live: boolean;
}

/** Why a room starts over. */
export interface Reset {
  /** `incomplete`: events are missing between the cursor and now. `fresh`: the server did not know the cursor's room. */
  readonly recovery: 'incomplete' | 'fresh';
  /**
   * `epoch`, `ahead`, `expired`, `too_far`, or what a newer server says; `held`: more came than is kept back; `user`: the token of a
   * shared connection's tab is another user's, or has other roles.
   */
  readonly reason?: string | undefined;
}
