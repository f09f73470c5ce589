/** Whether the page has a phone's width. */

import { useSyncExternalStore } from 'react';

/** The width at which `styles/frame.css` turns to the phone's layout. */
const PHONE = '(max-width: 640px)';

/** True on a phone's width; renders again when that changes. */
export function usePhone(): boolean {
  return useSyncExternalStore(watch, isPhone);
}

function isPhone(): boolean {
  return matchMedia(PHONE).matches;
}

function watch(changed: () => void): () => void {
  const query = matchMedia(PHONE);
  query.addEventListener('change', changed);
  return () => query.removeEventListener('change', changed);
}
