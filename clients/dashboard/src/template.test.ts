import { describe, expect, it } from 'vitest';
import { Format } from './format.js';
import { expand, roomsOf } from './rooms.js';
import { readPage } from './page.js';
import { holderOf, readClaims } from './session.js';
import { at, fill, fillData, fillPlain } from './template.js';

const format = new Format({ timezone: 'Europe/Istanbul', currency: 'TRY' }, 'en-GB');
const source = { type: 't', data: { customer: 'Ada', amount: '1200.5', currency: 'EUR', country: 'TR', rate: 63.5, none: null, row: { id: 7 }, status: 'on_the_road', sum: '12,50', dish: '· Soup · · Bread ·' } };

describe('a template', () => {
  it.each([
    ['{data.customer}', 'Ada'],
    ['{data.amount|money}', '€1,200.50'],
    ['{data.country|country}', 'Türkiye'],
    ['{data.rate|percent}', '63.5%'],
    ['{data.status|words}', 'on the road'],
    ['{data.row.id|number}', '7'],
    ['{data.guest} · {data.customer}', 'Ada'],
    ['{data.customer} · {data.guest}', 'Ada'],
    ['{data.customer} · {data.guest} · {type}', 'Ada · t'],
    ['{data.guest} guests', ''],
    ['{data.guest} guests · {type}', 't'],
    ['{data.guest} · {type} {data.guest}', 't'],
    ['New · {data.customer}', 'New · Ada'],
    ['New · {data.guest}', ''],
    ['{data.dish} · {data.guest} · {data.customer}', '· Soup · · Bread · · Ada'],
    ['{data.sum|money}', '12,50'],
    ['{data.customer|number} {data.customer|percent}', 'Ada Ada'],
    ['{data.none}{data.row}{data.row.id.x}', ''],
    ['{data.toString}{constructor}', ''],
    ['no place', 'no place'],
    ['{not a place}', '{not a place}'],
  ])('%s reads %o', (template, expected) => {
    expect(fill(template, source, format)).toBe(expected);
  });

  it('takes as long as it is long, whatever somebody wrote', () => {
    const dots = `Soup${' ·'.repeat(50_000)} 12`;
    expect(fill('{data.dish} · {data.guest}', { data: { dish: dots } }, format)).toBe(dots);
  });

  it('keeps kinds where data is made', () => {
    expect(fillData({ id: '{data.row.id}', text: 'x {data.row.id}', list: ['{data.none}', 3] }, source)).toEqual({ id: 7, text: 'x 7', list: [null, 3] });
    expect(fillPlain('{data.status}', source)).toBe('on_the_road');
    expect(at(source, 'data.row.id')).toBe(7);
  });
});

describe('rooms', () => {
  it.each([
    ['bookings', {}, ['bookings']],
    ['property.{property_ids}', { property_ids: ['4', 7] }, ['property.4', 'property.7']],
    ['property.{property_ids}', {}, []],
    ['property.{property_ids}', { property_ids: { a: 1 } }, []],
    ['user.{user}', { sub: 'ada' }, ['user.ada']],
  ])('%s with %o are %o', (name, claims, expected) => {
    expect(expand(name, claims)).toEqual(expected);
  });

  it('are those of every view, with the past that lists want', () => {
    const list = { id: 'l', title: 'L', rooms: ['b'] };
    const card = { metric: 'm', label: 'M', room: 'money' };
    const page = readPage({ title: 'P', timezone: 'UTC', metrics: 'm', notifications: 'n', views: [{ id: 'v', label: 'V', cards: [card], lists: [list] }] });
    expect([...roomsOf(page, {})]).toEqual([['m', 1], ['n', 1], ['money', 1], ['b', 200]]);
  });

  it.each([[null, {}], ['x', {}], ['a.b.c', {}], [`a.${btoa('{"sub":"ada"}')}.c`, { sub: 'ada' }], [`a.${btoa('[1]')}.c`, {}]])('a token %o says %o', (token, expected) => {
    expect(readClaims(token)).toEqual(expected);
  });

  const token = (claims: unknown): string => `a.${btoa(JSON.stringify(claims))}.c`;
  it.each([
    ['a newer token of the same reader', token({ sub: 'ada', roles: ['a'], exp: 1, iat: 1, nbf: 1, jti: 'x' }), token({ exp: 2, roles: ['a'], sub: 'ada' }), true],
    ['a newer one of an issuer that says more of it', token({ sub: 'ada', uti: '1', aio: '1', rh: '1', sid: '1', session_state: '1', auth_time: 1, nonce: '1', at_hash: '1', c_hash: '1' }), token({ sub: 'ada', uti: '2', aio: '2', rh: '2', session_state: '2', auth_time: 2, at_hash: '2' }), true],
    ['somebody else', token({ sub: 'ada' }), token({ sub: 'bob' }), false],
    ['other roles', token({ sub: 'ada', roles: ['a'] }), token({ sub: 'ada', roles: ['a', 'b'] }), false],
    ['other claims', token({ sub: 'ada', property_ids: ['4'] }), token({ sub: 'ada', property_ids: ['7'] }), false],
    ['another text that cannot be read', 'x', 'y', false],
    ['nobody', token({ sub: 'ada' }), null, false],
  ])('are of one holder, or not: %s', (_, one, other, isSame) => {
    expect(holderOf(one) === holderOf(other)).toBe(isSame);
  });
});
