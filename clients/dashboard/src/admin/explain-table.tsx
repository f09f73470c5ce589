/** Who gets an event and why, as the gateways said. */

import { plain } from '../template.js';
import { listOf, type Answered } from './admin-api.js';
import { AdminTable } from './asked.js';

/** One row for each connection. */
export function ExplainTable({ answers }: { answers: readonly Answered[] }) {
  return (
    <AdminTable
      label="Who gets it"
      none="Nobody is connected."
      heads={['User', 'Gets it', 'Why', 'Without', 'Connection']}
      rows={answers.flatMap(({ port, body }) =>
        listOf(body, 'connections').map((one): [string, React.ReactNode[]] => [
          `${port} ${plain(one['connection'])}`,
          [plain(one['user']), <b>{one['gets'] === true ? 'yes' : 'no'}</b>, plain(one['why']), Array.isArray(one['without']) ? one['without'].join(', ') : '–', <span className="mono">{plain(one['connection'])}</span>],
        ]),
      )}
    />
  );
}
