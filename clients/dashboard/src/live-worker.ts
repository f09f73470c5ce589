/**
 * The SharedWorker that holds the connection for all tabs of the browser. It is started with the page, before the page
 * knows what it shows, so that it is there when it is asked.
 */

import LiveWorker from 'roomcast/worker?sharedworker';

/** Tabs that say the same name share one worker, as long as the page's files are the same. */
const NAME = 'roomcast';

let early: SharedWorker | undefined = make();

/** The worker of this tab. Throws where there are no workers, or none are allowed; then a tab holds the connection. */
export function liveWorker(): SharedWorker {
  const worker = early ?? new LiveWorker({ name: NAME });
  // A port is for one client: whoever signs in again has another one.
  early = undefined;
  return worker;
}

function make(): SharedWorker | undefined {
  try {
    return 'SharedWorker' in globalThis ? new LiveWorker({ name: NAME }) : undefined;
  } catch {
    return undefined;
  }
}
