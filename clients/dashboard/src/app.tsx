/** The page from the first byte to the frame: configuration, sign-in, then views. */

import { useCallback, useEffect, useMemo, useState } from 'react';
import { adminToken } from './admin/admin-token.js';
import { Badge, PauseButton } from './badge.js';
import { Banner } from './banner.js';
import { PageContext, useClock, usePage } from './context.js';
import { Format } from './format.js';
import { Icon } from './icons.js';
import { useKeys } from './keyboard.js';
import { fetchParts, later } from './later.js';
import { Live } from './live.js';
import { Keys, Menu } from './menu.js';
import { BellButton } from './notices/bell.js';
import { readPage, type PageConfig } from './page.js';
import { usePhone } from './phone.js';
import { placeOf, placesOf, type Place } from './places.js';
import { loadedFrom, PastContext, RANGES, rangeOf, sinceOf, withRange, type Range } from './range.js';
import { fetchPage, PageError } from './read.js';
import { People } from './presence.js';
import { holderOf, readToken, storeToken, takeTokenFromAddress } from './session.js';
import { PageTrouble, SignIn } from './states.js';
import { useStore } from './store.js';
import { ToastStack } from './toast.js';
import { View } from './view.js';
import type { ViewConfig } from './view-config.js';

const AdminView = later(() => import('./admin/admin-view.js').then((part) => part.AdminView));
const DiagnosisView = later(() => import('./diagnosis-view.js').then((part) => part.DiagnosisView));
const EntrySheet = later(() => import('./entry-sheet.js').then((part) => part.EntrySheet));

/** How long the page waits before it asks again for its configuration, in milliseconds. */
const RETRY_MS = 3_000;

/** Loads the configuration, then shows the page or why there is none. */
export function App() {
  const [config, setConfig] = useState<PageConfig>();
  const [error, setError] = useState<PageError>();
  const load = useCallback(() => {
    fetchPage().then(readPage).then(
      (page) => {
        setError(undefined);
        setConfig(page);
      },
      (thrown: unknown) => setError(thrown instanceof PageError ? thrown : new PageError('broken', String(thrown))),
    );
  }, []);
  useEffect(load, [load]);
  useEffect(() => {
    if (error?.kind !== 'unreachable') return undefined;
    const timer = setTimeout(load, RETRY_MS);
    return () => clearTimeout(timer);
  }, [error, load]);
  if (error !== undefined) return <PageTrouble error={error} onRetry={load} />;
  return config === undefined ? <FrameSkeleton /> : <SignedIn config={config} />;
}

