/** The operator's token: in the memory of this tab while the page lives, so that a look at another view does not ask for it again; never stored, and forgotten with the reader's sign-in. */

import { Store } from '../store.js';

/** The token; undefined until somebody brings one. */
export const adminToken = new Store<string | undefined>(undefined);
