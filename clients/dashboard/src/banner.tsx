/** One line under the bar when the page is not what it seems. Never in the way: the data stays. */

import { CircleAlert, Clock3, KeyRound, RefreshCw, WifiOff } from 'lucide-react';
import { faceOf } from './badge.js';
import { useClock, usePage } from './context.js';
import { TokenForm } from './states.js';
import { useStore } from './store.js';

/** The most important thing that is wrong, or nothing. */
export function Banner({ onToken }: { onToken: (token: string) => void }) {
  const { live, format } = usePage();
  const state = useStore(live.connection);
  const last = useStore(live.lastEventAt);
  const age = useClock((now) => (last === undefined ? '' : ` What you see is from ${format.time(last, now)}.`));
  const staleSince = Date.parse(state.stale?.since ?? '');
  const stale = useClock((now) => (Number.isNaN(staleSince) ? '' : ` since ${format.time(staleSince, now)}`));
  if (state.status === 'closed' && state.error?.isAuth === true) {
    return (
      <Line icon={<KeyRound size={16} aria-hidden />} tone="red" id="expired" more={<TokenForm onToken={onToken} />}>
        Your sign-in has ended.{age} Open a fresh address, or paste a new token.
      </Line>
    );
  }
  if (state.status === 'closed' && state.error !== undefined) {
    return <Line icon={<CircleAlert size={16} aria-hidden />} tone="red" id="closed">The gateway ended the connection: {state.error.message}{age}</Line>;
  }
  if (state.offlineSince !== undefined && state.status !== 'live' && state.status !== 'paused') {
    return <Line icon={<WifiOff size={16} aria-hidden />} tone="red" id="offline">No network.{age} It goes on by itself when the network is back.</Line>;
  }
  if (state.stale !== undefined) {
    return (
      <Line icon={<Clock3 size={16} aria-hidden />} tone="amber" id="stale">
        The gateway has lost its source{stale}. What you see may be old; nothing is lost.
      </Line>
    );
  }
  if (faceOf(state) === 'polling') {
    return <Line icon={<RefreshCw size={16} aria-hidden />} tone="amber" id="polling">Updates come by asking: a live line is not possible here at the moment. Nothing is missed; the page goes back by itself.</Line>;
  }
  return null;
}

function Line({ icon, tone, id, more, children }: { icon: React.ReactNode; tone: 'red' | 'amber'; id: string; more?: React.ReactNode; children: React.ReactNode }) {
  return (
    <div className="banner" role="alert" data-tone={tone} data-testid="banner" data-banner={id}>
      {icon}
      <p>{children}</p>
      {more}
    </div>
  );
}
