import { describe, expect, it } from 'vitest';
import { loadedFrom, rangeOf, sinceOf, withRange } from './range.js';

describe('the time range', () => {
  it.each([['', 'all'], ['#/bookings', 'all'], ['#/bookings?last=24h', '24h'], ['#/bookings?last=7d&x=1', '7d'], ['#/bookings?last=ever', 'all'], ['#/b?last=', 'all']])('of %s is %s', (hash, range) => {
    expect(rangeOf(hash)).toBe(range);
  });

  it.each([['#/bookings', '1h', '/bookings?last=1h'], ['#/bookings?last=7d', '1h', '/bookings?last=1h'], ['#/bookings?last=7d', 'all', '/bookings'], ['', '24h', '/?last=24h']] as const)('%s with %s is %s', (hash, range, expected) => {
    expect(withRange(hash, range)).toBe(expected);
    expect(rangeOf(`#${expected}`)).toBe(range);
  });

  it('begins at a whole minute', () => {
    expect(sinceOf('all', 1_000_000_000)).toBeUndefined();
    expect(sinceOf('1h', Date.parse('2026-06-01T12:00:59.999Z'))).toBe(Date.parse('2026-06-01T11:00:00Z'));
  });

  it.each([
    ['all', '2026-06-01T12:34:00Z', undefined],
    ['1h', '2026-06-01T12:34:00Z', '2026-06-01T12:00:00Z'],
    ['1h', '2026-06-01T13:00:00Z', '2026-06-01T13:00:00Z'],
    ['24h', '2026-06-01T12:34:00Z', '2026-06-01T00:00:00Z'],
    ['7d', '2026-06-01T12:34:00Z', '2026-05-28T00:00:00Z'],
  ] as const)('%s since %s is loaded from %s on', (range, since, expected) => {
    expect(loadedFrom(range, range === 'all' ? undefined : Date.parse(since))).toBe(expected === undefined ? undefined : Date.parse(expected));
  });
});
