/** The token: asked for when needed, kept, renewed when it ended. One request at a time. */

import { asError, RoomcastError } from './error.js';
import { isObject, type Json } from './frame.js';

/** Why a token is asked for. After `expired` and `expiring` the same one again is of no use. */
export type TokenReason = 'connect' | 'expiring' | 'expired';

/** A token, or a callback that brings one. Null or undefined = nobody is signed in. */
export type TokenSource = string | ((reason: TokenReason) => string | null | undefined | Promise<string | null | undefined>);

/** Keeps the token of one client. */
export class Credentials {
  readonly #source: TokenSource | undefined;
  #token: string | undefined;
  #pending: Promise<string | undefined> | undefined;

  constructor(source: TokenSource | undefined) {
    this.#source = source;
  }

  /**
   * The present token; undefined when the client was made without any (the upgrade is authenticated otherwise).
   *
   * Throws `RoomcastError`: `no_token` and `expired` are final until somebody signs in, `network` may work later.
   */
  async get(): Promise<string | undefined> {
    return this.#token ?? this.ask('connect');
  }

  /** A token other than `used`: the present one if somebody renewed it meanwhile, else a new one. Throws as {@link get}. */
  async renew(reason: 'expiring' | 'expired', used: string | undefined): Promise<string | undefined> {
    if (this.#token !== used) return this.#token;
    const token = await this.ask(reason);
    if (reason === 'expired' && token !== undefined && token === used) {
      throw new RoomcastError('expired', 'The token has expired.');
    }
    return token;
  }

  /** What the application brings now, whatever there is. Throws as {@link get}. */
  async ask(reason: TokenReason): Promise<string | undefined> {
    if (this.#source === undefined) return undefined;
    this.#pending ??= this.#call(this.#source, reason).finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  async #call(source: TokenSource, reason: TokenReason): Promise<string> {
    let token: string | null | undefined;
    try {
      token = typeof source === 'string' ? source : await source(reason);
    } catch (error) {
      // An error of ours says itself whether it may pass: that of another tab, which has no newer token.
      throw asError(error);
    }
    if (!token) throw new RoomcastError('no_token', 'Nobody is signed in.');
    this.#token = token;
    return token;
  }
}

/** What a token says of itself, unchecked: for names and clocks of our own, never for rights. Empty where it cannot be read. */
export function claimsOf(token: string | undefined): Json {
  try {
    const bytes = atob((token?.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/'));
    const claims: unknown = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (letter) => letter.charCodeAt(0))));
    return isObject(claims) ? claims : {};
  } catch {
    return {};
  }
}
