/** How the page is connected, in one word that is always true, and the buttons that belong to it. */

import { Pause, Play, RotateCw } from 'lucide-react';
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
  const seconds = useCountdown(state.status === 'waiting' ? state.retryAt : undefined);
  const canRetry = (state.status === 'waiting' && state.attempt >= ATTEMPTS_BEFORE_BUTTON) || (state.status === 'closed' && state.error !== undefined && !state.error.isAuth);
  return (
    <div className="badge-group">
      <div className="badge" data-testid="badge" data-face={face} data-status={state.status} role="status" title={explain(state, face)}>
        <span className="badge-dot" aria-hidden />
        <span className="badge-word">{WORD[face]}</span>
        {face === 'live' && <span className="badge-more">{live.transport()}</span>}
        {seconds !== undefined && (
          // The countdown is for the eyes; read aloud every second it would be a torment.
          <span className="badge-more" aria-hidden>
            {seconds === 0 ? 'trying …' : <><span className="badge-words">next try in </span>{seconds} s</>}
          </span>
        )}
      </div>
      {canRetry && (
        <button type="button" className="button button-small" data-testid="retry-now" onClick={() => live.client.retryNow()}>
          <RotateCw size={14} aria-hidden /> <span>Retry<span className="button-word"> now</span></span>
        </button>
      )}
    </div>
  );
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
