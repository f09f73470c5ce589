/** Where one can go on this page: the configured views and those that every page has. Pure. */

import type { IconName } from './icons.js';
import type { PageConfig } from './page.js';

/** One place, as the rail shows it. */
export interface Place {
  readonly id: string;
  readonly label: string;
  readonly icon: IconName;
  /** The key that follows `g`. */
  readonly key: string;
}

/** All of them; the first is where one begins. */
export function placesOf(config: Pick<PageConfig, 'views'>): Place[] {
  const own = config.views.map(({ id, label, icon, key }) => ({ id, label, icon, key }));
  return [...own, { id: 'connection', label: 'Connection', icon: 'connection', key: 'n' }, { id: 'admin', label: 'Admin', icon: 'admin', key: 'x' }];
}

/** The place an address names; the first for anything else. */
export function placeOf(places: readonly Place[], hash: string): Place {
  const name = hash.replace(/^#\/?/, '').split(/[/?]/)[0];
  const found = places.find(({ id }) => id === name) ?? places[0];
  if (found === undefined) throw new Error('a page has views');
  return found;
}
