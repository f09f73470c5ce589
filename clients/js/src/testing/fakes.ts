/** A socket and a gateway's HTTP that do what a test says. */

import type { SocketLike } from '../link.js';

/** A socket whose server side is the test. */
export class FakeSocket implements SocketLike {
  static all: FakeSocket[] = [];
  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (socket === undefined) throw new Error('no socket was opened');
    return socket;
  }

  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly sent: Record<string, any>[] = [];
  closedWith: number | undefined;

  constructor(
    readonly url: string,
    readonly protocols?: string[],
  ) {
    FakeSocket.all.push(this);
  }

  send(data: string): void {
    this.sent.push(JSON.parse(data));
  }
  close(code = 1000): void {
    this.closedWith = code;
  }

  /** Server side: the upgrade was answered. */
  open(): void {
    this.onopen?.({} as never);
  }
  /** Server side: one message; text goes as it is. */
  say(frame: unknown): void {
    this.onmessage?.({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) } as never);
  }
  /** Server side: the socket ends. */
  end(code: number, reason = ''): void {
    this.onclose?.({ code, reason } as never);
  }
  /** Messages of one name that the client sent. */
  sentOf(name: string): Record<string, any>[] {
    return this.sent.filter((frame) => name in frame).map((frame) => frame[name]);
  }
  /** Server side: the answer to `connect`. */
  connected(rooms: unknown[], more: Record<string, unknown> = {}): void {
    const id = this.sent.find((frame) => 'connect' in frame)?.['id'];
    this.say({ id, connected: { connection: 'c1', user: 'u1', roles: ['staff'], epoch: 'e', pingSeconds: 25, status: 'ok', rooms, ...more } });
  }
}

/** One event, as short as may be. */
export function event(id: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return { specversion: '1.0', id, source: 's', type: 't', data: {}, ...more };
}

/** A `fetch` that answers snapshots from a table; rooms that are not in it are refused. */
export function fakeFetch(rooms: Record<string, { cursor: string; state?: unknown[]; events?: unknown[] }>): { fetch: typeof fetch; calls: string[] } {
  const calls: string[] = [];
  const answer = async (url: string | URL | Request): Promise<Response> => {
    calls.push(String(url));
    const room = decodeURIComponent(String(url).split('/rooms/')[1]?.split('/')[0] ?? '');
    const body = rooms[room];
    if (body === undefined) return Response.json({ code: 'forbidden', detail: 'no', status: 403 }, { status: 403 });
    return Response.json({ room, state: [], events: [], ...body });
  };
  return { fetch: answer as typeof fetch, calls };
}

/** Lets promises settle under fake timers. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 30; round += 1) await Promise.resolve();
}
