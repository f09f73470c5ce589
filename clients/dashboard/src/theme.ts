/** Light, dark, or what the system says. Colours follow `color-scheme`; see `styles/tokens.css`. */

/** The reader's choice. */
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'roomcast.theme';

/** The choice that is in force. */
export function readTheme(): Theme {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === 'light' || theme === 'dark' ? theme : 'system';
  } catch {
    return 'system';
  }
}

/** Remembers a choice and applies it. */
export function storeTheme(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Storage is blocked: the choice lasts as long as the page.
  }
  applyTheme(theme);
}

/** Applies a choice to the document. */
export function applyTheme(theme: Theme): void {
  if (theme === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
}
