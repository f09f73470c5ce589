/**
 * Texts with places to fill: `{data.customer}`, `{data.amount|money}`. Pure. A place without a value is empty, and a text
 * all of whose places are empty is empty.
 */

import type { Format } from './format.js';

/** What a template is filled from: an event, or an entry made of several. */
export interface Source {
  readonly type?: string;
  readonly room?: string;
  readonly data?: unknown;
}

const PLACE = /\{([a-zA-Z0-9_.]+)(?:\|([a-z]+))?\}/g;

/** The value at a path of names with dots; undefined where there is none. */
export function at(source: unknown, path: string): unknown {
  let value: unknown = source;
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** A value as plain text; objects and nothing are empty. */
export function plain(value: unknown): string {
  return typeof value === 'string' ? value : typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}

/** Stands between parts of a template. */
const JOINER = ' · ';

/** Fills a template for people. A part all of whose places are empty goes, with what joined it to its neighbour. */
export function fill(template: string, source: Source, format: Format): string {
  let places = 0;
  let filled = 0;
  // The template is taken apart and not the result: dots inside of what somebody wrote are theirs.
  const parts = template.split(JOINER).map((part) => {
    const before = { places, filled };
    const text = part.replace(PLACE, (_, path: string, how: string | undefined) => {
      places += 1;
      const written = write(at(source, path), how, source, format);
      if (written !== '') filled += 1;
      return written;
    });
    return places > before.places && filled === before.filled ? '' : text.trim();
  });
  return places > 0 && filled === 0 ? '' : parts.filter((part) => part !== '').join(JOINER);
}

/** Fills a template for machines: names of marks and icons. */
export function fillPlain(template: string, source: Source): string {
  return template.replace(PLACE, (_, path: string) => plain(at(source, path)));
}

/** Fills every text of a value; a text that is one place alone keeps the value's own kind. */
export function fillData(value: unknown, source: Source): unknown {
  if (typeof value === 'string') {
    const alone = /^\{([a-zA-Z0-9_.]+)\}$/.exec(value)?.[1];
    return alone === undefined ? fillPlain(value, source) : (at(source, alone) ?? null);
  }
  if (Array.isArray(value)) return value.map((one) => fillData(one, source));
  if (typeof value === 'object' && value !== null) return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, fillData(one, source)]));
  return value;
}

function write(value: unknown, how: string | undefined, source: Source, format: Format): string {
  const text = plain(value);
  if (text === '') return '';
  switch (how) {
    case 'money':
      return Number.isFinite(Number(text)) ? format.money(text, plain(at(source, 'data.currency')) || format.currency) : text;
    case 'number':
      return Number.isFinite(Number(text)) ? format.count(Number(text)) : text;
    case 'percent':
      return Number.isFinite(Number(text)) ? format.percent(Number(text)) : text;
    case 'country':
      return format.country(text);
    case 'words':
      return text.replaceAll('_', ' ');
    default:
      return text;
  }
}
