/**
 * Where the shared connection lives: in a SharedWorker, else in one of the tabs (`election.ts`), else in this tab alone.
 * Tabs and workers hold a lock as long as they live (`locks.ts`), so that each hears when the other is gone.
 */

import { Election } from './election.js';
import { lockManager, whenFree } from './locks.js';
import { pair, type Pipe, type ToHub, type ToTab } from './pipe.js';

/** The part of a SharedWorker that is used. */
export interface WorkerLike {
  readonly port: MessagePort;
  onerror: ((event: never) => void) | null;
}

/** How long a worker may take to answer before a tab holds the connection instead, in milliseconds. */
const WORKER_MS = 5_000;

/** A part that could not be fetched is fetched again after this, in milliseconds. */
const RELOAD_MS = 2_000;

/** A place that serves this tab. */
export interface Serving {
  /** The tab leaves it. */
  stop(): void;
}

/** How a tab introduces itself. */
export type Hello = ToHub & { t: 'hello' };

/** Fetches the hub, which only a tab without a worker needs; tries on where the network is gone. */
export async function loadHub(): Promise<typeof import('./hub.js')> {
  for (;;) {
    try {
      return await import('./hub.js');
    } catch {
      await new Promise((again) => setTimeout(again, RELOAD_MS));
    }
  }
}

/** The best place that there is: a worker, the tab that holds the lock, this tab. `attached` is called with each hub, `lost` when a worker is gone. */
export async function findPlace(make: (() => WorkerLike) | undefined, hello: Hello, attached: (pipe: Pipe) => void, lost: () => void): Promise<Serving> {
  const worker = make === undefined || !('SharedWorker' in globalThis) ? undefined : await fromWorker(make, hello, lost);
  if (worker !== undefined) {
    attached(worker.pipe);
    return worker;
  }
  const locks = lockManager();
  if (locks === undefined || typeof BroadcastChannel === 'undefined') return alone(hello, attached);
  return new Election(locks, hello, attached);
}

/** A worker that answers; undefined where it cannot be made, is not allowed, or stays silent. */
function fromWorker(make: () => WorkerLike, hello: Hello, lost: () => void): Promise<(Serving & { pipe: Pipe }) | undefined> {
  return new Promise((settle) => {
    let unwatch: (() => void) | undefined;
    let port: MessagePort | undefined;
    const leave = (): void => {
      unwatch?.();
      // A worker that answers late must not serve a tab that has gone elsewhere.
      port?.postMessage({ t: 'bye' } satisfies ToHub);
      port?.close();
    };
    const fail = (): void => {
      clearTimeout(timer);
      leave();
      settle(undefined);
    };
    const timer = setTimeout(fail, WORKER_MS);
    try {
      const worker = make();
      worker.onerror = fail;
      const own = (port = worker.port);
      const pipe: Pipe = { post: (message) => own.postMessage(message), onmessage: null };
      own.onmessage = ({ data }: MessageEvent<ToTab>) => {
        if (data.t !== 'here') return pipe.onmessage?.(data as never);
        clearTimeout(timer);
        worker.onerror = null;
        if (data.life !== undefined) unwatch = whenFree(data.life, lost);
        settle({ pipe, stop: leave });
      };
      own.start();
      own.postMessage(hello);
    } catch {
      fail();
    }
  });
}

async function alone(hello: Hello, attached: (pipe: Pipe) => void): Promise<Serving> {
  const { Hub } = await loadHub();
  const [own, hubs] = pair();
  const stop = new Hub(hello.options).attach(hubs);
  attached(own);
  return { stop };
}
