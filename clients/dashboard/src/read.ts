/** Reading of what somebody else wrote: each reader takes a value and its path, and says what is wrong where. */

/** Why there is no configuration. */
export class PageError extends Error {
  constructor(
    readonly kind: 'missing' | 'unreachable' | 'broken',
    message: string,
  ) {
    super(message);
  }
}

/** Loads `/page.json`. Throws {@link PageError}. */
export async function fetchPage(): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch('/page.json', { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(10_000) });
  } catch {
    throw new PageError('unreachable', 'The gateway does not answer.');
  }
  if (response.status === 404) throw new PageError('missing', 'This gateway has no page configured.');
  if (!response.ok) throw new PageError('unreachable', `The gateway answered ${response.status}.`);
  return response.json().catch(() => undefined);
}

/** An object, or a {@link PageError}. */
export function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw broken(path, 'an object');
  return value as Record<string, unknown>;
}

/** A text that is not empty, or a {@link PageError}. */
export function text(value: unknown, path: string): string {
  if (typeof value !== 'string' || value === '') throw broken(path, 'a text');
  return value;
}

/** A text that is not empty, or nothing. */
export function optionalText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** A list of texts; what is none is left out. */
export function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === 'string' && one !== '') : [];
}

/** What is wrong where. */
export function broken(path: string, expected: string): PageError {
  return new PageError('broken', `${path} must be ${expected}.`);
}
