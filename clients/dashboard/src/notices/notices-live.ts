/**
 * The bell's notifications kept true: read over HTTP, changed by what comes live, marked for the user everywhere. Tabs of one
 * browser tell each other at once; other devices see a mark when they load the feed again.
 */

import type { CloudEvent } from 'roomcast';
import { getJson, isJson, postJson } from '../gateway.js';
import { Store } from '../store.js';
import type { News } from '../toasts.js';
import { mark, NOTICES_MAX, put, readNotice, type Level, type Notice } from './notices.js';

/** What the bell shows. */
export interface NoticeBoard {
  readonly state: 'loading' | 'ready' | 'failed';
  readonly why: string | undefined;
  readonly notices: readonly Notice[];
}

/** How long changes gather before the feed is read again, in milliseconds. */
const GATHER_MS = 300;
const LEVELS: readonly Level[] = ['seen', 'read', 'archived'];

/** The notifications of this user. */
export class Notices {
  readonly board = new Store<NoticeBoard>({ state: 'loading', why: undefined, notices: [] });
  readonly #channel: BroadcastChannel | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #loading = 0;

  /** `wanted` = the page has a bell. */
  constructor(readonly wanted: boolean) {
    if (!wanted || typeof BroadcastChannel !== 'function') return;
    this.#channel = new BroadcastChannel('roomcast.marks');
    this.#channel.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (!isJson(data) || !Array.isArray(data['ids'])) return;
      const level = LEVELS.find((one) => one === data['as']);
      if (level !== undefined) this.#put(new Set(data['ids'].filter((id) => typeof id === 'string')), level);
    };
  }

  /** Ends it. */
  close(): void {
    clearTimeout(this.#timer);
    this.#channel?.close();
  }

  /** Reads the feed, soon; wishes that come together are one. */
  load(): void {
    if (!this.wanted) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#read();
    }, GATHER_MS);
  }

  /** A key of the notifications' room changed; answers what is to be announced. */
  changed(key: string, event: CloudEvent | undefined, live: boolean): News | undefined {
    if (!this.wanted) return undefined;
    if (event === undefined) {
      this.board.update((board) => ({ ...board, notices: board.notices.filter((notice) => notice.key !== key) }));
      return undefined;
    }
    if (!live) return undefined;
    const notice = readNotice(event, 'new');
    if (notice === undefined) return undefined;
    this.board.update((board) => ({ ...board, notices: put(board.notices, notice) }));
    const urgent = notice.priority === 'critical' || notice.priority === 'high';
    if (!urgent) return undefined;
    return { id: `notice ${notice.id}`, title: notice.title, line: notice.body, icon: 'bell', mark: notice.priority, critical: notice.priority === 'critical', opens: undefined };
  }

  /** Marks some, here at once and for the user everywhere; what cannot be stored is taken back. */
  async mark(ids: readonly string[], as: Exclude<Level, 'new'>): Promise<void> {
    if (ids.length === 0) return;
    const before = this.board.now;
    this.#put(new Set(ids), as);
    try {
      await postJson('/v1/marks', { ids, as });
      this.#channel?.postMessage({ ids, as });
    } catch (error) {
      this.board.update((board) => ({ ...board, notices: before.notices, why: error instanceof Error ? error.message : String(error) }));
      this.load();
    }
  }

  #put(ids: ReadonlySet<string>, as: Level): void {
    this.board.update((board) => {
      const notices = mark(board.notices, ids, as);
      return notices === board.notices ? board : { ...board, why: undefined, notices };
    });
  }

  async #read(): Promise<void> {
    this.#loading += 1;
    const turn = this.#loading;
    try {
      const feed = await getJson(`/v1/feed?limit=${NOTICES_MAX}&filter=${encodeURIComponent('{"archived":true}')}`);
      if (turn !== this.#loading) return;
      this.board.update(() => ({ state: 'ready', why: undefined, notices: readFeed(feed) }));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.board.update((board) => ({ ...board, state: board.state === 'ready' ? 'ready' : 'failed', why }));
    }
  }
}

/** Notifications of a page of the feed, with their marks. */
export function readFeed(body: Record<string, unknown>): Notice[] {
  const marks = new Map<string, Level>();
  for (const one of Array.isArray(body['marks']) ? body['marks'] : []) {
    const level = isJson(one) ? LEVELS.find((known) => known === one['as']) : undefined;
    if (level !== undefined && typeof one['id'] === 'string') marks.set(one['id'], level);
  }
  const placed = Array.isArray(body['notifications']) ? body['notifications'] : [];
  return placed
    .map((one) => (isJson(one) && isJson(one['event']) ? readNotice(one['event'] as unknown as CloudEvent, marks.get(String(one['event']['id'])) ?? 'new') : undefined))
    .filter((notice): notice is Notice => notice !== undefined);
}
