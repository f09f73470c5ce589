/** What the page asks the gateway over HTTP beside the client: series, notifications, commands. Errors are the client's own. */

import { RoomcastError } from 'roomcast';
import { readToken } from './session.js';

/** Longest wait for an answer, in milliseconds. A command's own time-out is shorter. */
const TIMEOUT_MS = 15_000;

type Json = Record<string, unknown>;

/** Reads JSON. Throws `RoomcastError`. */
export function getJson(path: string, signal?: AbortSignal): Promise<Json> {
  return ask('GET', path, undefined, signal);
}

/** Sends JSON and reads the answer. Throws `RoomcastError`. */
export function postJson(path: string, body: unknown, signal?: AbortSignal): Promise<Json> {
  return ask('POST', path, body, signal);
}

async function ask(method: string, path: string, body: unknown, signal: AbortSignal | undefined): Promise<Json> {
  const token = readToken();
  const headers: Record<string, string> = {};
  if (token !== null) headers['authorization'] = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      cache: 'no-store',
      credentials: 'omit',
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    throw new RoomcastError('network', `The gateway could not be reached: ${String(error)}`, { temporary: true });
  }
  const answer: unknown = await response.json().catch(() => undefined);
  if (!response.ok) throw problem(response.status, answer);
  if (!isJson(answer)) throw new RoomcastError('network', 'The answer was not JSON.', { temporary: true, status: response.status });
  return answer;
}

/** An RFC 9457 problem as an error; a proxy's page without a code is judged by its status. */
export function problem(status: number, body: unknown): RoomcastError {
  const facts = isJson(body) ? body : {};
  const code = typeof facts['code'] === 'string' ? facts['code'] : status >= 500 ? 'unavailable' : 'unknown';
  const said = facts['detail'] ?? facts['message'] ?? facts['title'];
  return new RoomcastError(code, typeof said === 'string' ? said : `The answer was ${status}.`, { status, temporary: status >= 500 || status === 429 });
}

/** Whether a value is a JSON object. */
export function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
