/** How far back charts and feeds look: the reader's choice, part of the address, so that a view of the last hour can be sent to somebody. */

import { createContext, useContext } from 'react';

/** The choices, as addresses and people name them. */
export const RANGES = [
  ['all', 'All time', undefined],
  ['1h', 'Last hour', 3_600_000],
  ['24h', 'Last 24 h', 86_400_000],
  ['7d', 'Last 7 days', 604_800_000],
] as const;

/** The name of a choice. */
export type Range = (typeof RANGES)[number][0];

/** What an address says; everything where it says nothing that is one. */
export function rangeOf(hash: string): Range {
  const said = new URLSearchParams(hash.split('?')[1] ?? '').get('last');
  return RANGES.find(([name]) => name === said)?.[0] ?? 'all';
}

/** The address of the same view with another choice. */
export function withRange(hash: string, range: Range): string {
  const view = (hash.split('?')[0] ?? '').replace(/^#\/?/, '');
  return range === 'all' ? `/${view}` : `/${view}?last=${range}`;
}

/** The instant from which on something is shown, in milliseconds since the Unix epoch, to the minute; undefined: always. */
export function sinceOf(range: Range, now: number): number | undefined {
  const span = RANGES.find(([name]) => name === range)?.[2];
  return span === undefined ? undefined : Math.floor((now - span) / 60_000) * 60_000;
}

/** From when on the past is asked for: whole spans, so that it is not asked for again with each minute that goes by; undefined: all of it. */
export function loadedFrom(range: Range, since: number | undefined): number | undefined {
  const span = RANGES.find(([name]) => name === range)?.[2];
  return since === undefined || span === undefined ? undefined : Math.floor(since / span) * span;
}

/** How far back is looked, and how far back is loaded for that. */
export interface Past {
  readonly since: number | undefined;
  readonly from: number | undefined;
}

/** Provided by the frame. */
export const PastContext = createContext<Past>({ since: undefined, from: undefined });

/** How far back charts and feeds look; goes on with the clock. */
export function usePast(): Past {
  return useContext(PastContext);
}
