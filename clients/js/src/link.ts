/**
 * The driver of the connection machine: one socket or what looks like one, its timers, the browser's hints, and a second
 * socket while a better way is tried. Decides nothing; every decision is `machine.step`. Belongs to a client.
 */

import { asError, passing, RoomcastError } from './error.js';
import { CLOSE_UNFIT, type Transport } from './follow.js';
import { readFrame, type ServerFrame } from './frame.js';
import { listenToPage } from './hints.js';
import { INITIAL, step, type ConnectionInput, type ConnectionState, type Effect, type Timer } from './machine.js';

/** The part of a WebSocket that is used; the browser's and Node's libraries have it. */
export interface SocketLike {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** Makes sockets: the browser's `WebSocket`, or the one of a library. */
export type SocketClass = new (url: string, protocols?: string[]) => SocketLike;

/** Spoken on every socket. */
export const SUBPROTOCOL = 'roomcast.v1.json';

/** What a link needs from its client. */
export interface LinkHost {
  /** Ways that may be used, the best first. */
  readonly transports: readonly Transport[];
  /** Makes what carries frames; throws where it cannot be made here. */
  carrier(transport: Transport): SocketLike;
  /** The body of `connect`; throws `RoomcastError` when there is no token. `isTrial`: beside a connection that goes on. */
  connectBody(fresh: boolean, isTrial: boolean): Promise<Record<string, unknown>>;
  refresh(): void;
  frame(frame: ServerFrame): void;
  changed(state: ConnectionState, before: ConnectionState): void;
  /** Nobody has seen the page for a while, or somebody does again. */
  seen(isHidden: boolean): void;
  random(): number;
}

/** One connection through all its lives. */
export class Link {
  state: ConnectionState = INITIAL;
  readonly #host: LinkHost;
  readonly #timers = new Map<Timer, ReturnType<typeof setTimeout>>();
  #socket: SocketLike | undefined;
  #nextId = 1;
  #connectId = 0;
  /** A better way that is being tried. */
  #trial: SocketLike | undefined;
  #unlisten: (() => void) | undefined;

  constructor(host: LinkHost) {
    this.#host = host;
  }

  /** Feeds the machine and carries out what it wants. */
  input(input: ConnectionInput): void {
    const before = this.state;
    const [state, effects] = step(before, input, { now: Date.now(), random: this.#host.random(), transports: this.#host.transports });
    this.state = state;
    for (const effect of effects) this.#run(effect);
    // `heard` moves only a time stamp that nobody outside reads.
    if (state !== before && input.type !== 'heard') this.#host.changed(this.state, before);
  }

  /** What carries the frames. */
  get transport(): Transport {
    return this.state.transport;
  }

  /** Sends a request and returns its id, or undefined when there is no live connection. */
  request(name: string, body: Record<string, unknown>): number | undefined {
    return this.state.status === 'live' ? this.#send(name, body) : undefined;
  }

  /** Listens to the browser's hints while the client is in use. */
  listen(): void {
    this.#unlisten ??= listenToPage((input) => this.input({ type: input }), (isHidden) => this.#host.seen(isHidden));
  }

  /** Stops listening; timers and socket were ended by the machine. */
  unlisten(): void {
    this.#unlisten?.();
    this.#unlisten = undefined;
  }

  #run(effect: Effect): void {
    switch (effect.do) {
      case 'open':
        return this.#open(effect.transport);
      case 'try':
        return this.#try(effect.transport);
      case 'stopTrying':
        return this.#stopTrying();
      case 'close':
        return this.#close(effect.code);
      case 'authenticate':
        return void this.#authenticate(effect.fresh);
      case 'refresh':
        return this.#host.refresh();
      case 'pong':
        return this.#write('{"pong":{}}');
      case 'arm':
        this.#disarm(effect.timer);
        this.#timers.set(effect.timer, setTimeout(() => this.#fire(effect.timer), effect.ms));
        return;
      case 'disarm':
        return this.#disarm(effect.timer);
    }
  }

  #open(transport: Transport): void {
    this.#close(1000);
    let socket: SocketLike;
    try {
      socket = this.#host.carrier(transport);
    } catch (thrown) {
      const error = thrown instanceof RoomcastError ? thrown : new RoomcastError('unsupported', `Not connected: ${String(thrown)}`);
      const isLast = this.#host.transports.at(-1) === transport;
      // Nowhere to fall back to, and waiting would not mend it.
      queueMicrotask(() => this.input({ type: isLast ? 'unsupported' : 'unfit', error }));
      return;
    }
    this.#socket = socket;
    // What an abandoned socket still says is not heard: every handler checks that it speaks for the present one.
    socket.onopen = () => {
      if (this.#socket === socket) this.input({ type: 'opened' });
    };
    this.#hear(socket);
  }

  #hear(socket: SocketLike): void {
    socket.onmessage = (event: { data: unknown }) => {
      if (this.#socket === socket) this.#receive(event.data);
    };
    socket.onclose = (event: { code?: number; reason?: unknown }) => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      const reason = String(event.reason ?? '');
      if (event.code === CLOSE_UNFIT) this.input({ type: 'unfit', error: passing('unsupported', reason || 'This way fails.') });
      else this.input({ type: 'dropped', code: event.code ?? 1006, reason });
    };
    // A close always follows and carries the code; without a handler some libraries throw.
    socket.onerror = () => undefined;
  }

