/**
 * Polls: what is new, asked for again and again; held by the gateway until there is something (`longpoll`), or answered
 * at once every few seconds (`poll`). Says what a socket would have said: rooms once, then events, then `caughtUp`.
 */

import { claimsOf } from './credentials.js';
import { CLOSE_UNFIT, Follower, forbidden, type Followed, type FollowHost } from './follow.js';
import { isObject, text, type Json } from './frame.js';

/** Pause between polls that are not held, in milliseconds. */
export const POLL_MS = 6_000;
/** How long the gateway holds a poll, in seconds. */
export const HOLD_SECONDS = 25;
/** Polls are never closer than this, in milliseconds: a busy room fills the next one the better. */
const PACE_MS = 250;
/** A held poll that is cut off after this long was cut because it was held, in milliseconds. */
const CUT_MS = 4_000;
/** A newer token is asked for so long before the end of the old one, in milliseconds. */
const EXPIRING_MS = 60_000;
/** Time beyond the hold until a poll counts as lost, in milliseconds. */
const GRACE_MS = 10_000;

/** Polls as a socket. */
export class Poll extends Follower {
  readonly #isHeld: boolean;
  /** Where each room stands. */
  #rooms = new Map<string, string | undefined>();
  /** Rooms that the client was told of. */
  readonly #open = new Set<string>();
  /** Rooms that the client left. Those that the policy joins come back with every answer: they are followed, and not told. */
  readonly #left = new Set<string>();
  /** Rooms asked for, by the request's id. */
  readonly #asked = new Map<string, number | undefined>();
  #connectId: number | undefined;
  #isConnected = false;
  #isStale = false;
  /** Version of the unread counters it knows. */
  #counted = 0;
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Nobody tells a poll that its token ends. */
  #expiring: ReturnType<typeof setTimeout> | undefined;

  constructor(host: FollowHost, isHeld: boolean) {
    super(host);
    this.#isHeld = isHeld;
  }

  protected override told(name: string, body: Json, id: number | undefined): void {
    const room = String(body['room']);
    if (name === 'connect') {
      this.#connectId = id;
      this.#take(body['token']);
      for (const one of (body['rooms'] ?? []) as Followed[]) this.#rooms.set(one.room, one.cursor);
      void this.#ask(true);
    } else if (name === 'subscribe') {
      this.#rooms.set(room, body['cursor'] as string | undefined);
      this.#asked.set(room, id);
      this.#left.delete(room);
      this.#turned(room);
    } else if (name === 'unsubscribe') {
      this.#rooms.delete(room);
      this.#left.add(room);
      this.#turned(room);
    } else if (name === 'refresh') {
      // The next request has it.
      this.#take(body['token']);
    }
  }

