/** The page's keys. They keep out of the way of typing. */

import { useEffect } from 'react';
import type { Place } from './places.js';

/** How long `g` waits for its letter, in milliseconds. */
const CHORD_MS = 1_000;

/** Listens for the page's keys. */
export function useKeys(places: readonly Place[], go: (view: string) => void, showKeys: () => void): void {
  useEffect(() => {
    let chordUntil = 0;
    const down = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement | null;
      const typing = target?.matches?.('input:not([type=radio]), textarea, select, [contenteditable]') === true;
      if (typing && event.key === 'Escape') target.blur();
      if (typing || event.metaKey || event.ctrlKey || event.altKey || document.querySelector('dialog[open]') !== null) return;
      if (event.timeStamp < chordUntil) {
        chordUntil = 0;
        const view = places.find(({ key }) => key === event.key);
        if (view !== undefined) return go(view.id);
      }
      if (event.key === 'g') chordUntil = event.timeStamp + CHORD_MS;
      else if (event.key === '?') showKeys();
      else if (event.key === '/') {
        event.preventDefault();
        document.getElementById('filter')?.focus();
      }
    };
    document.addEventListener('keydown', down);
    return () => document.removeEventListener('keydown', down);
  }, [places, go, showKeys]);
}
