/** What a subscription missed between its place and the room's. A page that never goes on from a cursor does not load this. */

import type { CloudEvent } from './event.js';
import { followQuery } from './follow.js';
import { isEvent, isObject } from './frame.js';
import { problem, type Http } from './http.js';

/** A place that was kept, and how to come from there. */
export interface Place {
  readonly cursor: string;
  /** @internal */
  readonly missed: (http: Http, room: string, from: string) => Promise<Missed>;
}

/** For `from` of a subscription: goes on from a cursor that was kept. */
export function goOn(cursor: string): Place {
  return { cursor, missed };
}

/** What happened in a room since a cursor, up to now. */
export interface Missed {
  readonly recovery: string;
  readonly reason: string | undefined;
  readonly events: readonly { readonly cursor: string; readonly event: CloudEvent }[];
}

/** Polls that one question about what was missed may take. */
const PAGES_MAX = 200;

/** What happened in a room since a cursor: polls until nothing more is to be said. Throws `RoomcastError`. */
async function missed(http: Http, room: string, from: string): Promise<Missed> {
  const events: { cursor: string; event: CloudEvent }[] = [];
  let cursor = from;
  let outcome: { recovery: string; reason: string | undefined } | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const query = followQuery([{ room, cursor }]);
    query.set('wait', '0');
    const body = await http.get(`/v1/poll?${query}`);
    const rooms = Array.isArray(body['rooms']) ? body['rooms'].filter(isObject) : [];
    const answer = rooms.find((one) => one['room'] === room);
    if (answer === undefined || isObject(answer['error'])) throw problem(403, answer?.['error']);
    outcome ??= { recovery: String(answer['recovery']), reason: typeof answer['reason'] === 'string' ? answer['reason'] : undefined };
    if (outcome.recovery !== 'complete') break;
    const frames = Array.isArray(body['frames']) ? body['frames'].filter(isObject) : [];
    for (const frame of frames) {
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
