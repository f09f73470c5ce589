/**
 * One connection for all tabs of a browser: what an application asks for. `tab.ts` is the client that it gets, `place.ts`
 * where the connection lives, `hub.ts` what serves the tabs.
 */

import type { RoomcastClient } from './api.js';
import type { TokenSource } from './credentials.js';
import type { RoomcastError } from './error.js';
import type { EventMap } from './event.js';
import type { Transport } from './follow.js';
import type { WorkerLike } from './place.js';
import { Tab } from './tab.js';

/** How to share a connection. */
export interface SharedOptions {
  /** The gateway. Default: where the page came from. */
  url?: string;
  /** A token or a callback that brings one. Tabs of different users never share a connection. */
  token?: TokenSource;
  /** Makes the worker from `roomcast/worker`; without, one of the tabs holds the connection. */
  worker?: () => WorkerLike;
  transports?: readonly Transport[];
  name?: string;
  /** What happens while nobody sees this tab. Default `hold`: it costs no frames, and has everything when it is seen again. */
  whileHidden?: 'deliver' | 'hold';
  /** Commands wait in IndexedDB under this name, over reloads. Default: memory. */
  commands?: string;
  onProblem?: (problem: RoomcastError | unknown) => void;
}

/** A client over a connection that all tabs of the browser share, for each user one. */
export function sharedClient<M extends EventMap = EventMap>(options: SharedOptions = {}): RoomcastClient<M> {
  return new Tab<M>(options);
}
