import type { CloudEvent } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { faceOf } from './badge.js';
import { Format } from './format.js';
import { metricOfKey, readMetric, readStatus } from './metric.js';
import { PageError, readPage, viewOf } from './page.js';
import { segments } from './sparkline.js';

const PAGE = { scenario: 'bookings', title: 'B', timezone: 'Europe/Istanbul', currency: 'TRY', rooms: { events: 'b', metrics: 'm' }, cards: [{ metric: 'revenue', label: 'Revenue', format: 'currency' }] };
const metric = (data: unknown, type = 'metric.updated'): CloudEvent => ({ specversion: '1.0', id: '1', source: 's', type, data });

describe('page configuration', () => {
  it('is read, unknown members left out', () => {
    expect(readPage({ ...PAGE, later: 1 })).toEqual(PAGE);
    expect(readPage({ ...PAGE, currency: 'lira' }).currency).toBe('USD');
    expect(readPage({ ...PAGE, cards: [{ metric: 'a', label: 'A', format: 'gauge' }] }).cards[0]?.format).toBe('number');
  });

  it.each([
    [undefined, 'page.json'],
    [{ ...PAGE, title: '' }, 'title'],
    [{ ...PAGE, timezone: 'Mars/Base' }, 'timezone'],
    [{ ...PAGE, rooms: { events: 'b' } }, 'rooms.metrics'],
    [{ ...PAGE, cards: {} }, 'cards'],
    [{ ...PAGE, cards: [{ label: 'x' }] }, 'cards[0].metric'],
  ])('names what is wrong in %o', (body, path) => {
    expect(() => readPage(body)).toThrow(PageError);
    expect(() => readPage(body)).toThrow(`${path} must be`);
  });

  it.each([['', 'bookings'], ['#/connection', 'connection'], ['#/bookings', 'bookings'], ['#/x', 'bookings'], ['#token=a', 'bookings']])('the address %s is the view %s', (hash, view) => {
    expect(viewOf(hash)).toBe(view);
  });
});

describe('metrics', () => {
  it('reads an update without touching its digits', () => {
    const read = readMetric(metric({ value: '12345678901234567.89', previous: null, change_percent: '-1.50', direction: 'down', sparkline: ['1', 2, null, 'x', { value: '3' }], window: { start: '2026-01-01T00:00:00Z', end: null }, events: 3, as_of: '2026-01-01T00:00:00Z' }));
    expect(read).toMatchObject({ value: '12345678901234567.89', previous: null, changePercent: '-1.50', direction: 'down', sparkline: [1, 2, null, null, 3], stalled: false, noData: false });
  });

  it.each([[true, true], [false, false], [undefined, false], ['2026-01-01T00:00:00Z', Date.UTC(2026, 0, 1)]])('stalled %s is %s', (stalled, expected) => {
    expect(readMetric(metric({ stalled }))?.stalled).toBe(expected);
  });

  it('takes nothing else for an update', () => {
    expect(readMetric(metric({}, 'other'))).toBeUndefined();
    expect(readMetric(metric(null))).toBeUndefined();
    expect(readStatus(metric({ skipped: { late: 2, missing: 0, x: 'y' } }, 'metric.status'))).toEqual({ skipped: [['late', 2]] });
  });

  it.each([['revenue', 'revenue'], ['revenue@2026', undefined], ['revenue/car', undefined], ['status/revenue', undefined]])('the key %s is the metric %s', (key, name) => {
    expect(metricOfKey(key)).toBe(name);
  });
});

describe('format', () => {
  const format = new Format({ timezone: 'Europe/Istanbul', currency: 'TRY' }, 'en-GB');

  it.each([
    ['1234567.891', 'currency', '₺1,234,568'],
    ['12.5', 'currency', '₺12.50'],
    ['0.8123', 'percent', '81.2%'],
    ['1207', 'number', '1,207'],
  ] as const)('writes %s as %s', (value, kind, expected) => {
    expect(format.card(value, kind)).toBe(expected);
  });

  it('writes every digit where exactness is asked for', () => {
    expect(format.exact('123456789012345678.25', 'currency')).toBe('₺123,456,789,012,345,678.25');
  });

  it('writes amounts of unknown currencies all the same', () => {
    expect(format.money(5, 'coins')).toBe('5 coins');
    expect(format.money(undefined, 'TRY')).toBe('–');
  });

  it.each([[0, 'now'], [9_000, 'now'], [-60_000, 'now'], [125_000, '2 min ago'], [7_200_000, '2 hr ago']])('%i ms ago is %s', (age, expected) => {
    expect(format.ago(1_000_000_000 - age, 1_000_000_000)).toMatch(new RegExp(expected.replace(/ (min|hr) /, ' ?(min|m|hr|h) ?')));
  });

  it('uses the business’s zone', () => {
    expect(format.time(Date.UTC(2026, 0, 1, 11, 3, 7))).toBe('14:03:07');
  });
});

describe('sparkline', () => {
  it('breaks at gaps and keeps flat series in the middle', () => {
    expect(segments([])).toEqual([]);
    expect(segments([null, null])).toEqual([]);
    expect(segments([5, 5]).flat().map(({ y }) => y)).toEqual([16, 16]);
    expect(segments([1, 2, null, 3]).map((line) => line.length)).toEqual([2, 1]);
    expect(segments([1, 3])[0]?.map(({ x, y }) => [x, y])).toEqual([[0, 29], [100, 3]]);
  });
});

describe('badge', () => {
  it.each([
    [{ status: 'live' }, 'live'],
    [{ status: 'waiting' }, 'connecting'],
    [{ status: 'waiting', offlineSince: 1 }, 'offline'],
    [{ status: 'live', offlineSince: 1 }, 'live'],
    [{ status: 'paused' }, 'paused'],
    [{ status: 'closed' }, 'offline'],
  ] as const)('%o has the face %s', (state, face) => {
    expect(faceOf(state)).toBe(face);
  });
});
