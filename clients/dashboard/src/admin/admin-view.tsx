/** For operators: who is connected, which rooms there are, and what one may do about it. The token stays in memory. */

import { KeyRound, ServerOff } from 'lucide-react';
import { useMemo, useState } from 'react';
import { usePage } from '../context.js';
import { Blank, TokenForm } from '../states.js';
import { useStore } from '../store.js';
import { AdminApi } from './admin-api.js';
import { adminToken } from './admin-token.js';
import { Broadcast } from './broadcast.js';
import { Connections } from './connections.js';
import { DeadLetters } from './dead-letters.js';
import { Explain } from './explain.js';
import { MetricsHere } from './metrics-here.js';
import { MetricsTrial } from './metrics-trial.js';
import { PolicyTrial } from './policy-trial.js';
import { Rooms } from './rooms.js';

const PARTS = [
  ['connections', 'Connections'],
  ['rooms', 'Rooms'],
  ['explain', 'Explain'],
  ['broadcast', 'Broadcast'],
  ['policy', 'Policy'],
  ['metrics', 'Metrics'],
  ['letters', 'Dead letters'],
] as const;
type Part = (typeof PARTS)[number][0];

/** The view. */
export function AdminView() {
  const { config } = usePage();
  const token = useStore(adminToken);
  const [part, setPart] = useState<Part>('connections');
  const api = useMemo(() => (token === undefined ? undefined : new AdminApi(config.admin, token)), [config.admin, token]);
  const ports = [...config.admin.gateway, ...config.admin.ingest, ...config.admin.aggregator];
  if (ports.length === 0) {
    return (
      <Blank icon={ServerOff} title="No admin port is open to this page" testId="admin-absent">
        <p>Services open one with <code>ROOMCAST_ADMIN_JWT_KEYS_FILE</code> and let pages in with <code>ROOMCAST_ADMIN_ORIGINS</code>; the page finds it by <code>admin</code> in its configuration. In a terminal, <code>roomcast top</code> and <code>roomcast explain</code> need neither.</p>
      </Blank>
    );
  }
  if (api === undefined) {
    return (
      <Blank icon={KeyRound} title="For operators" testId="admin-sign-in">
        <p>Paste an admin token. <code>roomcast dev</code> writes one to <code>.roomcast/dev.env</code>. It stays in the memory of this tab.</p>
        <TokenForm
          label="Admin token"
          onToken={(text) => adminToken.update(() => text)}
        />
      </Blank>
    );
  }
  const leave = (): void => adminToken.update(() => undefined);
  return (
    <div className="admin" data-testid="admin">
      <div className="admin-head">
        <div className="segments" role="radiogroup" aria-label="Part">
          {PARTS.map(([id, label]) => (
            <label key={id} className="segment">
              <input type="radio" name="admin-part" checked={part === id} onChange={() => setPart(id)} />
              <span>{label}</span>
            </label>
          ))}
        </div>
        <button type="button" className="button" onClick={leave}>Forget the token</button>
      </div>
      {part === 'connections' && <Connections api={api} />}
      {part === 'rooms' && <Rooms api={api} />}
      {part === 'explain' && <Explain api={api} />}
      {part === 'broadcast' && <Broadcast api={api} />}
      {part === 'policy' && <PolicyTrial api={api} />}
      {part === 'metrics' && <><MetricsHere api={api} /><MetricsTrial api={api} /></>}
      {part === 'letters' && <DeadLetters api={api} />}
    </div>
  );
}