  /** Signs a second connection in. With its `connected` it takes the place of the first; what both brought is recognised. */
  #try(transport: Transport): void {
    this.#stopTrying();
    const failed = (): void => {
      if (this.#trial === trial) this.input({ type: 'trialFailed' });
    };
    let trial: SocketLike;
    try {
      trial = this.#host.carrier(transport);
    } catch {
      return queueMicrotask(() => this.input({ type: 'trialFailed' }));
    }
    this.#trial = trial;
    const id = this.#takeId();
    trial.onopen = () => {
      this.#host.connectBody(false, true).then((body) => {
        if (this.#trial === trial) trial.send(JSON.stringify({ id, connect: body }));
      }, failed);
    };
    trial.onmessage = (event: { data: unknown }) => {
      if (this.#trial !== trial) return;
      const frame = readFrame(event.data);
      if (frame.kind !== 'connected') return frame.kind === 'error' || frame.kind === 'disconnect' ? failed() : undefined;
      const old = this.#socket;
      this.#trial = undefined;
      this.#socket = trial;
      this.#connectId = id;
      this.#hear(trial);
      if (old !== undefined) hangUp(old, 1000);
      this.input({ type: 'switched', transport });
      this.#receive(event.data);
    };
    trial.onclose = failed;
    trial.onerror = () => undefined;
  }

  #stopTrying(): void {
    const trial = this.#trial;
    this.#trial = undefined;
    if (trial !== undefined) hangUp(trial, 1000);
  }

  #close(code: number): void {
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket !== undefined) hangUp(socket, code);
  }

  async #authenticate(fresh: boolean): Promise<void> {
    const socket = this.#socket;
    let outcome: ConnectionInput | undefined;
    try {
      const body = await this.#host.connectBody(fresh, false);
      if (this.#socket === socket) this.#connectId = this.#send('connect', body);
    } catch (thrown) {
      const error = asError(thrown);
      outcome = error.temporary ? { type: 'tokenFailed', error } : { type: 'tokenMissing', error };
    }
    if (outcome !== undefined && this.#socket === socket) this.input(outcome);
  }

  #receive(message: unknown): void {
    const frame = readFrame(message);
    switch (frame.kind) {
      case 'ping':
        this.input({ type: 'ping' });
        break;
      case 'connected':
        this.input({ type: 'connected', session: frame.session, stale: frame.stale });
        break;
      case 'disconnect':
        this.#host.frame(frame);
        return this.input({ ...frame, type: 'disconnect' });
      case 'error':
        if (frame.id !== undefined && frame.id === this.#connectId && this.state.status === 'authenticating') {
          return this.input({ type: 'refused', error: frame.error });
        }
        break;
      case 'status':
        this.input({ ...frame, type: 'status' });
        break;
      case 'expiring':
        this.input({ type: 'expiring' });
        break;
      case 'refreshed':
      case 'roles':
        this.input({ ...frame, type: 'rights' });
        break;
    }
    if (this.state.status === 'live') this.input({ type: 'heard' });
    this.#host.frame(frame);
  }

  #takeId(): number {
    const id = this.#nextId;
    // Ids are uint32 on the wire.
    this.#nextId = id >= 0xffff_ffff ? 1 : id + 1;
    return id;
  }

  #send(name: string, body: Record<string, unknown>): number {
    const id = this.#takeId();
    this.#write(JSON.stringify({ id, [name]: body }));
    return id;
  }

  #write(message: string): void {
    try {
      this.#socket?.send(message);
    } catch {
      // A socket that is closing refuses; its close event tells the machine.
    }
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer);
    this.input({ type: 'fired', timer });
  }

  #disarm(timer: Timer): void {
    clearTimeout(this.#timers.get(timer));
    this.#timers.delete(timer);
  }
}

function hangUp(socket: SocketLike, code: number): void {
  socket.onclose = socket.onmessage = socket.onopen = null;
  try {
    socket.close(code);
  } catch {
    // Closing what never opened: nothing is left to do.
  }
}
