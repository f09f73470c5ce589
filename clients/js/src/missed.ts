/** What a subscription missed between its place and the room's. A page that never goes on from a cursor does not load this. */

import { asError } from './error.js';
import type { CloudEvent } from './event.js';
import { followQuery } from './follow.js';
import { isEvent, isObject, list, text } from './frame.js';
import { problem, type Http } from './http.js';
import type { Feed, Room } from './room.js';

/** A place that was kept, and how to come from there. */
export interface Place {
  readonly cursor: string;
  /** @internal The subscription begins there, before the room has it. */
  readonly enter: (room: Room, feed: Feed) => void;
  /** @internal What was missed since comes, once the room has caught up. */
  readonly bridge: (http: Http, room: Room, feed: Feed, load: () => Promise<void>) => Promise<void>;
}

/** For `from` of a subscription: goes on from a cursor that was kept; with `values`, the room's at that place, where nobody else is in it. */
export function goOn(cursor: string, values?: readonly CloudEvent[]): Place {
  const enter = (room: Room, feed: Feed): void => {
    if (values === undefined || room.feeds.size > 0 || room.cursor !== undefined || room.joined || room.asked) return feed.waitFor();
    // Nobody has been in the room, and what it held is known: its place is the subscription's.
    room.loaded({ room: room.name, cursor, state: [...values], events: [] });
    room.caughtUp(cursor);
    feed.from = undefined;
  };
  return { cursor, enter, bridge };
}

/** What happened in a room since a cursor, up to now. */
interface Missed {
  readonly recovery: string;
  readonly reason: string | undefined;
  readonly events: readonly { readonly cursor: string; readonly event: CloudEvent }[];
}

/** After a passing failure what was missed is asked for again, in milliseconds, unless the server says when. */
const AGAIN_MS = 5_000;
/** Polls that one question about what was missed may take. */
const PAGES_MAX = 200;

/** Fetches what lies between a subscription's place and the room's; news wait meanwhile. `load` loads the room's history. */
async function bridge(http: Http, room: Room, feed: Feed, load: () => Promise<void>): Promise<void> {
  const { from } = feed;
  if (from === undefined) return;
  feed.isBridging = true;
  try {
    const { recovery, reason, events } = await missed(http, room.name, from.cursor);
    feed.from = undefined;
    if (!room.feeds.has(feed)) return;
    if (recovery === 'complete') feed.missed(events);
    else {
      feed.reset({ recovery: 'incomplete', reason }, room.store.values);
      if (feed.history > 0) return void load();
    }
    feed.release();
  } catch (thrown) {
    const error = asError(thrown);
    if (!room.feeds.has(feed)) return;
    // What cannot be had for good ends the waiting.
    if (error.temporary) return void setTimeout(() => room.feeds.has(feed) && void bridge(http, room, feed, load), error.retryAfterMs ?? AGAIN_MS);
    feed.from = undefined;
    feed.release();
    feed.error(error);
  }
}

/** What happened in a room since a cursor: polls until nothing more is to be said. Throws `RoomcastError`. */
async function missed(http: Http, room: string, from: string): Promise<Missed> {
  const events: { cursor: string; event: CloudEvent }[] = [];
  let cursor = from;
  let outcome: { recovery: string; reason: string | undefined } | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const query = followQuery([{ room, cursor }]);
    query.set('wait', '0');
    const body = await http.get(`/v1/poll?${query}`);
    const answer = list(body['rooms']).filter(isObject).find((one) => one['room'] === room);
    if (answer === undefined || isObject(answer['error'])) throw problem(403, answer?.['error']);
    outcome ??= { recovery: String(answer['recovery']), reason: text(answer['reason']) };
    if (outcome.recovery !== 'complete') break;
    for (const frame of list(body['frames']).filter(isObject)) {
      const push = frame['event'];
      if (!isObject(push) || push['room'] !== room || !isEvent(push['event']) || typeof push['cursor'] !== 'string') continue;
      cursor = push['cursor'];
      // Values are told by the room itself.
      if (push['event'].statekey === undefined) events.push({ cursor, event: push['event'] });
    }
    if (body['more'] !== true) break;
  }
  return { recovery: 'incomplete', reason: undefined, ...outcome, events };
}
