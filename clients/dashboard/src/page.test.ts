import { readdirSync, readFileSync } from 'node:fs';
import type { CloudEvent, Metric } from 'roomcast';
import { describe, expect, it, vi } from 'vitest';
import { faceOf } from './badge.js';
import { Format } from './format.js';
import { readKey, readStatus } from './metric.js';
import { markOf, readPage } from './page.js';
import { placeOf, placesOf } from './places.js';
import { ranked } from './ranking.js';
import { PageError } from './read.js';
import { choose, read, settings, USUAL } from './settings.js';
import { segments } from './sparkline.js';

const VIEW = { id: 'desk', label: 'Desk', cards: [{ metric: 'revenue', label: 'Revenue', format: 'currency' }], lists: [{ id: 'l', title: 'L', rooms: ['b'] }] };
const PAGE = { title: 'B', timezone: 'Europe/Istanbul', currency: 'TRY', metrics: 'm', views: [VIEW] };
const SCENARIOS = new URL('../../../deploy/scenarios/', import.meta.url);
const metric = (data: unknown, type = 'metric.updated'): CloudEvent => ({ specversion: '1.0', id: '1', source: 's', type, data });

describe('page configuration', () => {
  it('is read, what is not known left out, what is missing usual', () => {
    const page = readPage({ ...PAGE, later: 1, currency: 'lira', toast_seconds: 999 });
    expect([page.currency, page.toastMs, page.views[0]?.icon, page.views[0]?.key, page.notifications]).toEqual(['USD', 60_000, 'dashboard', 'd', undefined]);
    expect(readPage({ ...PAGE, views: [{ ...VIEW, cards: [{ metric: 'a', label: 'A', format: 'gauge' }] }] }).views[0]?.cards[0]?.format).toBe('number');
    expect(readPage({ ...PAGE, views: [{ ...VIEW, cards: [{ metric: 'a', label: 'A', versus: 'last week' }, { metric: 'b', label: 'B', versus: 7 }] }] }).views[0]?.cards.map(({ versus }) => versus)).toEqual(['last week', undefined]);
    expect(readPage({ ...PAGE, admin: { gateway: ['http://127.0.0.1:9080', 'javascript:x', 'http://x/y', 3], ingest: 7 } }).admin).toEqual({ gateway: ['http://127.0.0.1:9080'], ingest: [], aggregator: [] });
    expect(markOf(page, 'in_doubt')).toEqual({ word: 'in doubt', icon: 'dot', tone: 'grey' });
  });

  it.each([
    [undefined, 'page.json'],
    [{ ...PAGE, title: '' }, 'title'],
    [{ ...PAGE, timezone: 'Mars/Base' }, 'timezone'],
    [{ ...PAGE, metrics: undefined }, 'metrics'],
    [{ ...PAGE, views: [] }, 'views'],
    [{ ...PAGE, views: [VIEW, VIEW] }, 'views'],
    [{ ...PAGE, views: [{ ...VIEW, id: 'admin' }] }, 'views[0].id'],
    [{ ...PAGE, views: [{ ...VIEW, id: 'A b' }] }, 'views[0].id'],
    [{ ...PAGE, views: [{ ...VIEW, cards: {} }] }, 'views[0].cards'],
    [{ ...PAGE, views: [{ ...VIEW, cards: [{ label: 'x' }] }] }, 'views[0].cards[0].metric'],
    [{ ...PAGE, views: [{ ...VIEW, lists: [{ id: 'l', title: 'L' }] }] }, 'views[0].lists[0].rooms'],
    [{ ...PAGE, views: [{ ...VIEW, lists: [{ id: 'l', title: 'L', rooms: ['b'], columns: [{ label: 'x' }] }] }] }, 'views[0].lists[0].columns[0].text'],
    [{ ...PAGE, events: { x: {} } }, 'events.x.title'],
    [{ ...PAGE, rooms: { x: 7 } }, 'rooms.x'],
    [{ ...PAGE, marks: { x: 7 } }, 'marks.x'],
  ])('names what is wrong in %o', (body, path) => {
    expect(() => readPage(body)).toThrow(PageError);
    expect(() => readPage(body)).toThrow(`${path} must be`);
  });

  it.each(readdirSync(SCENARIOS))('of the scenario %s is good: every mark is known, every view has a key of its own', (name) => {
    const page = readPage(JSON.parse(readFileSync(new URL(`${name}/page.json`, SCENARIOS), 'utf8')));
    const keys = placesOf(page).map(({ key }) => key);
    expect(new Set(keys).size).toBe(keys.length);
    for (const list of page.views.flatMap((view) => view.lists)) {
      for (const filter of list.filters) expect(page.marks.has(filter), `${list.id}: ${filter}`).toBe(true);
      for (const type of list.types) expect(page.events.has(type), `${list.id}: ${type}`).toBe(true);
    }
    // Preferences speak to people.
    for (const [type, { toast, label }] of page.events) expect(!toast || label !== undefined, `${type} has no label`).toBe(true);
    for (const priority of ['critical', 'high', 'medium', 'low']) expect(page.marks.has(priority)).toBe(true);
  });

  it.each([['', 'desk'], ['#/connection', 'connection'], ['#/desk', 'desk'], ['#/x', 'desk'], ['#token=a', 'desk'], ['#/admin', 'admin']])('the address %s is the place %s', (hash, place) => {
    expect(placeOf(placesOf(readPage(PAGE)), hash).id).toBe(place);
  });

  it.each([[null, USUAL], ['{', USUAL], ['7', USUAL], ['{"sounds":true,"volume":9}', { ...USUAL, sounds: true }], ['{"desktop":true,"volume":0}', { ...USUAL, desktop: true, volume: 0 }]])('choices %s are %o', (text, expected) => {
    expect(read(text)).toEqual(expected);
  });

  it('a choice is shown at once, not with the next frame', () => {
    const watcher = vi.fn();
    settings.subscribe(watcher);
    choose({ volume: 1 });
    expect(watcher).toHaveBeenCalledTimes(1);
  });
});

