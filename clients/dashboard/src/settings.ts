/** What the reader chose on this machine: sounds, desktop notifications. Where storage is blocked it lasts as long as the page. */

import { Store } from './store.js';

/** The choices. */
export interface Settings {
  readonly sounds: boolean;
  /** 0 to 1. */
  readonly volume: number;
  /** Desktop notifications while the page is not seen. */
  readonly desktop: boolean;
}

const KEY = 'roomcast.settings';
/** Quiet until somebody wishes otherwise. */
export const USUAL: Settings = { sounds: false, volume: 0.5, desktop: false };

/** The choices in force. */
export const settings = new Store<Settings>(read(stored()));

/** Changes some of them and remembers it. */
export function choose(change: Partial<Settings>): void {
  settings.update((before) => ({ ...before, ...change }));
  // With the next frame would be too late: React turns a switch back until then.
  settings.tell();
  try {
    localStorage.setItem(KEY, JSON.stringify(settings.now));
  } catch {
    // Storage is blocked.
  }
}

/** Reads what was remembered; whatever is not a choice is the usual one. */
export function read(text: string | null): Settings {
  let value: unknown;
  try {
    value = JSON.parse(text ?? '{}');
  } catch {
    value = {};
  }
  const said = (typeof value === 'object' && value !== null ? value : {}) as Partial<Record<keyof Settings, unknown>>;
  const volume = typeof said.volume === 'number' && said.volume >= 0 && said.volume <= 1 ? said.volume : USUAL.volume;
  return { sounds: said.sounds === true, volume, desktop: said.desktop === true };
}

function stored(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

// Another tab's choice is this one's as well.
if (typeof addEventListener === 'function') {
  addEventListener('storage', (event) => {
    if (event.key === KEY) settings.update(() => read(event.newValue));
  });
}
