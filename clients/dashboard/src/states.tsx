/** What is shown when there is nothing to show: each says why and what to do. */

import { CircleAlert, Inbox, KeyRound, Lock, SearchX, Settings2, WifiOff } from 'lucide-react';
import type { LucideIcon } from 'lucide-react';
import { useId, useState, type FormEvent, type ReactNode } from 'react';
import type { RoomcastError } from 'roomcast';
import { CopyButton } from './copy-button.js';
import { usePage } from './context.js';
import type { PageError } from './read.js';
import { reason } from './reason.js';
import { useStore } from './store.js';
import type { ListConfig } from './view-config.js';

/** The common shape: icon, what it is, what to do. `alone`: there is nothing else on the page. */
export function Blank({ icon: Icon, title, children, testId, tone, alone = false }: { icon: LucideIcon; title: string; children?: ReactNode; testId: string; tone?: 'red'; alone?: boolean }) {
  const Title = alone ? 'h1' : 'h2';
  return (
    <div className="blank" data-testid={testId} data-tone={tone}>
      <span className="blank-icon"><Icon size={22} aria-hidden /></span>
      <Title>{title}</Title>
      {children}
    </div>
  );
}

/** The rooms are open and nothing has happened. */
export function EmptyList({ list }: { list: ListConfig }) {
  const { config } = usePage();
  if (list.example === undefined) return <Blank icon={Inbox} title={`No ${list.noun}s yet`} testId="empty"><p>They appear here the moment they happen.</p></Blank>;
  const command = [
    '. .roomcast/dev.env',
    `curl -s "${config.ingest ?? '$ROOMCAST_INGEST'}/v1/events" \\`,
    '  -H "Authorization: Bearer $ROOMCAST_TOKEN" \\',
    "  -H 'Content-Type: application/json' \\",
    `  -d '${JSON.stringify(list.example)}'`,
  ].join('\n');
  return (
    <Blank icon={Inbox} title={`No ${list.noun}s yet. Publish one:`} testId="empty">
      <pre className="code" tabIndex={0}>{command}</pre>
      <CopyButton text={command} label="Copy command" />
    </Blank>
  );
}

/** The filter leaves nothing. */
export function NoMatch({ noun, onClear }: { noun: string; onClear: () => void }) {
  return (
    <Blank icon={SearchX} title={`No ${noun} matches`} testId="no-match">
      <button type="button" className="button" onClick={onClear}>Clear the filter</button>
    </Blank>
  );
}

/** The reader may not see this. */
export function Forbidden({ what }: { what: string }) {
  const { live } = usePage();
  const { session } = useStore(live.connection);
  const roles = session?.roles ?? [];
  return (
    <Blank icon={Lock} title={`You may not see: ${what}`} testId="forbidden">
      <p>
        {session === undefined ? 'Your sign-in does' : <>You are signed in as <b>{session.user}</b> with {roles.length === 0 ? 'no role' : <>the {roles.length === 1 ? 'role' : 'roles'} <b>{roles.join(', ')}</b></>}, which do</>}
        {session !== undefined && roles.length === 1 ? 'es' : ''} not open this room. Ask whoever manages your roles.
      </p>
    </Blank>
  );
}

/** The room will open; not now. */
export function RoomTrouble({ error }: { error: RoomcastError }) {
  return (
    <Blank icon={CircleAlert} title="Not available at the moment" testId="room-trouble">
      <p>{reason(error, 'this room')}</p>
    </Blank>
  );
}

/** Nobody is signed in, or not any more. */
export function SignIn({ expired, onToken }: { expired: boolean; onToken: (token: string) => void }) {
  return (
    <main className="stage">
      <Blank icon={KeyRound} title={expired ? 'Your sign-in has ended' : 'Sign in to Roomcast'} testId="sign-in" alone>
        <p>{expired ? 'Open a fresh address, or paste a new token.' : <>Open the address that <code>roomcast dev</code> printed, or paste a token.</>}</p>
        <TokenForm onToken={onToken} />
      </Blank>
    </main>
  );
}

/** Takes a token by hand. */
export function TokenForm({ onToken, label = 'Token' }: { onToken: (token: string) => void; label?: string }) {
  const id = useId();
  const [text, setText] = useState('');
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    // A whole address may be pasted as well.
    const token = (/token=([^&\s]+)/.exec(text)?.[1] ?? text).trim();
    if (token !== '') onToken(token);
  };
  return (
    <form className="sign-in" onSubmit={submit}>
      <label className="sr-only" htmlFor={id}>{label}</label>
      <input id={id} type="password" autoComplete="off" placeholder={label} value={text} onChange={(event) => setText(event.target.value)} />
      <button type="submit" className="button button-primary">Sign in</button>
    </form>
  );
}

const PAGE_ERRORS: Record<PageError['kind'], { icon: LucideIcon; title: string; help: ReactNode }> = {
  missing: { icon: Settings2, title: 'No page is configured here', help: <>The gateway serves one when <code>ROOMCAST_PAGE_CONFIG_FILE</code> names a file. <code>roomcast dev --scenario bookings</code> sets it by itself.</> },
  broken: { icon: CircleAlert, title: 'The page’s configuration cannot be read', help: <>Mend the file that <code>ROOMCAST_PAGE_CONFIG_FILE</code> names, then load the page again.</> },
  unreachable: { icon: WifiOff, title: 'The gateway cannot be reached', help: <>Check that it is running. This page tries again by itself.</> },
};

/** The page could not begin. */
export function PageTrouble({ error, onRetry }: { error: PageError; onRetry: () => void }) {
  const { icon, title, help } = PAGE_ERRORS[error.kind];
  return (
    <main className="stage">
      <Blank icon={icon} title={title} testId="page-error" tone="red" alone>
        <p>{error.message}</p>
        <p>{help}</p>
        <button type="button" className="button" onClick={onRetry}>Try again</button>
      </Blank>
    </main>
  );
}
