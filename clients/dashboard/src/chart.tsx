/** A metric over time in its panel: loads its past once, goes on live. `chart-canvas.tsx` draws it. */

import { useMemo } from 'react';
import { seriesStore } from 'roomcast';
import { usePage } from './context.js';
import { later } from './later.js';
import { pointsOf } from './points.js';
import { usePast } from './range.js';
import { isRefusal, reason } from './reason.js';
import { useStore } from './store.js';
import type { ChartConfig } from './view-config.js';

const Canvas = later(() => import('./chart-canvas.js').then(({ ChartCanvas }) => ChartCanvas), <span className="skeleton skeleton-block" aria-busy />);

/** One chart in its panel. */
export function Chart({ chart }: { chart: ChartConfig }) {
  const { config, live, format } = usePage();
  const { since, from } = usePast();
  const room = chart.room ?? config.metrics;
  const series = useStore(useMemo(() => seriesStore(live.client, room, chart.metric, from === undefined ? {} : { from: new Date(from).toISOString() }), [live.client, room, chart.metric, from]));
  const isRefused = isRefusal(series.error);
  const points = useMemo(() => (isRefused ? [] : pointsOf(series.windows, since)), [series.windows, since, isRefused]);
  const known = points.filter(({ value }) => value !== null);
  const last = known.at(-1);
  const state = !series.loaded ? 'loading' : series.error !== undefined ? 'failed' : 'ready';
  return (
    <section className="panel chart" aria-labelledby={`chart-${chart.metric}`} data-testid="chart" data-metric={chart.metric} data-state={state} data-points={points.length} data-last={last?.value ?? ''}>
      <header className="panel-head">
        <h2 id={`chart-${chart.metric}`}>{chart.label}</h2>
        {last !== undefined && <p className="chart-last"><b>{format.card(last.value ?? 0, chart.format)}</b> <span className="muted">since {format.tick(last.start, last.end - last.start)}</span></p>}
      </header>
      <div className="chart-body">
        {known.length > 0 ? (
          <Canvas points={points} chart={chart} />
        ) : state === 'loading' ? (
          <span className="skeleton skeleton-block" aria-busy />
        ) : state === 'failed' ? (
          <p className="chart-none" data-testid="chart-failed">{series.error === undefined ? '' : reason(series.error, 'this chart')}</p>
        ) : (
          <p className="chart-none">{since === undefined ? 'No data yet.' : 'No data in this time.'} The next {chart.label.toLocaleLowerCase()} appears here by itself.</p>
        )}
      </div>
      <table className="sr-only">
        <caption>{chart.label}</caption>
        <tbody>{known.slice(-24).map((point) => <tr key={point.start}><th scope="row">{format.full(point.start)}</th><td>{format.card(point.value ?? 0, chart.format)}</td></tr>)}</tbody>
      </table>
    </section>
  );
}
