/** A policy against who is connected now: who would lose and gain which rooms. Nothing is changed. */

import { usePage } from '../context.js';
import { isJson } from '../json.js';
import { plain } from '../template.js';
import { listOf, type AdminApi } from './admin-api.js';
import { AdminPanel, AdminTable } from './asked.js';
import { AdminForm } from './form.js';
import { Mistakes, mistakesOf } from './mistakes.js';

/** The part. */
export function PolicyTrial({ api }: { api: AdminApi }) {
  const { format } = usePage();
  return (
    <AdminPanel id="policy" title="Try a policy">
      <AdminForm
        button="Try it"
        fields={[{ name: 'policy', label: 'The whole text of the policy, YAML', long: true, needed: true }]}
        ask={async ({ policy = '' }) => ({ text: policy, answer: await api.one('gateway', '/policy/trial', { method: 'POST', body: { policy } }) })}
        show={({ text, answer }) => {
          const mistakes = mistakesOf(answer);
          if (mistakes.length > 0) return <Mistakes mistakes={mistakes} text={text} />;
          const rooms = isJson(answer['rooms']) ? Object.entries(answer['rooms']).filter((pair): pair is [string, Record<string, unknown>] => isJson(pair[1])) : [];
          return (
            <>
              <p>Of {format.count(Number(answer['connections'] ?? 0))} connections at this gateway, {format.count(Number(answer['changed'] ?? 0))} would change.</p>
              <AdminTable label="By room" none="No room would change." heads={['Room', 'Lose it', 'Gain it', 'See it differently']} rows={rows(rooms)} />
              <AdminTable
                label="By connection"
                none="Nobody would change."
                heads={['User', 'Roles now', 'Roles then', 'Loses', 'Gains']}
                rows={listOf(answer, 'changes').map((one) => [
                  plain(one['connection']),
                  [plain(one['user']), words(one['roles']), words(one['then']), listOf(one, 'loses').map(({ room }) => plain(room)).join(', ') || '–', listOf(one, 'gains').map(({ room }) => plain(room)).join(', ') || '–'],
                ])}
              />
            </>
          );
        }}
      />
    </AdminPanel>
  );

  function rows(rooms: readonly [string, Record<string, unknown>][]): [string, string[]][] {
    return rooms.map(([room, counts]) => [room, [room, ...['lose', 'gain', 'differ'].map((name) => format.count(Number(counts[name] ?? 0)))]]);
  }
}

function words(value: unknown): string {
  return Array.isArray(value) && value.length > 0 ? value.join(', ') : '–';
}