/** Keeps the connection as long as the same reader is signed in: nothing of one is shown to the next. */
function SignedIn({ config }: { config: PageConfig }) {
  const [token, setToken] = useState(readToken);
  const [live, setLive] = useState<Live>();
  const format = useMemo(() => new Format(config), [config]);
  const holder = holderOf(token);
  useEffect(() => {
    if (holder === undefined) return undefined;
    const made = new Live(config, format, holder);
    setLive(made);
    return () => {
      made.close();
      setLive(undefined);
      adminToken.update(() => undefined);
    };
  }, [config, format, holder]);
  const signIn = useCallback(
    (next: string) => {
      storeToken(next);
      setToken(next);
      if (live !== undefined && live.holder === holderOf(next)) live.client.connect();
    },
    [live],
  );
  useEffect(() => {
    // A fresh address may be opened in a tab that is already there.
    const changed = (): void => {
      if (takeTokenFromAddress()) signIn(readToken() ?? '');
    };
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, [signIn]);
  const signOut = useCallback(() => {
    storeToken(null);
    setToken(null);
  }, []);
  if (holder === undefined) return <SignIn expired={false} onToken={signIn} />;
  if (live?.holder !== holder) return <FrameSkeleton />;
  return (
    <PageContext value={{ config, live, format }}>
      <Frame key={holder} onSignIn={signIn} onSignOut={signOut} />
    </PageContext>
  );
}

function Frame({ onSignIn, onSignOut }: { onSignIn: (token: string) => void; onSignOut: () => void }) {
  const { config, live, format } = usePage();
  const places = useMemo(() => placesOf(config), [config]);
  const [place, setPlace] = useState<Place>(() => placeOf(places, location.hash));
  const [range, setRange] = useState<Range>(() => rangeOf(location.hash));
  const since = useClock((now) => sinceOf(range, now));
  const past = useMemo(() => ({ since, from: loadedFrom(range, since) }), [range, since]);
  const [keysOpen, setKeysOpen] = useState(false);
  const isPhone = usePhone();
  const connection = useStore(live.connection);
  useEffect(() => {
    const changed = (): void => {
      setPlace(placeOf(places, location.hash));
      setRange(rangeOf(location.hash));
    };
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, [places]);
  const go = useCallback((to: string) => {
    // The range goes along: whoever compares two views looks at the same time in both.
    location.hash = withRange(`#/${to}`, rangeOf(location.hash));
  }, []);
  const showKeys = useCallback(() => setKeysOpen(true), []);
  useKeys(places, go, showKeys);
  useEffect(() => {
    document.title = `${place.label} · ${config.title}`;
    scrollTo(0, 0);
  }, [place, config]);
  const isLive = connection.status === 'live';
  useEffect(() => {
    if (isLive) live.visit(place.label);
  }, [live, place, isLive]);
  useEffect(() => {
    if (isLive) fetchParts();
  }, [isLive]);
  // With something on the screen the reader keeps it; the banner asks for a new sign-in.
  if (live.lastEventAt.now === undefined && connection.status === 'closed' && connection.error?.isAuth === true) return <SignIn expired onToken={onSignIn} />;
  const view = config.views.find(({ id }) => id === place.id);
  // A phone's bar has no room for these.
  const zone = format.foreignZone !== undefined && <p className="zone muted" data-testid="zone">Times in {format.foreignZone}</p>;
  const picker = view !== undefined && looksBack(view) && <RangePicker range={range} />;
  return (
    <div className="frame" data-view={place.id}>
      <a className="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the numbers</a>
      <nav className="rail" aria-label="Views">
        <div className="brand"><Mark /> <span>{config.title}</span></div>
        {places.map(({ id, label, icon }) => (
          <a key={id} href={`#${withRange(id, range)}`} className="rail-link" aria-current={place.id === id ? 'page' : undefined} title={label} data-rail={id}>
            <Icon name={icon} /> <span>{label}</span>
          </a>
        ))}
      </nav>
      <div className="body">
        <header className="bar">
          <h1>{place.label}</h1>
          {!isPhone && zone}
          <div className="bar-tools">
            {!isPhone && picker}
            <People />
            <Badge />
            <PauseButton />
            <BellButton />
            <Menu onSignOut={onSignOut} onKeys={showKeys} />
          </div>
        </header>
        <Banner onToken={onSignIn} />
        <main id="main" className="content" tabIndex={-1}>
          {isPhone && zone}
          <PastContext value={past}>
          {view !== undefined ? <View key={view.id} view={view} tools={isPhone && picker} /> : place.id === 'admin' ? <AdminView /> : <DiagnosisView />}
          </PastContext>
        </main>
      </div>
      <ToastStack />
      <Opened />
      <Keys places={places} open={keysOpen} onClose={() => setKeysOpen(false)} />
    </div>
  );
}

/** Whether a view has something that a time range applies to. */
function looksBack(view: ViewConfig): boolean {
  return view.charts.length > 0 || view.lists.some(({ key }) => key === undefined);
}

/** How far back charts and feeds look. */
function RangePicker({ range }: { range: Range }) {
  return (
    <label className="select range">
      <span className="sr-only">Time range</span>
      <select value={range} data-testid="range" onChange={(event) => (location.hash = withRange(location.hash, event.target.value as Range))}>
        {RANGES.map(([name, label]) => <option key={name} value={name}>{label}</option>)}
      </select>
    </label>
  );
}

/** The entry that somebody chose. */
function Opened() {
  const { config, live } = usePage();
  const opened = useStore(live.opened);
  const list = useMemo(() => config.views.flatMap((view) => view.lists).find(({ id }) => id === opened?.list), [config, opened]);
  return opened === undefined || list === undefined ? null : <EntrySheet key={`${list.id} ${opened.id}`} list={list} id={opened.id} />;
}

function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden>
      <rect width="32" height="32" rx="8" />
      <path d="M9.5 22.5a9.2 9.2 0 0 1 0-13M22.5 22.5a9.2 9.2 0 0 0 0-13" />
      <circle cx="16" cy="16" r="3.4" />
    </svg>
  );
}

/** The frame's outline while the configuration is on its way: a few milliseconds. */
function FrameSkeleton() {
  return (
    <div className="frame" aria-busy>
      <div className="rail"><div className="brand"><Mark /> <span>Roomcast</span></div></div>
      <div className="body"><div className="bar" /></div>
    </div>
  );
}
