/** Metrics before they are in force: their mistakes, or what each would have shown over past events. Nothing is changed. */

import { usePage } from '../context.js';
import { isJson } from '../json.js';
import { Sparkline } from '../sparkline.js';
import { plain } from '../template.js';
import { listOf, type AdminApi } from './admin-api.js';
import { AdminPanel, AdminTable } from './asked.js';
import { AdminForm } from './form.js';
import { Mistakes, mistakesOf } from './mistakes.js';

type Json = Record<string, unknown>;
/** What was tried, and what came of it. */
interface Tried {
  readonly text: string;
  readonly answer: Json;
}

const EXAMPLE = `version: 1
timezone: Europe/Istanbul
metrics:
  - name: events
    from: { room: bookings }
    value: count()
    window: { sliding: 24h, step: 1m }
    compare: previous
    publish: { room: os_dashboard, audience: all }`;

/** The part. */
export function MetricsTrial({ api }: { api: AdminApi }) {
  const ask = async ({ metrics = '', hours = '' }: Record<string, string>): Promise<Tried> => {
    const answer = await api.one('aggregator', '/metrics/trial', { method: 'POST', body: { metrics, hours: Number(hours) } });
    return { text: metrics, answer };
  };
  return (
    <AdminPanel id="metrics-trial" title="Try metrics">
      <AdminForm
        button="Try them"
        fields={[
          { name: 'metrics', label: 'The whole text of the definitions, YAML', long: true, needed: true, value: EXAMPLE },
          { name: 'hours', label: 'Hours to look back, 1 to 72', needed: true, value: '48' },
        ]}
        ask={ask}
        show={(tried) => <Outcome tried={tried} />}
      />
    </AdminPanel>
  );
}

function Outcome({ tried: { text, answer } }: { tried: Tried }) {
  const { format } = usePage();
  const mistakes = mistakesOf(answer);
  if (mistakes.length > 0) return <Mistakes mistakes={mistakes} text={text} />;
  const warnings = Array.isArray(answer['warnings']) ? answer['warnings'].map(String) : [];
  const from = Date.parse(plain(answer['from']));
  return (
    <>
      <p>
        {format.count(Number(answer['events'] ?? 0))} events since {Number.isNaN(from) ? 'the beginning' : format.full(from)}
        {answer['complete'] === false && ': the newest; there are more in this time'}.
      </p>
      {warnings.map((warning) => <p key={warning} className="line-warning">{warning}</p>)}
      <AdminTable label="What metrics would have shown" none="The text defines no metric." heads={['Metric', 'Shows', 'Before', 'Trend', 'Folded', 'Left out']} rows={listOf(answer, 'metrics').flatMap((metric) => rowsOf(metric))} />
      {listOf(answer, 'rules').length > 0 && (
        <AdminTable
          label="What rules would have said"
          none=""
          heads={['Rule', 'Would have spoken', 'First']}
          rows={listOf(answer, 'rules').map((rule): [string, React.ReactNode[]] => {
            const [first] = listOf(rule, 'notices');
            const data = isJson(first?.['data']) ? first['data'] : {};
            return [plain(rule['alert']), [plain(rule['alert']), `${format.count(Number(rule['count'] ?? 0))} times`, first === undefined ? '–' : `${plain(data['title'])}, ${format.full(Date.parse(plain(first['at'])))}`]];
          })}
        />
      )}
    </>
  );

  /** One row for each group that is told; the first says what is the metric's. */
  function rowsOf(metric: Json): [string, React.ReactNode[]][] {
    const name = plain(metric['name']);
    const values = listOf(metric, 'values');
    const more = Number(metric['groups'] ?? 0) - values.length;
    const rows = (values.length === 0 ? [{} as Json] : values).map((update, index): [string, React.ReactNode[]] => {
      const group = Array.isArray(update['group']) ? update['group'].map((part) => (typeof part === 'string' ? part : JSON.stringify(part))).join(', ') : '';
      const trend = Array.isArray(update['sparkline']) ? update['sparkline'].map((value) => (typeof value === 'string' ? Number(value) : null)) : [];
      const label = group === '' ? name : `${name}: ${group}`;
      return [
        `${name} ${index}`,
        [label, number(update['value']), number(update['previous']), <span className="trial-trend"><Sparkline values={trend} label={`${label}, trend`} /></span>, index === 0 ? format.count(Number(metric['folded'] ?? 0)) : '', index === 0 ? skipped(metric['skipped']) : ''],
      ];
    });
    return more > 0 ? [...rows, [`${name} more`, [`${name}: ${format.count(more)} smaller groups`, '', '', '', '', '']]] : rows;
  }

  function number(value: unknown): string {
    const text = plain(value);
    return text === '' ? '–' : Number.isFinite(Number(text)) ? format.exact(text, 'number') : text;
  }

  function skipped(reasons: unknown): string {
    const some = Object.entries(isJson(reasons) ? reasons : {}).filter(([, count]) => Number(count) > 0);
    return some.map(([reason, count]) => `${format.count(Number(count))} ${reason.replaceAll('_', ' ')}`).join(', ') || 'nothing';
  }
}
