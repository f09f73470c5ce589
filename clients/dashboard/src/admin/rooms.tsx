/** Rooms with members, of all gateways together. */

import { useCallback } from 'react';
import { usePage } from '../context.js';
import { plain } from '../template.js';
import { listOf, type AdminApi } from './admin-api.js';
import { AdminPanel, AdminTable, useAsked } from './asked.js';

interface Sum {
  members: number;
  gateways: number;
  events: number;
  keys: number;
}

/** The part. */
export function Rooms({ api }: { api: AdminApi }) {
  const { format } = usePage();
  const ask = useCallback(() => api.all('gateway', '/rooms?limit=500'), [api]);
  const { answers, again } = useAsked(ask);
  const sums = new Map<string, Sum>();
  for (const { body } of answers ?? []) {
    for (const room of listOf(body, 'rooms')) {
      const name = `${plain(room['tenant'])}/${plain(room['room'])}`;
      const sum = sums.get(name) ?? { members: 0, gateways: 0, events: 0, keys: 0 };
      sums.set(name, { members: sum.members + Number(room['members'] ?? 0), gateways: sum.gateways + 1, events: Math.max(sum.events, Number(room['events'] ?? 0)), keys: Math.max(sum.keys, Number(room['stateKeys'] ?? 0)) });
    }
  }
  return (
    <AdminPanel id="rooms" title="Rooms" answers={answers} again={again}>
      <AdminTable
        label="Rooms"
        none={answers === undefined ? 'Asking …' : 'No room has members.'}
        heads={['Room', 'Members', 'Gateways', 'Events', 'Keys']}
        rows={[...sums].sort(([a], [b]) => a.localeCompare(b)).map(([name, sum]) => [name, [name, format.count(sum.members), format.count(sum.gateways), format.count(sum.events), format.count(sum.keys)]])}
      />
    </AdminPanel>
  );
}
