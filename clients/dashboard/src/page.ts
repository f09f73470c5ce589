/** The page's configuration, `/page.json`: public, written by whoever runs the gateway, so read without trust. */

import type { IconName } from './icons.js';

/** How a card writes its number. */
export type CardFormat = 'currency' | 'number' | 'percent';

/** One card. */
export interface CardConfig {
  readonly metric: string;
  readonly label: string;
  readonly format: CardFormat;
  /** What the number means, for the tooltip. */
  readonly definition?: string;
}

/** Everything the page must know before it connects. */
export interface PageConfig {
  readonly scenario: string;
  readonly title: string;
  /** IANA name of the business's zone. */
  readonly timezone: string;
  readonly currency: string;
  readonly rooms: { readonly events: string; readonly metrics: string };
  readonly cards: readonly CardConfig[];
  /** Where events are published, for the examples shown to developers. */
  readonly ingest?: string;
}

/** Why there is no configuration. */
export class PageError extends Error {
  constructor(
    readonly kind: 'missing' | 'unreachable' | 'broken',
    message: string,
  ) {
    super(message);
  }
}

/** Cards a page shows at most: more is a table. */
const CARDS_MAX = 12;

/** Loads the configuration. Throws {@link PageError}. */
export async function loadPage(): Promise<PageConfig> {
  let response: Response;
  try {
    response = await fetch('/page.json', { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(10_000) });
  } catch {
    throw new PageError('unreachable', 'The gateway does not answer.');
  }
  if (response.status === 404) throw new PageError('missing', 'This gateway has no page configured.');
  if (!response.ok) throw new PageError('unreachable', `The gateway answered ${response.status}.`);
  return readPage(await response.json().catch(() => undefined));
}

/** Checks what came. Throws {@link PageError} naming the first thing that is wrong. */
export function readPage(body: unknown): PageConfig {
  const page = object(body, 'page.json');
  const rooms = object(page['rooms'], 'rooms');
  if (!Array.isArray(page['cards'])) throw broken('cards', 'a list');
  const ingest = page['ingest'];
  return {
    scenario: typeof page['scenario'] === 'string' ? page['scenario'] : 'bookings',
    title: text(page['title'], 'title'),
    timezone: zone(page['timezone']),
    currency: typeof page['currency'] === 'string' && /^[A-Z]{3}$/.test(page['currency']) ? page['currency'] : 'USD',
    rooms: { events: text(rooms['events'], 'rooms.events'), metrics: text(rooms['metrics'], 'rooms.metrics') },
    cards: page['cards'].slice(0, CARDS_MAX).map((card, index) => readCard(card, `cards[${index}]`)),
    ...(typeof ingest === 'string' ? { ingest } : {}),
  };
}

function readCard(value: unknown, path: string): CardConfig {
  const card = object(value, path);
  const format = card['format'];
  const definition = card['definition'];
  return {
    metric: text(card['metric'], `${path}.metric`),
    label: text(card['label'], `${path}.label`),
    format: format === 'currency' || format === 'percent' ? format : 'number',
    ...(typeof definition === 'string' ? { definition } : {}),
  };
}

function zone(value: unknown): string {
  const name = text(value, 'timezone');
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return name;
  } catch {
    throw broken('timezone', 'an IANA time zone');
  }
}

function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw broken(path, 'an object');
  return value as Record<string, unknown>;
}

function text(value: unknown, path: string): string {
  if (typeof value !== 'string' || value === '') throw broken(path, 'a text');
  return value;
}

function broken(path: string, expected: string): PageError {
  return new PageError('broken', `${path} must be ${expected}.`);
}

/** Views the rail offers, with the key that follows `g`. */
export const VIEWS = [
  { id: 'bookings', label: 'Bookings', icon: 'bookings', key: 'b' },
  { id: 'connection', label: 'Connection', icon: 'connection', key: 'c' },
] as const satisfies readonly { id: string; label: string; icon: IconName; key: string }[];

/** A view's name, as in its address. */
export type ViewId = (typeof VIEWS)[number]['id'];

/** The view an address names; the first for anything else. */
export function viewOf(hash: string): ViewId {
  const name = hash.replace(/^#\/?/, '');
  return VIEWS.find((view) => view.id === name)?.id ?? VIEWS[0].id;
}
