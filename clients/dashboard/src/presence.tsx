/** Who else is here: up to five initials in the bar, and how many more. */

import { useState } from 'react';
import type { PresenceView, Store } from 'roomcast';
import { RelativeTime, usePage } from './context.js';
import { useStore } from './store.js';

/** People shown by their initials; the rest is "+n". */
const SHOWN_MAX = 5;

/** The people; nothing where the page has no room for them, or the reader may not see them. */
export function People() {
  const { live } = usePage();
  return live.people === undefined ? null : <Here people={live.people} />;
}

function Here({ people }: { people: Store<PresenceView> }) {
  const { users, total } = useStore(people);
  const [open, setOpen] = useState(false);
  if (users.length === 0) return null;
  const more = total - Math.min(users.length, SHOWN_MAX);
  return (
    <div className="people" data-testid="people" data-total={total} onPointerLeave={() => setOpen(false)}>
      <button type="button" className="people-button" aria-expanded={open} onClick={() => setOpen(!open)} onBlur={() => setOpen(false)} onKeyDown={(event) => event.key === 'Escape' && setOpen(false)}>
        <span className="sr-only">{total} {total === 1 ? 'person' : 'people'} here</span>
        {users.slice(0, SHOWN_MAX).map(({ user, status }) => (
          <span key={user} className="avatar" data-status={status} data-hue={hueOf(user)} aria-hidden>{initials(user)}</span>
        ))}
        {more > 0 && <span className="avatar avatar-more" aria-hidden>+{more}</span>}
      </button>
      {open && (
        <div className="menu-panel people-panel" role="tooltip">
          {users.map(({ user, status, since, connections }) => (
            <p key={user}>
              <span className="avatar" data-hue={hueOf(user)} aria-hidden>{initials(user)}</span>
              <span>{user} <span className="muted">{status === 'active' ? (connections > 1 ? `${connections} tabs` : 'active') : status}, since <RelativeTime at={Date.parse(since)} /></span></span>
            </p>
          ))}
        </div>
      )}
    </div>
  );
}

/** Two letters of a name. */
export function initials(user: string): string {
  const parts = user.split(/[^\p{L}\p{N}]+/u).filter((part) => part !== '');
  const letters = parts.length > 1 ? `${parts[0]?.[0] ?? ''}${parts.at(-1)?.[0] ?? ''}` : (parts[0] ?? '?').slice(0, 2);
  return letters.toLocaleUpperCase();
}

/** One of six colours, always the same for a name. */
function hueOf(user: string): number {
  let sum = 0;
  for (const letter of user) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 6;
  return sum;
}
