/** The SharedWorker of `sharedClient`: all tabs of a browser over one connection. */

import { serveWorker } from './hub.js';

serveWorker(globalThis as unknown as Parameters<typeof serveWorker>[0]);
