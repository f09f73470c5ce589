/** The groups of a metric, the largest first, as bars that anybody can read. */

import type { Metric, MetricGroup } from 'roomcast';
import { usePage } from './context.js';
import { isRefusal } from './reason.js';
import { useStore } from './store.js';
import type { RankingConfig } from './view-config.js';

/** Groups shown; the rest is summed up in words. */
const SHOWN_MAX = 8;

/** One ranking in its panel. */
export function Ranking({ ranking }: { ranking: RankingConfig }) {
  const { config, live, format } = usePage();
  const { groups } = useStore(live.metrics);
  const room = useStore(live.rooms).get(ranking.room ?? config.metrics);
  const all = ranked(ranking, groups.get(ranking.metric));
  const most = all[0]?.number ?? 0;
  return (
    <section className="panel" aria-labelledby={`ranking-${ranking.metric}`} data-testid="ranking" data-metric={ranking.metric}>
      <header className="panel-head"><h2 id={`ranking-${ranking.metric}`}>{ranking.label}</h2></header>
      {all.length > 0 ? (
        <ol className="ranking">
          {all.slice(0, SHOWN_MAX).map(({ key, name, number, value }) => (
            <li key={key}>
              <span className="ranking-name">{name}</span>
              <span className="ranking-bar" aria-hidden><span style={{ width: `${most > 0 ? Math.max(0, (number ?? 0) / most) * 100 : 0}%` }} /></span>
              <b className="number">{value === null ? '–' : format.card(value, ranking.format)}</b>
            </li>
          ))}
          {all.length > SHOWN_MAX && <li className="muted">and {format.count(all.length - SHOWN_MAX)} more</li>}
        </ol>
      ) : room?.loaded !== true ? (
        <div className="chart-body"><span className="skeleton skeleton-block" aria-busy /></div>
      ) : (
        <p className="chart-none">{isRefusal(room.error) ? 'Your roles do not include these numbers.' : 'No data yet.'}</p>
      )}
    </section>
  );
}

/** Groups with their names, the largest first, those without a value last. */
export function ranked({ names }: Pick<RankingConfig, 'names'>, groups: ReadonlyMap<string, Metric> | undefined): { key: string; name: string; number: number | null; value: string | null }[] {
  const named = (name: string): string => (Object.hasOwn(names, name) ? (names[name] ?? name) : name);
  return [...(groups ?? [])]
    .map(([key, { group, number, value }]) => ({ key, name: namesOf(group).map(named).join(' · '), number, value }))
    .sort((a, b) => Number(a.number === null) - Number(b.number === null) || (b.number ?? 0) - (a.number ?? 0) || a.name.localeCompare(b.name));
}

/** A group as people read it. */
function namesOf(group: MetricGroup): string[] {
  return group === '~other' ? ['others'] : group.map((value) => (value === null ? '–' : String(value)));
}
