/**
 * A gateway that is not one: enough of the protocol, with seeded data, to look at the page while working on it.
 * Part of the development server only. The token chooses what it plays:
 * `#token=demo`, `busy`, `empty`, `forbidden`, `expired`, `stale`, `stalled`, `slow`, `down`.
 */

import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Plugin, PreviewServer, ViteDevServer } from 'vite';
import { WebSocketServer, type WebSocket } from 'ws';

/** The page of the bookings desk, as `roomcast dev` serves it. */
const PAGE = new URL('../../../deploy/scenarios/bookings/page.json', import.meta.url);

type Event = Record<string, unknown>;
const NAMES = [['Elif Kaya', 'TR'], ['Mehmet Demir', 'TR'], ['Anna Müller', 'DE'], ['James Wilson', 'GB'], ['Priya Sharma', 'IN'], ['Şule Öztürk', 'TR'], ['Lucas Moreau', 'FR'], ['Sofia Rossi', 'IT'], ['Emir Çelik', 'TR'], ['Olga Petrova', 'KZ']] as const;
const GOODS = [['property', 'Seaview villa, Bodrum', '7 days', 48_200], ['car', 'Compact automatic, Antalya airport', '4 days', 9_400.5], ['transfer', 'Airport to Göreme, private van', '2 hours', 2_150], ['tour', 'Balloon ride at sunrise', '1 day', 6_890], ['property', 'Old town apartment, Kaleiçi', '3 nights', 14_700], ['tour', 'Ephesus with a guide', '1 day', 3_420.75]] as const;

/** Bookings and numbers that go on by themselves. */
class Desk {
  readonly events: Event[] = [];
  readonly state = new Map<string, Event>();
  position = 0;
  #next = 1;
  #revision = 0;
  #seed = 42;
  readonly #totals = { revenue: 18_402_310.25, bookings: 2_341, customers: 1_207, confirmed: 1_894 };

  constructor(
    readonly mode: string,
    start: number,
  ) {
    if (mode === 'empty') return;
    for (let minute = 40; minute > 0; minute -= 1) this.turn(start - minute * 42_000);
    this.#numbers(start);
  }

  random(): number {
    this.#seed = (this.#seed * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return this.#seed / 4_294_967_296;
  }

