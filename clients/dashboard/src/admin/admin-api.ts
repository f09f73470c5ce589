/**
 * The admin ports, asked with a token that lives in memory alone. What several gateways know is put together; one that does
 * not answer is named and does not hide the others.
 */

import { RoomcastError } from 'roomcast';
import { isJson } from '../json.js';
import type { AdminPorts } from '../page.js';

/** Longest wait for an answer, in milliseconds: a port answers within 20 s or says that it cannot. */
const TIMEOUT_MS = 21_000;

type Json = Record<string, unknown>;
/** A kind of service. */
export type Kind = keyof AdminPorts;

/** An answer of one port, or why there is none. */
export type Answered = { readonly port: string; readonly body: Json; readonly error?: undefined } | { readonly port: string; readonly body?: undefined; readonly error: RoomcastError };

/** One operator's way to the admin ports. */
export class AdminApi {
  readonly #token: string;

  constructor(
    readonly ports: AdminPorts,
    token: string,
  ) {
    this.#token = token;
  }

  /** Asks every port of a kind. Never throws. */
  all(kind: Kind, path: string, init: { method?: string; body?: unknown } = {}): Promise<Answered[]> {
    return Promise.all(
      this.ports[kind].map(async (port): Promise<Answered> => {
        try {
          return { port, body: await this.#ask(port, path, init) };
        } catch (error) {
          return { port, error: error instanceof RoomcastError ? error : new RoomcastError('internal', String(error)) };
        }
      }),
    );
  }

  /** Asks one port of a kind: any of them knows. Throws `RoomcastError`. */
  async one(kind: Kind, path: string, init: { method?: string; body?: unknown } = {}): Promise<Json> {
    let last = new RoomcastError('unavailable', `No admin port of this kind is configured (${kind}).`);
    for (const port of this.ports[kind]) {
      try {
        return await this.#ask(port, path, init);
      } catch (error) {
        last = error instanceof RoomcastError ? error : new RoomcastError('internal', String(error));
        // Only a port that is not there lets another try: whatever answered has decided.
        if (last.code !== 'network') throw last;
      }
    }
    throw last;
  }

  /** Asks one port. Throws `RoomcastError`. */
  async #ask(port: string, path: string, init: { method?: string; body?: unknown }): Promise<Json> {
    let response: Response;
    try {
      response = await fetch(`${port}/admin/v1${path}`, {
        method: init.method ?? 'GET',
        headers: { authorization: `Bearer ${this.#token}`, ...(init.body === undefined ? {} : { 'content-type': 'application/json' }) },
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(TIMEOUT_MS),
        ...(init.body === undefined ? {} : { body: JSON.stringify(init.body) }),
      });
    } catch {
      throw new RoomcastError('network', `${port} does not answer this page. It is not there, or ROOMCAST_ADMIN_ORIGINS does not name ${location.origin}.`, { temporary: true });
    }
    if (response.status === 204) return {};
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw problem(response.status, body);
    return isJson(body) ? body : {};
  }
}

/** An RFC 9457 problem as an error; a proxy's page without a code is judged by its status. */
function problem(status: number, body: unknown): RoomcastError {
  const facts = isJson(body) ? body : {};
  const code = typeof facts['code'] === 'string' ? facts['code'] : status >= 500 ? 'unavailable' : 'unknown';
  const said = facts['detail'] ?? facts['message'] ?? facts['title'];
  return new RoomcastError(code, typeof said === 'string' ? said : `The answer was ${status}.`, { status, temporary: status >= 500 || status === 429 });
}

/** The entries of a list in an answer. */
export function listOf(body: Json | undefined, name: string): Json[] {
  const list = body?.[name];
  return Array.isArray(list) ? list.filter(isJson) : [];
}
