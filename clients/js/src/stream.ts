/**
 * Server-sent events by `fetch`: the frames of a socket one way, the token in a header. A room that is opened later makes
 * a new request, which cursors make cheap; a newer token is brought to the one there is.
 */

import { CLOSE_UNFIT, Follower, forbidden, type Followed } from './follow.js';
import { isObject, list, text, type Json } from './frame.js';

/** A line and an event of a stream at most, in characters; more is no stream of ours. */
const BUFFER_MAX = 4 << 20;
/** Rooms opened within this are one new request, in milliseconds. */
const GATHER_MS = 20;

/** The stream as a socket. */
export class Stream extends Follower {
  #turn = 0;
  #connectId: number | undefined;
  /** What the gateway calls this stream. */
  #connection: unknown;
  #gathering: ReturnType<typeof setTimeout> | undefined;

  protected override told(name: string, body: Json, id: number | undefined): void {
    if (name === 'connect') {
      this.#connectId = id;
      this.token = text(body['token']);
      void this.#follow((body['rooms'] ?? []) as Followed[]);
    } else if (name === 'subscribe' || name === 'counters') {
      this.#gathering ??= setTimeout(() => void this.#follow(this.host.rooms()), GATHER_MS);
    } else if (name === 'refresh') {
      this.token = String(body['token']);
      void this.#refresh();
    }
    // A room that is left is heard to the end of this request, and nobody listens.
  }

  override close(): void {
    clearTimeout(this.#gathering);
    super.close();
  }

  /** Brings the stream a newer token; where that does not work, a new stream has it from its beginning. */
  async #refresh(): Promise<void> {
    const turn = this.#turn;
    const body = await this.ask('/v1/refresh', this.stop.signal, { connection: this.#connection })
      .then((response) => (response.ok ? response.json() : undefined))
      .catch(() => undefined);
    if (turn !== this.#turn || this.isClosed) return;
    if (isObject(body)) this.say({ refreshed: body });
    else void this.#follow(this.host.rooms());
  }

  async #follow(rooms: readonly Followed[], refused: readonly Followed[] = []): Promise<void> {
    this.#gathering = undefined;
    this.stop.abort();
    if (this.isClosed) return;
    const stop = (this.stop = new AbortController());
    const turn = (this.#turn += 1);
    let response: Response;
    try {
      response = await this.ask(`/v1/sse?${this.query(rooms, 0)}`, stop.signal);
    } catch {
      return turn === this.#turn ? this.end(1006) : undefined;
    }
    if (turn !== this.#turn) return;
    // None of the rooms is open; those that the policy joins may be.
    if (response.status === 403 && rooms.length > 0) return this.#follow([], rooms);
    // A 502 is a proxy's, never the gateway's: it may refuse streams alone.
    if (response.status !== 502 && !response.ok) return this.refused(response);
    if (!response.body || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
      return this.end(CLOSE_UNFIT);
    }
    await this.#read(response.body, turn, refused);
  }

  async #read(body: ReadableStream<Uint8Array>, turn: number, refused: readonly Followed[]): Promise<void> {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    const lines = new Lines((data) => this.#frame(data, refused), () => this.say({ ping: {} }));
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (turn !== this.#turn) return;
        if (done) break;
        if (!lines.push(decoder.decode(value, { stream: true }))) return this.end(CLOSE_UNFIT);
      }
    } catch {
      // The network, or our own abort.
    }
    if (turn === this.#turn) this.end(1006);
  }

  #frame(data: string, refused: readonly Followed[]): void {
    // Only the first frame of a request is looked into; the rest is the link's.
    if (!data.startsWith('{"connected":') && !data.startsWith('{"id":')) return this.sayText(data);
    let frame: Json;
    try {
      frame = JSON.parse(data) as Json;
    } catch {
      return this.sayText(data);
    }
    const connected = frame['connected'];
    if (!isObject(connected)) return this.sayText(data);
    this.#connection = connected['connection'];
    const rooms = [...list(connected['rooms']), ...forbidden(refused)];
    this.say({ id: this.#connectId, connected: { ...connected, rooms } });
  }
}

/** Cuts a text into the data of server-sent events; comments say that the line is alive. */
export class Lines {
  #rest = '';
  #data: string[] = [];
  readonly #event: (data: string) => void;
  readonly #comment: () => void;

  constructor(event: (data: string) => void, comment: () => void) {
    this.#event = event;
    this.#comment = comment;
  }

  /** Takes the next piece; false when a line or an event grows beyond all bounds. */
  push(piece: string): boolean {
    const parts = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = parts.pop() ?? '';
    for (const line of parts) this.#line(line);
    return this.#rest.length + this.#data.reduce((sum, line) => sum + line.length, 0) <= BUFFER_MAX;
  }

  #line(line: string): void {
    if (line === '') {
      const data = this.#data;
      this.#data = [];
      if (data.length > 0) this.#event(data.join('\n'));
    } else if (line.startsWith(':')) {
      this.#comment();
    } else if (line.startsWith('data:')) {
      this.#data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
    }
    // `id:` and `retry:` say what the frames say too.
  }
}
