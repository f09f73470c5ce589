/** What the connection is doing, for the person who wonders why nothing arrives. */

import { usePage, useNow, RelativeTime } from './context.js';
import { useStore } from './store.js';

/** The view. */
export function ConnectionView() {
  const { live, format, config } = usePage();
  const state = useStore(live.connection);
  const turns = useStore(live.turns);
  const last = useStore(live.lastEventAt);
  // Counters are not stores; they are read again with the clock.
  useNow();
  const { counters } = live.client;
  const { session } = state;
  const skew = Math.round((live.client.serverNow() - Date.now()) / 1_000);
  const facts: [string, React.ReactNode][] = [
    ['State', state.status],
    ['Transport', state.status === 'live' ? 'WebSocket' : '–'],
    ['Signed in as', session === undefined ? '–' : `${session.user} (${session.roles.join(', ') || 'no role'})`],
    ['Sign-in ends', session?.expiresAt === undefined ? '–' : format.full(Date.parse(session.expiresAt))],
    ['Connection', session?.connection ?? '–'],
    ['Resume promise', session === undefined || session.resumeSeconds === 0 ? '–' : format.span(session.resumeSeconds * 1_000)],
    ['Last event', last === undefined ? 'none yet' : <RelativeTime key="last" at={last} />],
    ['This machine’s clock', Math.abs(skew) < 2 ? 'right' : `${Math.abs(skew)} s ${skew > 0 ? 'slow' : 'fast'}`],
    ['Business zone', config.timezone],
  ];
  const counts: [string, number][] = [
    ['Messages read', counters.frames],
    ['Events shown', counters.delivered],
    ['Copies left out', counters.duplicates],
    ['Expired', counters.expired],
    ['Not subscribed', counters.unheard],
    ['Unknown kind', counters.unknown],
    ['Unreadable', counters.malformed],
    ['Connections made', counters.connects],
    ['Connections lost', counters.losses],
  ];
  return (
    <div className="columns">
      <Panel title="Connection" rows={facts} />
      <Panel title="Counters" rows={counts.map(([name, count]) => [name, format.count(count)])} />
      <section className="panel panel-wide" aria-labelledby="rooms-title">
        <header className="panel-head"><h2 id="rooms-title">Rooms</h2></header>
        <div className="scroll">
          <table className="plain">
            <thead><tr><th scope="col">Room</th><th scope="col">State</th><th scope="col" className="number">Keys</th><th scope="col">Cursor</th></tr></thead>
            <tbody>
              {live.client.rooms().map((room) => (
                <tr key={room.room}>
                  <td>{room.room}</td>
                  <td>{room.caughtUp ? 'up to date' : room.joined ? 'catching up' : 'not open'}</td>
                  <td className="number">{format.count(room.keys)}</td>
                  <td className="mono">{room.cursor ?? '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
      <section className="panel panel-wide" aria-labelledby="turns-title">
        <header className="panel-head"><h2 id="turns-title">What happened</h2></header>
        <ol className="turns">
          {turns.map((turn) => (
            <li key={`${turn.at} ${turn.status}`}>
              <time className="muted">{format.time(turn.at)}</time> <b>{turn.status}</b> <span className="muted">{turn.why ?? ''}</span>
            </li>
          ))}
        </ol>
      </section>
    </div>
  );
}

function Panel({ title, rows }: { title: string; rows: readonly (readonly [string, React.ReactNode])[] }) {
  return (
    <section className="panel">
      <header className="panel-head"><h2>{title}</h2></header>
      <dl className="facts">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
