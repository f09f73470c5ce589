/** One line under the bar when the page is not what it seems. Never in the way: the data stays. */

import { CircleAlert, Clock3, WifiOff } from 'lucide-react';
import { usePage } from './context.js';
import { useStore } from './store.js';

/** The most important thing that is wrong, or nothing. */
export function Banner() {
  const { live, format } = usePage();
  const state = useStore(live.connection);
  const last = useStore(live.lastEventAt);
  const age = last === undefined ? '' : ` What you see is from ${format.time(last)}.`;
  if (state.status === 'closed' && state.error !== undefined) {
    return <Line icon={<CircleAlert size={16} aria-hidden />} tone="red" id="closed">The gateway ended the connection: {state.error.message}{age}</Line>;
  }
  if (state.offlineSince !== undefined && state.status !== 'live' && state.status !== 'paused') {
    return <Line icon={<WifiOff size={16} aria-hidden />} tone="red" id="offline">No network.{age} It goes on by itself when the network is back.</Line>;
  }
  if (state.stale !== undefined) {
    const since = state.stale.since === undefined ? Number.NaN : Date.parse(state.stale.since);
    return (
      <Line icon={<Clock3 size={16} aria-hidden />} tone="amber" id="stale">
        The gateway has lost its source{Number.isNaN(since) ? '' : ` since ${format.time(since)}`}. What you see may be old; nothing is lost.
      </Line>
    );
  }
  return null;
}

function Line({ icon, tone, id, children }: { icon: React.ReactNode; tone: 'red' | 'amber'; id: string; children: React.ReactNode }) {
  return (
    <div className="banner" role="alert" data-tone={tone} data-testid="banner" data-banner={id}>
      {icon}
      <p>{children}</p>
    </div>
  );
}
