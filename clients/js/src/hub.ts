/**
 * One connection for several tabs: a client that lives in a SharedWorker or in one of the tabs, and serves the others
 * over pipes. Each subscription of a tab is one of the client's, so that everything a client promises holds for each tab.
 */

import type { CommandOptions, Subscription } from './api.js';
import { Client, type ClientOptions } from './client.js';
import { indexedDbCommands } from './commands.js';
import { RoomcastError } from './error.js';
import type { CloudEvent } from './event.js';
import type { Presence } from './frame.js';
import { holdLock, tabLock, whenFree } from './locks.js';
import { goOn } from './missed.js';
import { received, sent, type HubOptions, type Method, type Pipe, type ToHub, type ToTab } from './pipe.js';
import { randomId } from './random-id.js';

/** How long a tab may take to bring a token before another one is asked, in milliseconds. */
const TOKEN_MS = 10_000;

interface Served {
  readonly pipe: Pipe;
  readonly subscriptions: Map<number, Subscription>;
  stopNotes: (() => void) | undefined;
}

/** Serves tabs with one client. It connects with the first tab that wants to, and ends with the last. */
export class Hub {
  readonly #client: Client;
  readonly #tabs = new Set<Served>();
  /** Tabs that were asked for a token, and who waits for what they bring. */
  readonly #tokens = new Map<number, (token: string | undefined | Promise<never>) => void>();
  #nextToken = 1;
  /** The token in use. */
  #used: string | undefined;

  constructor(options: HubOptions, make: (options: ClientOptions) => Client = (made) => new Client(made)) {
    const commands = options.commands === undefined ? undefined : indexedDbCommands(options.commands);
    this.#client = make({ ...options, commands, token: (reason) => this.#token(reason), onProblem: () => undefined } as ClientOptions);
    this.#client.onConnection(() => this.#tellState());
  }

  /** No tab is left. */
  get isIdle(): boolean {
    return this.#tabs.size === 0;
  }

  /** Ends it for all. */
  close(): void {
    this.#tabs.clear();
    this.#client.close();
  }

