import { describe, expect, it } from 'vitest';
import { readPage } from './page.js';
import { families, readable, wordOfRoom, wordOfType } from './words.js';

const page = readPage({
  title: 'B',
  timezone: 'Europe/Istanbul',
  currency: 'TRY',
  metrics: 'm',
  rooms: { 'property.*': 'Property *', notifications: 'From the house' },
  events: { 'booking:new': { title: 'x', label: 'New bookings' }, orderCreated: { title: 'x' } },
  views: [{ id: 'desk', label: 'Desk', lists: [{ id: 'l', title: 'Latest', rooms: ['bookings'] }, { id: 'a', title: 'A', rooms: ['admin'] }, { id: 'b', title: 'B', rooms: ['admin'] }] }],
});

describe('words', () => {
  it.each([['booking:new', 'Booking new'], ['orderCreated', 'Order created'], ['user.activity', 'User activity'], ['alert_update', 'Alert update'], ['SOS', 'SOS'], ['ödeme-alındı', 'Ödeme alındı'], ['', '']])('%s reads %s', (name, word) => {
    expect(readable(name)).toBe(word);
  });

  it.each([['booking:new', 'New bookings'], ['orderCreated', 'Order created'], ['never:seen', 'Never seen']])('the type %s is %s', (type, word) => {
    expect(wordOfType(page, type)).toBe(word);
  });

  it.each([['notifications', 'From the house'], ['property.4', 'Property 4'], ['property.a.b', 'Property a.b'], ['bookings', 'Latest'], ['admin', 'Admin'], ['user.u1', 'User u1']])('the room %s is %s', (room, word) => {
    expect(wordOfRoom(page, room)).toBe(word);
  });

  it('many rooms of a kind are one family, few stand alone', () => {
    expect(families(['a', 'p.1', 'q.1', 'p.2', 'p.3'], 3)).toEqual([
      { name: undefined, rooms: ['a'] },
      { name: 'p', rooms: ['p.1', 'p.2', 'p.3'] },
      { name: undefined, rooms: ['q.1'] },
    ]);
    expect(families([], 1)).toEqual([]);
  });
});