describe('metrics', () => {
  it('a status says what was skipped', () => {
    expect(readStatus(metric({ skipped: { late: 2, missing: 0, x: 'y' } }, 'metric.status'))).toEqual({ skipped: [['late', 2]] });
  });

  it.each([
    ['revenue', { metric: 'revenue', group: undefined, closed: false }],
    ['revenue@2026-01-01T00:00:00Z', { metric: 'revenue', group: undefined, closed: true }],
    ['by_vendor/v-01', { metric: 'by_vendor', group: 'v-01', closed: false }],
    ['by_vendor/v-01/x@2026', { metric: 'by_vendor', group: 'v-01/x', closed: true }],
    ['Sales-2026', { metric: 'Sales-2026', group: undefined, closed: false }],
    ['2nd-Shift/a', { metric: '2nd-Shift', group: 'a', closed: false }],
    ['status/revenue', undefined],
    ['notification/x', undefined],
    ['~', undefined],
  ])('the key %s is %o', (key, expected) => {
    expect(readKey(key)).toEqual(expected);
  });
});

describe('a ranking', () => {
  it('has the largest first, those without a value last, and names of its own alone', () => {
    const group = (name: string, number: number | null): [string, Metric] => [name, { group: [name], number, value: number === null ? null : String(number) } as unknown as Metric];
    const found = ranked({ names: { a: 'Anna' } }, new Map([group('none', null), group('constructor', 1), group('a', -2), group('b', 7)]));
    expect(found.map(({ name, value }) => [name, value])).toEqual([['b', '7'], ['constructor', '1'], ['Anna', '-2'], ['none', null]]);
    expect(ranked({ names: {} }, undefined)).toEqual([]);
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

  it.each([
    ['2026-01-01T11:03:07Z', '2026-01-01T20:59:59Z', '14:03:07', '14:03'],
    // Midnight is the business's own.
    ['2026-01-01T11:03:07Z', '2026-01-01T21:00:00Z', '1 Jan, 14:03:07', '1 Jan, 14:03'],
    ['2025-12-31T21:30:00Z', '2026-01-01T11:00:00Z', '00:30:00', '00:30'],
    ['2025-01-01T11:03:07Z', '2026-01-01T12:00:00Z', '1 Jan, 14:03:07', '1 Jan, 14:03'],
  ])('%s is, at %s, %s', (at, now, time, short) => {
    expect([format.time(Date.parse(at), Date.parse(now)), format.shortTime(Date.parse(at), Date.parse(now))]).toEqual([time, short]);
  });
});

describe('sparkline', () => {
  it('breaks at gaps and keeps flat series in the middle', () => {
    expect(segments([])).toEqual([]);
    expect(segments([null, null])).toEqual([]);
    expect(segments([5, 5]).flat().map(({ y }) => y)).toEqual([16, 16]);
    expect(segments([1, 2, null, 3]).map((line) => line.length)).toEqual([2, 1]);
    expect(segments([null, null, 1, 2]).map((line) => line.map(({ x }) => x)), 'begins where something is known').toEqual([[0, 100]]);
    expect(segments([1, 3])[0]?.map(({ x, y }) => [x, y])).toEqual([[0, 29], [100, 3]]);
  });
});

describe('badge', () => {
  it.each([
    [{ status: 'live' }, 'live'],
    [{ status: 'live', transport: 'sse' }, 'live'],
    [{ status: 'live', transport: 'longpoll' }, 'polling'],
    [{ status: 'live', transport: 'poll' }, 'polling'],
    [{ status: 'waiting' }, 'connecting'],
    [{ status: 'waiting', offlineSince: 1 }, 'offline'],
    [{ status: 'live', offlineSince: 1 }, 'live'],
    [{ status: 'paused' }, 'paused'],
    [{ status: 'closed' }, 'offline'],
  ] as const)('%o has the face %s', (state, face) => {
    expect(faceOf(state)).toBe(face);
  });
});