  /** Serves one more tab. Returns how to stop: the tab is gone. `life`: the lock by which tabs hear that this place is gone. */
  attach(pipe: Pipe, life?: string): () => void {
    const tab: Served = { pipe, subscriptions: new Map(), stopNotes: undefined };
    this.#tabs.add(tab);
    const detach = (): void => {
      if (!this.#tabs.delete(tab)) return;
      for (const subscription of tab.subscriptions.values()) subscription.unsubscribe();
      tab.stopNotes?.();
      if (this.isIdle) this.#client.close();
    };
    pipe.onmessage = (message: ToHub) => (message.t === 'bye' ? detach() : this.#hear(tab, message));
    say(tab, { t: 'here', ...(life === undefined ? {} : { life }) });
    say(tab, this.#state());
    return detach;
  }

  #hear(tab: Served, message: ToHub): void {
    switch (message.t) {
      case 'do':
        if (message.what === 'connect') return this.#client.connect();
        return message.what === 'retryNow' ? this.#client.retryNow() : this.#client.hint(message.what);
      case 'sub':
        return this.#subscribe(tab, message);
      case 'unsub':
        tab.subscriptions.get(message.n)?.unsubscribe();
        tab.subscriptions.delete(message.n);
        return;
      case 'hold':
        return tab.subscriptions.get(message.n)?.hold();
      case 'release':
        return tab.subscriptions.get(message.n)?.release();
      case 'ask':
        return void this.#ask(tab, message.id, message.method, message.args);
      case 'activity':
        return this.#client.activity(message.kind, message.detail);
      case 'notes':
        tab.stopNotes ??= this.#client.onNotification((push) => say(tab, { t: 'note', push }));
        return;
      case 'count':
        return say(tab, { t: 'counted', counters: { ...this.#client.counters } });
      case 'token':
        return this.#tokens.get(message.id)?.(message.error === undefined ? message.token : Promise.reject(received(message.error)));
      default:
        return;
    }
  }

  #subscribe(tab: Served, { n, room, history, presence, from, values }: ToHub & { t: 'sub' }): void {
    tab.subscriptions.get(n)?.unsubscribe();
    const subscription: Subscription = this.#client.subscribe(room, {
      history,
      ...(from === undefined ? {} : { from: goOn(from, values) }),
      onEvent: (event, delivery) => say(tab, { t: 'event', n, event: event as CloudEvent, delivery, cursor: subscription.cursor }),
      onState: ({ key, event, gone, live }) => say(tab, { t: 'value', n, key, event: event as CloudEvent | undefined, gone, live }),
      onCaughtUp: () => say(tab, { t: 'caughtUp', n, cursor: subscription.cursor }),
      onReset: (reset) => say(tab, { t: 'reset', n, reset }),
      onError: (error) => say(tab, { t: 'error', n, error: sent(error) }),
      ...(presence ? { onPresence: (present: Presence) => say(tab, { t: 'presence', n, presence: present }) } : {}),
    });
    tab.subscriptions.set(n, subscription);
  }

  async #ask(tab: Served, id: number, method: Method, args: unknown[]): Promise<void> {
    const client = this.#client;
    const methods: Record<Method, () => Promise<unknown>> = {
      snapshot: () => client.snapshot(args[0] as string, args[1] as number),
      history: () => client.history(args[0] as string, args[1] as object),
      series: () => client.series(args[0] as string, args[1] as string, args[2] as object),
      command: () => client.command(args[0] as string, args[1], args[2] as CommandOptions),
      publish: () => client.publish(args[0] as string, args[1] as string, args[2], args[3] as string),
      presence: () => client.presence(args[0] as string),
      request: () => client.request(args[0] as string, args[1] as Record<string, unknown>, args[2] as number | undefined),
    };
    try {
      say(tab, { t: 'answer', id, value: await methods[method]() });
    } catch (thrown) {
      say(tab, { t: 'refused', id, error: sent(thrown) });
    }
  }

  /** Asks the tabs for a token, one after the other, until one brings one that is of use. Throws why the last one that answered had none. */
  async #token(reason: 'connect' | 'expiring' | 'expired'): Promise<string | undefined> {
    let error: unknown = new RoomcastError('network', 'No tab brought a token.', { temporary: true });
    for (const tab of [...this.#tabs]) {
      const id = this.#nextToken++;
      let timer: ReturnType<typeof setTimeout> | undefined;
      try {
        return (this.#used = await new Promise<string | undefined>((settle, fail) => {
          this.#tokens.set(id, settle);
          timer = setTimeout(() => fail(error), TOKEN_MS);
          say(tab, { t: 'wantToken', id, reason, used: this.#used });
        }));
      } catch (thrown) {
        // One that was left open has none any more; the next one may.
        error = thrown;
      } finally {
        clearTimeout(timer);
        this.#tokens.delete(id);
      }
    }
    throw error;
  }

  #state(): ToTab {
    const { connection: state, counters } = this.#client;
    const { error, ...rest } = state;
    return { t: 'state', state: { ...rest, ...(error === undefined ? {} : { error: sent(error) }) }, offset: this.#client.serverNow() - Date.now(), counters: { ...counters } };
  }

  #tellState(): void {
    for (const tab of this.#tabs) say(tab, this.#state());
  }
}

function say(tab: Served, message: ToTab): void {
  tab.pipe.post(message);
}

/** Serves what connects to a SharedWorker: one hub for each user, found by the key that tabs bring. */
export function serveWorker(scope: { onconnect: ((event: MessageEvent) => void) | null }): void {
  const hubs = new Map<string, Hub>();
  const name = `roomcast:worker:${randomId()}`;
  const held = holdLock(name);
  const serve = async (port: MessagePort, hello: ToHub & { t: 'hello' }): Promise<void> => {
    const life = (await held) ? name : undefined;
    let hub = hubs.get(hello.key);
    if (hub === undefined) hubs.set(hello.key, (hub = new Hub(hello.options)));
    const own = hub;
    const pipe: Pipe = { post: (message) => port.postMessage(message), onmessage: null };
    port.onmessage = ({ data }: MessageEvent<unknown>) => pipe.onmessage?.(data as never);
    const detach = own.attach(pipe, life);
    whenFree(tabLock(hello.tab), () => {
      detach();
      if (own.isIdle && hubs.get(hello.key) === own) hubs.delete(hello.key);
    });
  };
  scope.onconnect = (event) => {
    const port = event.ports[0] as MessagePort;
    port.onmessage = ({ data }: MessageEvent<ToHub>) => {
      if (data.t === 'hello') void serve(port, data);
    };
  };
}
