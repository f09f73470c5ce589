/** A series on a canvas. uPlot draws; this file says what and in which colours. */

import { useEffect, useMemo, useRef, useState } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { usePage } from './context.js';
import type { Format } from './format.js';
import type { Point } from './points.js';
import type { ChartConfig } from './view-config.js';

/** Steps of an axis that counts: there is no half of a booking. */
const WHOLE = [1, 2, 5].flatMap((first) => Array.from({ length: 12 }, (_, power) => first * 10 ** power)).sort((a, b) => a - b);

/** The drawing. */
export function ChartCanvas({ points, chart }: { points: readonly Point[]; chart: ChartConfig }) {
  const { format } = usePage();
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const scheme = useScheme();
  const data = useMemo(() => columns(points), [points]);
  const newest = useRef(data);
  newest.current = data;
  const step = points[0] === undefined ? 3_600_000 : points[0].end - points[0].start;
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const made = new uPlot(options(element, chart, format, step), newest.current, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [chart, format, step, scheme]);
  useEffect(() => {
    plot.current?.setData(data);
  }, [data]);
  return <div ref={box} className="chart-canvas" aria-hidden />;
}

function columns(points: readonly Point[]): uPlot.AlignedData {
  return [points.map(({ start }) => start / 1_000), points.map(({ value }) => value)];
}

function options(element: HTMLElement, chart: ChartConfig, format: Format, step: number): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const [accent, soft, muted, line] = ['--chart', '--chart-soft', '--text-muted', '--line'].map(colour) as [string, string, string, string];
  const axis: uPlot.Axis = { stroke: muted, font: `12px ${style.fontFamily}`, ticks: { show: false }, border: { show: false } };
  const bars = chart.kind === 'bars' && uPlot.paths.bars !== undefined ? uPlot.paths.bars({ size: [0.68, 36], radius: 0.18, align: 1 }) : undefined;
  const half = step / 2_000;
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    padding: [12, 22, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
    plugins: [readout(chart, format)],
    scales: {
      x: { time: true, range: (_, from, to) => [from - (bars === undefined ? 0 : half * 0.2), bars === undefined ? Math.max(to, from + 1) : to + 2 * half] },
      y: { range: (_, low, high) => [Math.min(0, low), high <= 0 ? 1 : high * 1.12] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 28, space: 64, values: (_, ticks) => ticks.map((at) => format.tick(at * 1_000, step)) },
      { ...axis, grid: { stroke: line, width: 1 }, size: 56, space: 40, ...(chart.format === 'number' ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map((value) => (chart.format === 'percent' ? format.percent(value * 100) : format.short(value))) },
    ],
    series: [{}, bars === undefined ? { stroke: accent, fill: soft, width: 2, points: { show: false } } : { stroke: accent, fill: accent, width: 0, paths: bars, points: { show: false } }],
  };
}

/** What stands under the pointer, in words. */
function readout(chart: ChartConfig, format: Format): uPlot.Plugin {
  const label = document.createElement('div');
  label.className = 'chart-readout';
  label.hidden = true;
  return {
    hooks: {
      init: (plot) => {
        plot.over.append(label);
      },
      setCursor: (plot) => {
        const index = plot.cursor.idx;
        const at = index === null || index === undefined ? undefined : plot.data[0][index];
        const value = index === null || index === undefined ? undefined : plot.data[1]?.[index];
        label.hidden = at === undefined || value === undefined || value === null;
        if (label.hidden || at === undefined) return;
        label.textContent = `${format.full(at * 1_000).replace(/:\d\d(?= |$)/, '')} · ${format.card(value ?? 0, chart.format)}`;
        const left = plot.valToPos(at, 'x');
        label.style.left = `${Math.min(Math.max(left, 90), Math.max(90, plot.over.clientWidth - 90))}px`;
      },
    },
  };
}

/** Changes when the page turns light or dark: a canvas does not by itself. */
function useScheme(): string {
  const read = (): string => getComputedStyle(document.documentElement).getPropertyValue('--chart');
  const [scheme, setScheme] = useState(() => `${document.documentElement.dataset['theme'] ?? ''} ${matchMedia('(prefers-color-scheme: dark)').matches} ${read()}`);
  useEffect(() => {
    const query = matchMedia('(prefers-color-scheme: dark)');
    const changed = (): void => setScheme(`${document.documentElement.dataset['theme'] ?? ''} ${query.matches} ${read()}`);
    query.addEventListener('change', changed);
    const observer = new MutationObserver(changed);
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
    return () => {
      query.removeEventListener('change', changed);
      observer.disconnect();
    };
  }, []);
  return scheme;
}