  /** One booking and, a little later, what became of it. */
  turn(now: number, later?: (make: () => Event[]) => void): Event[] {
    const [customer, country] = NAMES[Math.floor(this.random() * NAMES.length)] as (typeof NAMES)[number];
    const [category, title, duration, price] = GOODS[Math.floor(this.random() * GOODS.length)] as (typeof GOODS)[number];
    const amount = Math.round(price * (0.8 + this.random() * 0.5) * 100) / 100;
    const data = { id: `bk-${String(this.#next++).padStart(6, '0')}`, customer, country, category, title, duration, amount, currency: 'TRY' };
    const confirmed = this.random() < 0.8;
    const made = [this.#event('booking:new', data, now)];
    this.#totals.bookings += 1;
    this.#totals.customers += this.random() < 0.5 ? 1 : 0;
    const finish = (at: number): Event[] => {
      if (confirmed) {
        this.#totals.confirmed += 1;
        this.#totals.revenue += amount;
      }
      return [this.#event(confirmed ? 'booking:confirmed' : 'booking:cancelled', data, at), ...this.#numbers(at)];
    };
    if (later !== undefined) later(() => finish(Date.now()));
    else finish(now + 7_000);
    return [...made, ...(later === undefined ? [] : this.#numbers(now))];
  }

  #event(type: string, data: unknown, at: number): Event {
    this.position += 1;
    const event = { specversion: '1.0', id: `e${this.position}`, source: 'desk', type, time: new Date(at).toISOString(), room: 'bookings', audience: 'staff', priority: 'medium', data };
    this.events.push(event);
    return event;
  }

  #numbers(at: number): Event[] {
    const { revenue, bookings, customers, confirmed } = this.#totals;
    const all: [string, string, string, string | null, number[]][] = [
      ['revenue', revenue.toFixed(2), '12.41', 'up', wave(24, 0.6, revenue / 24)],
      ['bookings', String(bookings), '4.07', 'up', wave(24, 0.4, bookings / 24)],
      ['customers', String(customers), '-2.31', 'down', wave(24, 0.3, customers / 24)],
      ['conversion', (confirmed / bookings).toFixed(4), '0.00', 'flat', wave(24, 0.1, 0.81)],
    ];
    return all.map(([metric, value, change, direction, sparkline]) => {
      this.#revision += 1;
      const window = { start: new Date(at - 86_400_000).toISOString(), end: new Date(at).toISOString() };
      const stalled = this.mode === 'stalled' && metric === 'customers' ? { stalled: true } : {};
      const none = this.mode === 'stalled' && metric === 'conversion' ? { value: null, no_data: true, sparkline: [] } : {};
      const data = { metric, group: {}, window, value, previous: value, change, change_percent: change, direction, sparkline: sparkline.map(String), events: 2_341, as_of: new Date(at).toISOString(), revision: this.#revision, ...stalled, ...none };
      const event = { specversion: '1.0', id: `m${this.#revision}`, source: 'aggregator', type: 'metric.updated', room: 'os_dashboard', delivery: 'state', statekey: metric, time: window.end, data };
      this.state.set(metric, event);
      return event;
    });
  }
}

function wave(points: number, swing: number, middle: number): number[] {
  return Array.from({ length: points }, (_, n) => middle * (1 + swing * Math.sin(n / 3.1) * 0.5 + swing * 0.2 * Math.sin(n * 1.7) + (n / points) * swing * 0.3));
}

/** A day of windows. */
function hours(metric: string): Event[] {
  const now = Math.floor(Date.now() / 3_600_000) * 3_600_000;
  return wave(24, 0.9, 8).map((value, n) => {
    const start = now - (23 - n) * 3_600_000;
    const window = { start: new Date(start).toISOString(), end: new Date(start + 3_600_000).toISOString() };
    return { metric, group: [], window, value: String(Math.round(value)), previous: null, change: null, change_percent: null, direction: null, sparkline: [], events: Math.round(value), as_of: window.end, revision: n };
  });
}

const desks = new Map<string, { desk: Desk; sockets: Set<WebSocket> }>();

function deskOf(token: string): { desk: Desk; sockets: Set<WebSocket> } {
  let found = desks.get(token);
  if (found === undefined) {
    const made = { desk: new Desk(token, Date.now()), sockets: new Set<WebSocket>() };
    desks.set(token, made);
    found = made;
    const say = (events: Event[]): void => {
      for (const event of events) {
        const frame = JSON.stringify({ event: { room: event['room'], cursor: `dev.${made.desk.position}.${String(event['id'])}`, event } });
        for (const socket of made.sockets) socket.send(frame);
      }
    };
    if (!['empty', 'forbidden', 'expired', 'quiet', 'stalled'].includes(token)) {
      setInterval(() => say(made.desk.turn(Date.now(), (finish) => setTimeout(() => say(finish()), token === 'busy' ? 2_500 : 6_000))), token === 'busy' ? 900 : 9_000);
    }
  }
  return found;
}

const tokenOf = (request: IncomingMessage): string => request.headers.authorization?.replace(/^Bearer /, '') ?? '';

function answer(request: IncomingMessage, response: ServerResponse, next: () => void): void {
  const url = new URL(request.url ?? '/', 'http://dev');
  const json = (status: number, body: unknown): void => {
    response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
    response.end(JSON.stringify(body));
  };
  if (url.pathname === '/page.json') return json(200, JSON.parse(readFileSync(PAGE, 'utf8')));
  const metric = /^\/v1\/metrics\/([^/]+)$/.exec(url.pathname)?.[1];
  if (metric !== undefined) return json(200, { room: url.searchParams.get('room'), cursor: 'dev.0.m', metric, windows: tokenOf(request) === 'empty' ? [] : hours(metric) });
  const room = /^\/v1\/rooms\/([^/]+)\/snapshot$/.exec(url.pathname)?.[1];
  if (room === undefined) return next();
  const token = tokenOf(request);
  if (token === 'expired') return json(401, { code: 'expired', detail: 'The token has expired', status: 401 });
  if (token === 'down') return json(503, { code: 'unavailable', detail: 'No source', status: 503 });
  if (token === 'forbidden') return json(403, { code: 'forbidden', detail: 'Not there, or not yours', status: 403 });
  const { desk } = deskOf(token);
  const body = room === 'bookings' ? { state: [], events: desk.events.slice(-Number(url.searchParams.get('events') ?? 50)) } : { state: [...desk.state.values()], events: [] };
  const send = (): void => json(200, { room, cursor: `dev.${desk.position}.s`, ...body });
  if (token === 'slow') setTimeout(send, 30_000);
  else send();
}

function upgrade(server: WebSocketServer, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  if (!request.url?.startsWith('/v1/ws')) return;
  server.handleUpgrade(request, socket, head, (client) => {
    const write = (frame: unknown): void => client.send(JSON.stringify(frame));
    const ping = setInterval(() => write({ ping: {} }), 20_000);
    client.on('close', () => clearInterval(ping));
    client.on('message', (bytes) => {
      const frame = JSON.parse(String(bytes)) as { id?: number; connect?: { token: string; rooms: { room: string }[] } };
      if (frame.connect === undefined) return;
      const { token, rooms } = frame.connect;
      if (token === 'expired') return client.close(4003, 'expired');
      if (token === 'down') return client.close(4005, 'resync');
      if (token === 'slow') return undefined;
      const { desk, sockets } = deskOf(token);
      const refused = token === 'forbidden' ? { error: { code: 'forbidden', message: 'Not there, or not yours', temporary: false } } : { recovery: 'complete' };
      write({
        id: frame.id,
        connected: {
          connection: 'c-dev', user: 'demo', roles: token === 'forbidden' ? ['user'] : ['admin'], epoch: 'dev', pingSeconds: 25, status: token === 'stale' ? 'stale' : 'ok',
          serverTime: new Date().toISOString(), expiresAt: new Date(Date.now() + 3_600_000).toISOString(), rooms: rooms.map(({ room }) => ({ room, ...refused })), limits: { resumeSeconds: 259_200 },
        },
      });
      if (token === 'forbidden') return undefined;
      for (const { room } of rooms) write({ caughtUp: { room, cursor: `dev.${desk.position}.c` } });
      if (token === 'stale') write({ status: { status: 'stale', since: new Date(Date.now() - 7_000).toISOString() } });
      sockets.add(client);
      client.on('close', () => sockets.delete(client));
      return undefined;
    });
  });
}

/** The plugin: the same gateway behind `vite` and `vite preview`. */
export function devGateway(): Plugin {
  const attach = (server: ViteDevServer | PreviewServer): void => {
    const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => (offered.has('roomcast.v1.json') ? 'roomcast.v1.json' : false) });
    server.middlewares.use(answer);
    server.httpServer?.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => upgrade(sockets, request, socket, head));
  };
  return { name: 'roomcast-dev-gateway', configureServer: attach, configurePreviewServer: attach };
}
