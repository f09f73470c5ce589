/** What a browser says of the network and of whoever looks at the page. */

/** A page counts as hidden after this, in milliseconds: a glance at another tab costs nothing. */
export const HIDDEN_AFTER_MS = 10_000;

/** Passes the browser's hints on; does nothing where there is no page. Returns how to stop. */
export function listenToPage(hint: (input: 'online' | 'offline' | 'wake') => void, seen: (isHidden: boolean) => void): () => void {
  const page = globalThis as Partial<Pick<typeof globalThis, 'addEventListener' | 'document' | 'navigator'>>;
  if (page.addEventListener === undefined || page.document === undefined) return () => undefined;
  const document = page.document;
  let hiding: ReturnType<typeof setTimeout> | undefined;
  const wake = (): void => {
    clearTimeout(hiding);
    if (document.visibilityState !== 'visible') {
      hiding = setTimeout(() => seen(true), HIDDEN_AFTER_MS);
      return;
    }
    hint('wake');
    seen(false);
  };
  const stop = new AbortController();
  const { signal } = stop;
  for (const name of ['online', 'offline'] as const) page.addEventListener(name, () => hint(name), { signal });
  page.addEventListener('pageshow', wake, { signal });
  document.addEventListener('visibilitychange', wake, { signal });
  document.addEventListener('resume', wake, { signal });
  if (page.navigator?.onLine === false) hint('offline');
  return () => {
    clearTimeout(hiding);
    stop.abort();
  };
}