  /** What the answer under way says of a room does not count any more. */
  #turned(room: string): void {
    this.#open.delete(room);
    this.#again(0, true);
  }

  #take(token: unknown): void {
    this.token = text(token);
    clearTimeout(this.#expiring);
    const { exp } = claimsOf(this.token);
    if (typeof exp !== 'number') return;
    const ms = exp * 1_000 - Date.now() - EXPIRING_MS;
    this.#expiring = setTimeout(() => this.say({ expiring: {} }), Math.min(Math.max(ms, EXPIRING_MS / 10), 2 ** 31 - 1));
  }

  override close(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#expiring);
    super.close();
  }

  #again(ms: number, isUrgent = false): void {
    clearTimeout(this.#timer);
    if (isUrgent) {
      // What the request under way would have said does not count.
      this.#turn += 1;
      this.stop.abort();
    }
    if (!this.isClosed) this.#timer = setTimeout(() => void this.#ask(isUrgent), ms);
  }

  /** One poll; at once where somebody waits for the answer. */
  async #ask(isUrgent: boolean): Promise<void> {
    const turn = (this.#turn += 1);
    const hold = this.#isHeld && !isUrgent ? HOLD_SECONDS : 0;
    const asked = [...this.#rooms].map(([room, cursor]): Followed => ({ room, cursor }));
    const began = Date.now();
    this.stop = new AbortController();
    let response: Response;
    try {
      const query = this.query(asked, this.#counted);
      query.set('wait', String(hold));
      response = await this.ask(`/v1/poll?${query}`, AbortSignal.any([this.stop.signal, AbortSignal.timeout(hold * 1_000 + GRACE_MS)]));
    } catch {
      if (turn !== this.#turn) return;
      return this.end(hold > 0 && Date.now() - began >= CUT_MS ? CLOSE_UNFIT : 1006);
    }
    const body: unknown = response.ok ? await response.json().catch(() => undefined) : undefined;
    if (turn !== this.#turn || this.isClosed) return;
    if (response.status === 403 && asked.length > 0) return this.#allRefused(asked);
    // A proxy that would not hold it so long.
    if (hold > 0 && [502, 503, 504].includes(response.status) && Date.now() - began >= CUT_MS) return this.end(CLOSE_UNFIT);
    if (!response.ok) return this.refused(response);
    if (!isObject(body) || !Array.isArray(body['rooms']) || !Array.isArray(body['frames'])) return this.end(CLOSE_UNFIT);
    this.#answered(body, response.headers.get('date'));
    const more = body['more'] === true;
    const took = Date.now() - began;
    this.#again(more ? 0 : this.#isHeld ? Math.max(PACE_MS - took, hold > 0 && took < PACE_MS && body['frames'].length === 0 ? 1_000 : 0) : POLL_MS);
  }

  /** None of the rooms is open; those that the policy joins may be. */
  #allRefused(asked: readonly Followed[]): void {
    for (const { room } of asked) {
      this.#rooms.delete(room);
      if (this.#isConnected) this.#refuse(room, forbidden([{ room }])[0]?.['error']);
      else this.#asked.set(room, undefined);
    }
    this.#again(0, true);
  }

  #refuse(room: string, error: unknown): void {
    this.#rooms.delete(room);
    const id = this.#asked.get(room);
    this.#asked.delete(room);
    if (this.#open.delete(room)) this.say({ unsubscribed: { room, code: isObject(error) ? error['code'] : 'forbidden', reason: isObject(error) ? error['message'] : '' } });
    else if (id !== undefined) this.say({ id, error });
  }

  #answered(body: Json, date: string | null): void {
    const answers = (body['rooms'] as unknown[]).filter(isObject).filter((answer) => typeof answer['room'] === 'string');
    const frames = body['frames'] as unknown[];
    const isFirst = !this.#isConnected;
    if (isFirst) {
      this.#isConnected = true;
      const refused = forbidden([...this.#asked.keys()].map((room) => ({ room })));
      this.#asked.clear();
      // What is left out gets the same defaults as of a gateway that does not say it.
      this.say({ id: this.#connectId, connected: { user: claimsOf(this.token)['sub'], rooms: [...answers, ...refused], serverTime: date } });
    } else if (answers.length > 0) {
      const named = new Set(answers.map((answer) => answer['room'] as string));
      for (const room of [...this.#open]) if (!named.has(room)) this.#refuse(room, undefined);
    }
    for (const answer of answers) this.#room(answer, isFirst);
    if (!isFirst) this.say({ ping: {} });
    const isStale = frames.some((frame) => isObject(frame) && isObject(frame['status']));
    if (this.#isStale && !isStale) this.say({ status: { status: 'ok' } });
    this.#isStale = isStale;
    for (const frame of frames) {
      const { event, counters }: Json = isObject(frame) ? frame : {};
      if (isObject(counters)) this.#counted = Number(counters['version']) || 0;
      if (isObject(event)) {
        const { room, cursor } = event as { room: string; cursor: unknown };
        if (typeof cursor === 'string' && this.#rooms.has(room)) this.#rooms.set(room, cursor);
      }
      this.say(frame);
    }
    if (body['more'] === true || typeof body['cursor'] !== 'string') return;
    for (const room of this.#open) {
      this.#rooms.set(room, body['cursor']);
      this.say({ caughtUp: { room, cursor: body['cursor'] } });
    }
  }

  #room(answer: Json, isFirst: boolean): void {
    const room = answer['room'] as string;
    if (answer['error'] !== undefined) return this.#refuse(room, answer['error']);
    if (!isFirst && !this.#left.has(room) && (!this.#open.has(room) || answer['recovery'] !== 'complete')) this.say({ subscribed: answer });
    this.#asked.delete(room);
    this.#open.add(room);
    // Where it has said nothing yet, it begins where the gateway says.
    if ((this.#rooms.get(room) === undefined || answer['recovery'] !== 'complete') && typeof answer['cursor'] === 'string') this.#rooms.set(room, answer['cursor']);
  }
}
