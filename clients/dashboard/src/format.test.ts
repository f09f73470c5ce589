import { expect, it } from 'vitest';
import { Format } from './format.js';

const format = new Format({ timezone: 'Europe/Berlin', currency: 'EUR' }, 'en-GB');

it.each([
  ['2026-07-01T22:00:00Z', '2026-07-02T22:00:00Z', 'yesterday'],
  // The clock is put forward, and back.
  ['2026-03-28T23:00:00Z', '2026-03-29T22:00:00Z', 'yesterday'],
  ['2026-10-24T22:00:00Z', '2026-10-25T23:00:00Z', 'yesterday'],
  ['2026-07-05T22:00:00Z', '2026-07-12T22:00:00Z', 'last week'],
  ['2026-02-28T23:00:00Z', '2026-03-31T22:00:00Z', 'last month'],
  // Windows that slide begin anywhere.
  ['2026-07-01T14:01:00Z', '2026-07-02T14:01:00Z', 'previous 24h'],
  ['2026-07-06T22:00:00Z', '2026-07-13T22:00:00Z', 'previous 7d'],
  ['2026-07-01T22:00:00Z', '2026-07-01T23:00:00Z', 'previous 1h'],
  ['2026-06-30T22:00:00Z', '2026-07-17T09:13:07.123Z', 'the same time before'],
])('a window from %s to %s is compared with %s', (start, end, words) => {
  expect(format.before(Date.parse(start), Date.parse(end))).toBe(words);
});
