/** Who gets an event and why, who does not and why not: asked of the gateways that decide. */

import { RoomcastError } from 'roomcast';
import type { AdminApi, Answered } from './admin-api.js';
import { AdminPanel } from './asked.js';
import { ExplainTable } from './explain-table.js';
import { AdminForm } from './form.js';

/** The part. */
export function Explain({ api }: { api: AdminApi }) {
  const ask = async (values: Record<string, string>): Promise<Answered[]> => {
    const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== ''));
    const answers = await api.all('gateway', `/explain?${query}`);
    const [first] = answers;
    if (first?.error !== undefined && answers.every(({ error }) => error !== undefined)) throw first.error;
    if (first === undefined) throw new RoomcastError('unavailable', 'No gateway has an admin port here.');
    return answers;
  };
  return (
    <AdminPanel id="explain" title="Who gets it, and why">
      <AdminForm
        button="Explain"
        fields={[
          { name: 'room', label: 'Room', needed: true, hint: 'bookings' },
          { name: 'event', label: 'Event id', hint: 'any event' },
          { name: 'audience', label: 'Audience', hint: 'all' },
          { name: 'user', label: 'User', hint: 'everybody' },
        ]}
        ask={ask}
        show={(answers) => <ExplainTable answers={answers} />}
      />
    </AdminPanel>
  );
}
