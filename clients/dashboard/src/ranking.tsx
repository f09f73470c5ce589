/** The groups of a metric, the largest first, as bars that anybody can read. */

import type { MetricGroup } from 'roomcast';
import { usePage } from './context.js';
import { useStore } from './store.js';
import type { RankingConfig } from './view-config.js';

/** Groups shown; the rest is summed up in words. */
const SHOWN_MAX = 8;

/** One ranking in its panel. */
export function Ranking({ ranking }: { ranking: RankingConfig }) {
  const { live, format } = usePage();
  const { groups } = useStore(live.metrics);
  const all = [...(groups.get(ranking.metric) ?? [])]
    .map(([key, { group, number, value }]) => ({ key, name: namesOf(group).map((name) => ranking.names[name] ?? name).join(' · '), value: number ?? 0, text: value ?? '0' }))
    .sort((a, b) => b.value - a.value || a.name.localeCompare(b.name));
  const most = all[0]?.value ?? 0;
  return (
    <section className="panel" aria-labelledby={`ranking-${ranking.metric}`} data-testid="ranking" data-metric={ranking.metric}>
      <header className="panel-head"><h2 id={`ranking-${ranking.metric}`}>{ranking.label}</h2></header>
      {all.length === 0 ? (
        <p className="chart-none">No data yet.</p>
      ) : (
        <ol className="ranking">
          {all.slice(0, SHOWN_MAX).map(({ key, name, value, text }) => (
            <li key={key}>
              <span className="ranking-name">{name}</span>
              <span className="ranking-bar" aria-hidden><span style={{ width: `${most === 0 ? 0 : (value / most) * 100}%` }} /></span>
              <b className="number">{format.card(text, ranking.format)}</b>
            </li>
          ))}
          {all.length > SHOWN_MAX && <li className="muted">and {format.count(all.length - SHOWN_MAX)} more</li>}
        </ol>
      )}
    </section>
  );
}

/** A group as people read it. */
function namesOf(group: MetricGroup): string[] {
  return group === '~other' ? ['others'] : group.map((value) => (value === null ? '–' : String(value)));
}
