/** How the page is connected, in one word that is always true, and the buttons that belong to it. */

import { Pause, Play, Plug, RotateCw, Unplug } from 'lucide-react';
import { useEffect, useState } from 'react';
import type { ConnectionState, Transport } from 'roomcast';
import { usePage } from './context.js';
import { useStore } from './store.js';

/** The faces. Polling is a way of its own of being connected: numbers move, but later. */
export type Face = 'live' | 'polling' | 'connecting' | 'paused' | 'offline';

const WORD: Record<Face, string> = { live: 'Live', polling: 'Polling', connecting: 'Connecting', paused: 'Paused', offline: 'Offline' };

/** Attempts after which the reader may want to try it himself. */
const ATTEMPTS_BEFORE_BUTTON = 5;

/** The face a connection has. */
export function faceOf(state: Pick<ConnectionState, 'status' | 'offlineSince'> & { readonly transport?: Transport }): Face {
  switch (state.status) {
    case 'live':
      return state.transport === 'poll' || state.transport === 'longpoll' ? 'polling' : 'live';
    case 'paused':
      return 'paused';
    case 'closed':
      return 'offline';
    default:
      return state.offlineSince === undefined ? 'connecting' : 'offline';
  }
}

/** The badge. */
export function Badge() {
  const { live } = usePage();
  const state = useStore(live.connection);
  const face = faceOf(state);
  const [open, setOpen] = useState(false);
  const seconds = useCountdown(state.status === 'waiting' ? state.retryAt : undefined);
  const canRetry = (state.status === 'waiting' && state.attempt >= ATTEMPTS_BEFORE_BUTTON) || (state.status === 'closed' && state.error !== undefined && !state.error.isAuth);
  return (
    <div className="badge-group" onBlur={({ currentTarget, relatedTarget }) => !currentTarget.contains(relatedTarget) && setOpen(false)} onKeyDown={(event) => event.key === 'Escape' && setOpen(false)}>
      <button
        type="button"
        className="badge"
        data-testid="badge"
        data-face={face}
        data-status={state.status}
        aria-expanded={open}
        title={open ? undefined : explain(state, face)}
        onClick={() => setOpen(!open)}
      >
        <span className="badge-said" role="status">
          <span className="badge-dot" aria-hidden />
          <span className="badge-word">{WORD[face]}</span>
          {face === 'live' && <span className="badge-more">{live.transport()}</span>}
        </span>
        {seconds !== undefined && (
          // The countdown is for the eyes; read aloud every second it would be a torment.
          <span className="badge-more" aria-hidden>
            {seconds === 0 ? 'trying …' : <><span className="badge-words">next try in </span>{seconds} s</>}
          </span>
        )}
      </button>
      {open && <Details state={state} face={face} />}
      {canRetry && (
        <button type="button" className="button button-small" data-testid="retry-now" onClick={() => live.client.retryNow()}>
          <RotateCw size={14} aria-hidden /> <span>Retry<span className="button-word"> now</span></span>
        </button>
      )}
    </div>
  );
}

/** What stands behind the word: since when, by which way, and how long the way there and back takes. */
function Details({ state, face }: { state: ConnectionState; face: Face }) {
  const { live, format } = usePage();
  const latency = useLatency();
  return (
    <div className="menu-panel badge-details" data-testid="badge-details" data-latency={typeof latency === 'number' ? latency : undefined}>
      <dl className="facts">
        <div><dt>{explain(state, face)}</dt><dd /></div>
        {state.since !== undefined && <div><dt>Connected since</dt><dd>{format.time(live.client.serverNow() - Date.now() + state.since, live.client.serverNow())}</dd></div>}
        <div><dt>There and back</dt><dd>{latency === undefined ? '…' : latency === null ? '–' : `${format.count(latency)} ms`}</dd></div>
      </dl>
      <p className="commands">
        {state.status === 'closed' ? (
          <button type="button" className="button button-small" data-testid="connect" onClick={() => live.client.connect()}><Plug size={14} aria-hidden /> Connect</button>
        ) : (
          <>
            <button type="button" className="button button-small" data-testid="refresh" onClick={() => live.refresh()}><RotateCw size={14} aria-hidden /> Refresh</button>
            <button type="button" className="button button-small" data-testid="disconnect" onClick={() => live.client.close()}><Unplug size={14} aria-hidden /> Disconnect</button>
          </>
        )}
      </p>
    </div>
  );
}

/** Milliseconds that a small question and its answer take; undefined until it is known, null where nobody answers. */
function useLatency(): number | null | undefined {
  const { live } = usePage();
  const [latency, setLatency] = useState<number | null>();
  useEffect(() => {
    let isOpen = true;
    const asked = performance.now();
    const told = (value: number | null): void => {
      if (isOpen) setLatency(value);
    };
    live.client.request('feed', { limit: 1 }).then(
      () => told(Math.round(performance.now() - asked)),
      () => told(null),
    );
    return () => {
      isOpen = false;
    };
  }, [live]);
  return latency;
}

/** Stops and starts the flow by the reader's wish. */
export function PauseButton() {
  const { live } = usePage();
  const { status } = useStore(live.connection);
  if (status === 'closed' || status === 'idle') return null;
  const paused = status === 'paused';
  const Icon = paused ? Play : Pause;
  return (
    <button type="button" className="button" data-testid="pause" aria-label={paused ? 'Resume' : 'Pause'} onClick={() => (paused ? live.client.resume() : live.client.pause())}>
      <Icon size={15} aria-hidden /> <span className="button-word">{paused ? 'Resume' : 'Pause'}</span>
    </button>
  );
}

function explain(state: ConnectionState, face: Face): string {
  switch (face) {
    case 'live':
      return `Connected by ${state.transport === 'websocket' ? 'WebSocket' : 'event stream'} as ${state.session?.user ?? 'you'}`;
    case 'polling':
      return 'Neither a WebSocket nor a stream works here; the page asks the gateway instead';
    case 'paused':
      return 'Paused by you. Resume to get what you missed';
    case 'offline':
      return state.error?.message ?? (state.status === 'closed' ? 'Disconnected by you. Connect to go on where you were' : 'No network. It goes on by itself');
    default:
      return state.error?.message ?? 'Connecting to the gateway';
  }
}

/** Whole seconds until an instant; undefined when there is none. */
function useCountdown(at: number | undefined): number | undefined {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (at === undefined) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [at]);
  return at === undefined ? undefined : Math.max(0, Math.ceil((at - now) / 1_000));
}
