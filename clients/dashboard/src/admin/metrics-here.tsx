/** The metrics in force, who works them and how far behind. */

import { useCallback } from 'react';
import { usePage } from '../context.js';
import { plain } from '../template.js';
import { listOf, type AdminApi } from './admin-api.js';
import { AdminPanel, AdminTable, useAsked } from './asked.js';

/** The part. */
export function MetricsHere({ api }: { api: AdminApi }) {
  const { format } = usePage();
  const listed = useAsked(useCallback(() => api.all('aggregator', '/metrics'), [api]));
  const figures = useAsked(useCallback(() => api.all('aggregator', '/statistics'), [api]));
  const lag = new Map((figures.answers ?? []).flatMap(({ body }) => listOf(body, 'shards').map((shard): [number, Record<string, unknown>] => [Number(shard['shard']), shard])));
  const metrics = new Map((listed.answers ?? []).flatMap(({ body }) => listOf(body, 'metrics').map((metric): [string, Record<string, unknown>] => [`${plain(metric['tenant'])}/${plain(metric['name'])}`, metric])));
  return (
    <AdminPanel id="metrics" title="Metrics" answers={listed.answers} again={listed.again}>
      <AdminTable
        label="Metrics"
        none={listed.answers === undefined ? 'Asking …' : 'No metrics are defined.'}
        heads={['Metric', 'Room', 'Audience', 'Shard', 'Behind']}
        rows={[...metrics].sort(([a], [b]) => a.localeCompare(b)).map(([name, metric]) => {
          const shard = lag.get(Number(metric['shard']));
          const behind = shard === undefined ? 'nobody works it here' : shard['current'] === true ? `${format.count(Number(shard['lagEvents'] ?? 0))} events` : 'reading its past';
          return [name, [plain(metric['name']), plain(metric['room']) || 'not published', plain(metric['audience']) || '–', plain(metric['shard']), behind]];
        })}
      />
    </AdminPanel>
  );
}
