/**
 * One of the tabs holds the connection for all, where there is no worker: whoever has a Web Lock. The others reach it over
 * a BroadcastChannel; when it goes, the next in the line has the lock.
 */

import { tabLock, whenFree } from './locks.js';
import { pair, type Pipe, type ToHub } from './pipe.js';
import { loadHub, type Hello, type Serving } from './place.js';
import { randomId } from './random-id.js';

/** What goes over the channel. */
type Sent = { to: 'hub'; tab: string; body?: unknown } | { to: 'all'; hub: string } | { to: 'tab'; tab: string; body: unknown };

/** One of the tabs holds the connection: whoever has the lock. */
export class Election implements Serving {
  readonly #channel: BroadcastChannel;
  readonly #hello: Hello;
  readonly #attached: (pipe: Pipe) => void;
  readonly #stop = new AbortController();
  #resign: (() => void) | undefined;
  #pipe: Pipe | undefined;
  /** Whom it follows. */
  #hub = '';

  constructor(locks: LockManager, hello: Hello, attached: (pipe: Pipe) => void) {
    this.#hello = hello;
    this.#attached = attached;
    this.#channel = new BroadcastChannel(`roomcast:${hello.key}`);
    this.#channel.onmessage = ({ data }: MessageEvent<Sent>) => this.#follow(data);
    // Where locks are there and not allowed, each tab is on its own.
    locks.request(`roomcast:hub:${hello.key}`, { signal: this.#stop.signal }, () => this.#lead()).catch(() => this.#stop.signal.aborted || void this.#lead());
    // Whoever leads already answers.
    this.#send({ to: 'hub', tab: hello.tab });
  }

  stop(): void {
    this.#stop.abort();
    this.#resign?.();
    this.#channel.close();
  }

  #follow(message: Sent): void {
    if (message.to === 'all') {
      // Said to a tab that has just come; the others know.
      if (message.hub === this.#hub) return;
      this.#hub = message.hub;
      const pipe: Pipe = { post: (body) => this.#send({ to: 'hub', tab: this.#hello.tab, body }), onmessage: null };
      this.#pipe = pipe;
      this.#send({ to: 'hub', tab: this.#hello.tab, body: this.#hello });
      this.#attached(pipe);
    } else if (message.to === 'tab' && message.tab === this.#hello.tab) {
      this.#pipe?.onmessage?.(message.body as never);
    }
  }

  async #lead(): Promise<void> {
    const { Hub } = await loadHub();
    if (this.#stop.signal.aborted) return;
    const hub = new Hub(this.#hello.options);
    const here: Sent = { to: 'all', hub: randomId() };
    const pipes = new Map<string, Pipe>();
    this.#channel.onmessage = ({ data }: MessageEvent<Sent>) => {
      if (data.to !== 'hub') return;
      const { tab, body } = data;
      const known = pipes.get(tab);
      // A tab that has just come; all that follow already know.
      if (body === undefined) return this.#send(here);
      if ((body as ToHub).t === 'bye') pipes.delete(tab);
      if ((body as ToHub).t !== 'hello') return known?.onmessage?.(body as never);
      if (known !== undefined) return;
      const pipe: Pipe = { post: (answer) => this.#send({ to: 'tab', tab, body: answer }), onmessage: null };
      pipes.set(tab, pipe);
      const detach = hub.attach(pipe);
      whenFree(tabLock(tab), () => {
        if (pipes.get(tab) === pipe) pipes.delete(tab);
        detach();
      });
    };
    const [own, hubs] = pair();
    hub.attach(hubs);
    this.#attached(own);
    this.#send(here);
    return new Promise((resolve) => {
      this.#resign = () => {
        hub.close();
        resolve();
      };
    });
  }

  #send(message: Sent): void {
    try {
      this.#channel.postMessage(message);
    } catch {
      // Closed: the tab is going away.
    }
  }
}

