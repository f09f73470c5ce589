/** One event in the operator's name, to a room and an audience. */

import { newKey } from '../commands.js';
import { usePage } from '../context.js';
import type { AdminApi } from './admin-api.js';
import { AdminPanel, Raw } from './asked.js';
import { AdminForm } from './form.js';

/** The part. */
export function Broadcast({ api }: { api: AdminApi }) {
  const { config } = usePage();
  const ask = (values: Record<string, string>): Promise<Record<string, unknown>> => {
    const { room, audience, type, priority, title, body } = values;
    const event = { id: newKey(), room, type, ...(audience === '' ? {} : { audience }), ...(priority === '' ? {} : { priority }), data: { title, ...(body === '' ? {} : { body }) } };
    return api.one('ingest', '/broadcast', { method: 'POST', body: event });
  };
  return (
    <AdminPanel id="broadcast" title="Say something to everybody">
      <AdminForm
        button="Broadcast"
        fields={[
          { name: 'title', label: 'Title', needed: true },
          { name: 'body', label: 'Text' },
          { name: 'room', label: 'Room', needed: true, value: config.notifications ?? config.metrics },
          { name: 'type', label: 'Type', needed: true, value: 'notification.announcement' },
          { name: 'audience', label: 'Audience', hint: 'all' },
          { name: 'priority', label: 'Priority', hint: 'medium' },
        ]}
        ask={ask}
        show={(answer) => <Raw value={answer} />}
      />
    </AdminPanel>
  );
}
