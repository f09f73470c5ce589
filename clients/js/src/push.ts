/**
 * Web pushes: this browser as a device of its user. An entry point of its own, `roomcast/push`, because a page needs it once. The
 * service worker is the application's: it shows what comes.
 */

import { Credentials, type TokenSource } from './credentials.js';
import { asError, passing, RoomcastError } from './error.js';
import { isObject, type Json } from './frame.js';
import { HTTP_TIMEOUT_MS, problem } from './http.js';

/** What both directions need. */
export interface PushOptions {
  /** The gateway, `https://live.example.com`. Default: where the page came from. */
  url?: string;
  /** A token or a callback that brings one: the device is its user's. */
  token: TokenSource;
  /** The application's service worker: `navigator.serviceWorker.register('/sw.js')`. Default: the one of this page, once it is there. */
  worker?: ServiceWorkerRegistration | PromiseLike<ServiceWorkerRegistration>;
  /** Default: the global `fetch`. */
  fetch?: typeof fetch;
}

/** How to become a device. */
export interface EnablePushOptions extends PushOptions {
  /** What the user calls this device, ≤ 64 bytes. */
  name?: string;
  /** False: only where the user has allowed it before, so that a page can register at each load without asking. Default true. */
  ask?: boolean;
}

/** This browser as the gateway knows it. */
export interface PushDevice {
  /** Its name at `/v1/devices`. */
  readonly device: string;
  /** Until when it is pushed to unless it is registered again, milliseconds since the Unix epoch. */
  readonly until: number;
}

/**
 * Makes this browser a device of the user, or says again that it is one: the roles of the newest token count, and for as long as the
 * operator says, so call it at each load with `ask: false`. The first time call it from a click: browsers ask the user then, and only then.
 * Answers undefined where nobody was asked because of `ask: false`.
 *
 * Throws `RoomcastError`: `unsupported` where the browser has no pushes, `denied` where the user does not want them, otherwise what the
 * gateway says (`not_found`: the operator has not set them up) or the browser.
 */
export async function enablePush(options: EnablePushOptions): Promise<PushDevice | undefined> {
  const { Notification: asked } = globalThis;
  if (asked === undefined || !('PushManager' in globalThis)) throw unsupported();
  // Before anything is waited for: a click counts for moments.
  const permission = asked.permission === 'default' && options.ask !== false ? await asked.requestPermission() : asked.permission;
  if (permission === 'denied') throw new RoomcastError('denied', 'The user does not want pushes.');
  if (permission !== 'granted') return undefined;
  const gateway = new Gateway(options);
  const { publicKey } = await gateway.ask('GET', '');
  if (typeof publicKey !== 'string') throw passing('unavailable', 'The gateway names no key for pushes.');
  const { pushManager } = await workerOf(options);
  const subscription = await subscribed(pushManager, publicKey);
  const kept = await gateway.ask('POST', '', { subscription: subscription.toJSON(), name: options.name });
  return { device: String(kept['device']), until: Number(kept['until']) * 1_000 };
}

/**
 * This browser is no device any more: call it before the user's token is forgotten. It ends here and at the gateway, and either suffices:
 * the push service refuses what this browser does not take, and the gateway forgets the device then. Does nothing where it is none.
 *
 * Throws `RoomcastError` where neither worked, and `unsupported` where there are no pushes.
 */
export async function disablePush(options: PushOptions): Promise<void> {
  const subscription = await (await workerOf(options)).pushManager.getSubscription();
  if (subscription === null) return;
  const removed = deviceOf(subscription.endpoint).then((device) => new Gateway(options).ask('DELETE', `/${device}`));
  const [ended, forgotten] = await Promise.allSettled([subscription.unsubscribe(), removed]);
  if (forgotten.status === 'rejected' && !(ended.status === 'fulfilled' && ended.value)) throw asError(forgotten.reason);
}

/** The subscription of this browser under this key. One under another key is of no use to the gateway, and browsers keep only one. */
async function subscribed(manager: PushManager, publicKey: string): Promise<PushSubscription> {
  const key = bytesOf(publicKey);
  const present = await manager.getSubscription();
  if (present !== null && !sameBytes(present.options.applicationServerKey, key)) await present.unsubscribe();
  try {
    return await manager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  } catch (error) {
    // The browser's own push service is away, or switched off.
    throw passing('network', String(error));
  }
}

async function workerOf(options: PushOptions): Promise<ServiceWorkerRegistration> {
  const worker = await (options.worker ?? globalThis.navigator?.serviceWorker?.ready);
  if (worker?.pushManager === undefined) throw unsupported();
  return worker;
}

function unsupported(): RoomcastError {
  return new RoomcastError('unsupported', 'This browser has no pushes.');
}

/** `/v1/devices` of one gateway. */
class Gateway {
  readonly #options: PushOptions;
  readonly #credentials: Credentials;

  constructor(options: PushOptions) {
    this.#options = options;
    this.#credentials = new Credentials(options.token);
  }

  async ask(method: string, path: string, body?: Json): Promise<Json> {
    let token = await this.#credentials.get();
    let response = await this.#send(method, path, token, body);
    if (response.status === 401) {
      token = await this.#credentials.renew('expired', token);
      response = await this.#send(method, path, token, body);
    }
    const answer: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw problem(response.status, answer);
    if (!isObject(answer)) throw passing('network', 'The answer was not JSON.', { status: response.status });
    return answer;
  }

  async #send(method: string, path: string, token: string | undefined, body: Json | undefined): Promise<Response> {
    const headers: Record<string, string> = { authorization: `Bearer ${token}` };
    const init: RequestInit = { method, headers, cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(HTTP_TIMEOUT_MS) };
    if (body !== undefined) {
      headers['content-type'] = 'application/json';
      init.body = JSON.stringify(body);
    }
    const base = (this.#options.url ?? globalThis.location?.origin ?? '').replace(/\/+$/, '');
    try {
      return await (this.#options.fetch ?? globalThis.fetch)(`${base}/v1/devices${path}`, init);
    } catch (error) {
      throw passing('network', String(error));
    }
  }
}

/** A device is called by the first half of its endpoint's SHA-256, base64url. */
async function deviceOf(endpoint: string): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(endpoint)));
  return btoa(String.fromCharCode(...sum.subarray(0, 16))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

function bytesOf(base64url: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64url.replaceAll('-', '+').replaceAll('_', '/'));
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

function sameBytes(present: ArrayBuffer | null, wanted: Uint8Array): boolean {
  const bytes = new Uint8Array(present ?? new ArrayBuffer(0));
  return bytes.length === wanted.length && bytes.every((byte, at) => byte === wanted[at]);
}
