/** The connection, for the person who wonders why nothing arrives. What it says is decided in `diagnosis.ts`. */

import { CircleCheck, CircleX, TriangleAlert } from 'lucide-react';
import { useNow, usePage, RelativeTime } from './context.js';
import { CopyButton } from './copy-button.js';
import { asText, counts, facts, findings, roomFacts, type Known } from './diagnosis.js';
import { readClaims, readToken } from './session.js';
import { useStore } from './store.js';

const ICON = { green: CircleCheck, amber: TriangleAlert, red: CircleX };

/** The view. */
export function DiagnosisView() {
  const { live, format, config } = usePage();
  const state = useStore(live.connection);
  const turns = useStore(live.turns);
  const views = useStore(live.rooms);
  const lastEventAt = useStore(live.lastEventAt);
  // Counters are not stores; they are read again with the clock.
  useNow();
  const known: Known = {
    state,
    counters: { ...live.client.counters },
    rooms: live.client.rooms().map((room) => roomFacts(room, views.get(room.room))),
    lastEventAt,
    skewMs: live.client.serverNow() - Date.now(),
    now: live.client.serverNow(),
    transport: live.transport(),
    claims: readClaims(readToken()),
    zone: config.timezone,
  };
  return (
    <>
      <section className="panel" aria-labelledby="findings-title" data-testid="findings">
        <header className="panel-head">
          <h2 id="findings-title">Why does nothing arrive?</h2>
          <CopyButton text={() => asText(known, format, navigator.userAgent)} label="Copy as text" />
        </header>
        <ul className="findings">
          {findings(known, format).map(({ tone, text, help }) => {
            const Icon = ICON[tone];
            return (
              <li key={text} data-tone={tone}>
                <Icon size={18} aria-hidden />
                <div><p>{text}</p><p className="muted">{help}</p></div>
              </li>
            );
          })}
        </ul>
      </section>
      <section className="panel" aria-labelledby="rooms-title">
        <header className="panel-head"><h2 id="rooms-title">Rooms</h2></header>
        <div className="scroll" tabIndex={0} role="region" aria-label="Rooms, as a table">
          <table className="plain nowrap" data-testid="rooms">
            <thead><tr><th scope="col">Room</th><th scope="col">State</th><th scope="col">Last event</th><th scope="col" className="number">Heard</th><th scope="col" className="number">Keys</th><th scope="col">Cursor</th></tr></thead>
            <tbody>
              {known.rooms.map((room) => (
                <tr key={room.room} data-room={room.room} data-state={room.state}>
                  <td>{room.room}</td>
                  <td>{room.state}{room.refusal !== undefined && <span className="muted"> · {room.refusal}</span>}</td>
                  <td>{room.lastAt === undefined ? '–' : <RelativeTime at={room.lastAt} />}</td>
                  <td className="number">{format.count(room.heard)}</td>
                  <td className="number">{format.count(room.keys)}</td>
                  <td className="mono">{room.cursor ?? '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
      <div className="columns">
        <Facts title="Connection" rows={facts(known, format)} />
        <Facts title="Counted" rows={counts(known.counters, format)} />
      </div>
      <section className="panel" aria-labelledby="turns-title">
        <header className="panel-head"><h2 id="turns-title">What happened</h2></header>
        <ol className="turns" tabIndex={0} aria-labelledby="turns-title">
          {turns.map((turn) => (
            <li key={`${turn.at} ${turn.status}`}>
              <time className="muted">{format.time(turn.at)}</time> <b>{turn.status}</b> <span className="muted">{turn.why ?? ''}</span>
            </li>
          ))}
        </ol>
      </section>
    </>
  );
}

/** Names and values in a panel. */
export function Facts({ title, rows }: { title: string; rows: readonly (readonly [string, React.ReactNode])[] }) {
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
