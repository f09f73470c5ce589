import { RoomcastError, type ConnectionState } from 'roomcast';
import { describe, expect, it } from 'vitest';
import { asText, findings, roomFacts, type Known } from './diagnosis.js';
import { Format } from './format.js';

const format = new Format({ timezone: 'UTC', currency: 'TRY' }, 'en-GB');
const NOW = Date.UTC(2026, 0, 1, 12);
const SESSION = { connection: 'c1', user: 'ada', roles: ['staff'], epoch: 'e', pingSeconds: 25, resumeSeconds: 259_200, expiresAt: '2026-01-01T20:00:00Z' };
const COUNTERS = { frames: 9, delivered: 5, duplicates: 0, expired: 0, unheard: 0, thinned: 0, unknown: 0, malformed: 0, listenerErrors: 0, connects: 1, losses: 0 };
const room = (error?: RoomcastError): Known['rooms'][number] => roomFacts({ room: 'bookings', cursor: 'k.1', joined: true, caughtUp: true, keys: 0 }, { loaded: true, error, heard: 3, lastAt: NOW - 5_000 });
const known = (more: Partial<Known> & { connection?: Partial<ConnectionState> } = {}): Known => {
  const { connection, ...rest } = more;
  return { state: { status: 'live', attempt: 0, session: SESSION, ...connection } as ConnectionState, counters: COUNTERS, rooms: [room()], lastEventAt: NOW - 5_000, skewMs: 0, now: NOW, transport: 'WebSocket', claims: { sub: 'ada' }, zone: 'UTC', ...rest };
};

describe('why nothing arrives', () => {
  it.each([
    ['all is well', known(), 'green', /Everything works/],
    ['paused', known({ connection: { status: 'paused' } }), 'amber', /paused/],
    ['no network', known({ connection: { status: 'waiting', offlineSince: NOW - 60_000 } }), 'red', /no network since 11:59:00/],
    ['no gateway', known({ connection: { status: 'waiting', attempt: 6, error: new RoomcastError('network', 'refused') } }), 'red', /cannot be reached \(6 attempts\): refused/],
    ['signed out', known({ connection: { status: 'closed', error: new RoomcastError('revoked', 'revoked') } }), 'red', /has ended: revoked/],
    ['a stale source', known({ connection: { stale: {} } as Partial<ConnectionState> }), 'amber', /may be old/],
    ['no right', known({ rooms: [room(new RoomcastError('forbidden', 'Not yours'))] }), 'amber', /refused: bookings/],
    ['a slow clock', known({ skewMs: 3_600_000 }), 'amber', /60 min slow/],
    ['a fast clock', known({ skewMs: -9_000_000 }), 'amber', /2 h 30 min fast/],
    ['a token that ends', known({ connection: { session: { ...SESSION, expiresAt: '2026-01-01T12:01:00Z' } } }), 'amber', /ends at 12:01:00/],
    ['messages unread', known({ counters: { ...COUNTERS, malformed: 2 } }), 'amber', /2 messages could not be read/],
    ['silence', known({ lastEventAt: NOW - 600_000 }), 'amber', /Nothing has come since 11:50:00/],
    ['nothing ever', known({ lastEventAt: undefined }), 'amber', /nothing has come yet/],
  ] as const)('%s', (_, facts, tone, text) => {
    const [first] = findings(facts, format);
    expect([first?.tone, first?.text]).toEqual([tone, expect.stringMatching(text)]);
    expect(first?.help).not.toBe('');
  });

  it('says the worst first', () => {
    const all = findings(known({ skewMs: 3_600_000, connection: { status: 'closed' } }), format);
    expect(all.map(({ tone }) => tone)).toEqual(['red', 'amber']);
  });

  it('is a text without secrets', () => {
    const text = asText(known({ claims: { sub: 'ada', jti: 'secret-token-id', email: 'ada@example.com' } }), format, 'a browser');
    expect(text).toContain('bookings: up to date, cursor k.1');
    expect(text).not.toMatch(/secret|@example/);
  });
});
