/** Who is connected, at every gateway; one may be ended. */

import { useCallback } from 'react';
import { usePage, useNow } from '../context.js';
import { isJson } from '../json.js';
import { plain } from '../template.js';
import { listOf, type AdminApi } from './admin-api.js';
import { AdminPanel, AdminTable, SureButton, useAsked } from './asked.js';

/** Connections of a gateway that are listed; the terminal lists all. */
const SHOWN_MAX = 200;

/** The part. */
export function Connections({ api }: { api: AdminApi }) {
  const { format } = usePage();
  const now = useNow();
  const ask = useCallback(() => api.all('gateway', `/connections?limit=${SHOWN_MAX}`), [api]);
  const { answers, again } = useAsked(ask);
  const rows = (answers ?? []).flatMap(({ port, body }) => listOf(body, 'connections').map((one) => ({ port, one })));
  const kick = (connection: string) => async (): Promise<void> => {
    await api.one('ingest', '/kicks', { method: 'POST', body: { connection } });
    again();
  };
  return (
    <AdminPanel id="connections" title={`Connections${rows.length === 0 ? '' : ` (${format.count(rows.length)})`}`} answers={answers} again={again}>
      <AdminTable
        label="Connections"
        none={answers === undefined ? 'Asking …' : 'Nobody is connected.'}
        heads={['User', 'Roles', 'Transport', 'Since', 'Frames waiting', 'Address', 'Connection', '']}
        rows={rows.map(({ port, one }) => {
          const user = isJson(one['user']) ? one['user'] : {};
          const name = plain(one['connection']);
          const since = Date.parse(plain(one['since']));
          const roles = Array.isArray(user['roles']) ? user['roles'].join(', ') : '';
          return [
            `${port} ${name}`,
            [
              plain(user['user']) || 'not signed in',
              roles || '–',
              plain(one['transport']),
              <span className="nowrap">{Number.isNaN(since) ? '–' : format.ago(since, now)}</span>,
              format.count(Number(one['waitingFrames'] ?? 0)),
              plain(one['address']),
              <span className="mono">{name}</span>,
              <SureButton label="Kick" sure="Really end it" about={name} onSure={kick(name)} />,
            ],
          ];
        })}
      />
    </AdminPanel>
  );
}
