/**
 * The token of this tab. It arrives in the fragment, which browsers send to nobody, moves to `sessionStorage`, and the
 * address is cleaned before anything else runs. Where storage is blocked it lives in memory.
 */

const KEY = 'roomcast.token';
let inMemory: string | null = null;

/** Takes a token out of the address; true when there was one. */
export function takeTokenFromAddress(): boolean {
  const found = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (found?.[1] === undefined) return false;
  storeToken(decode(found[1]));
  history.replaceState(null, '', location.pathname + location.search);
  return true;
}

/** The token, or null when nobody is signed in. */
export function readToken(): string | null {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

/** Signs in with a token, or out with null. */
export function storeToken(token: string | null): void {
  inMemory = token;
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Storage is blocked: the sign-in lasts as long as the page.
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** What a token says of its holder: for display and for names of rooms, never for a decision. Empty where it cannot be read. */
export function readClaims(token: string | null): Record<string, unknown> {
  try {
    const part = token?.split('.')[1] ?? '';
    const bytes = Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (letter) => letter.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === 'object' && claims !== null && !Array.isArray(claims) ? (claims as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Claims of the token and of its sign-in, not of who reads, by what issuers call them: a newer token of the same reader differs in them alone. */
const PASSING: ReadonlySet<string> = new Set(
  'exp iat nbf jti auth_time nonce at_hash c_hash s_hash sid session_state uti aio rh origin_jti event_id'.split(' '),
);

/** Whose token it is, with which rights: the same text for every token of one reader, for comparing. Undefined when nobody is signed in. */
export function holderOf(token: string | null): string | undefined {
  if (token === null) return undefined;
  const claims = Object.entries(readClaims(token)).filter(([name]) => !PASSING.has(name));
  return claims.length === 0 ? token : JSON.stringify(claims.sort(([a], [b]) => (a < b ? -1 : 1)));
}
