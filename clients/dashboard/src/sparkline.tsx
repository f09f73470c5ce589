/** A series as a line without axes, the last point marked. Inline SVG by hand: nothing to load, nothing to lay out. */

import { useId } from 'react';

/** Height of the drawing's own coordinates; the width is 100. */
const HEIGHT = 32;
/** Room above and below, so that the line's width and the dot are not cut. */
const MARGIN = 3;

/** One point in percent of the box. */
interface Point {
  readonly x: number;
  readonly y: number;
}

/** Cuts the series at its gaps and places the points; it begins with the first one that is known. Exported for tests. */
export function segments(all: readonly (number | null)[]): Point[][] {
  const values = all.slice(Math.max(0, all.findIndex((value) => value !== null)));
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return [];
  const low = Math.min(...known);
  const high = Math.max(...known);
  const lines: Point[][] = [];
  let line: Point[] = [];
  values.forEach((value, index) => {
    if (value === null) {
      if (line.length > 0) lines.push(line);
      line = [];
      return;
    }
    const x = values.length === 1 ? 100 : (index / (values.length - 1)) * 100;
    // A series without movement runs through the middle.
    const part = high === low ? 0.5 : (value - low) / (high - low);
    line.push({ x, y: HEIGHT - MARGIN - part * (HEIGHT - 2 * MARGIN) });
  });
  if (line.length > 0) lines.push(line);
  return lines;
}

/** Draws the series; says `label` to those who do not see it. */
export function Sparkline({ values, label }: { values: readonly (number | null)[]; label: string }) {
  const fill = useId();
  // One point is no trend.
  const lines = values.filter((value) => value !== null).length < 2 ? [] : segments(values);
  const last = values.at(-1) === null ? undefined : lines.at(-1)?.at(-1);
  return (
    <div className="sparkline" role="img" aria-label={label}>
      <svg viewBox={`0 0 100 ${HEIGHT}`} preserveAspectRatio="none" aria-hidden>
        <defs>
          <linearGradient id={fill} x1="0" y1="0" x2="0" y2="1">
            <stop offset="0" className="sparkline-from" />
            <stop offset="1" className="sparkline-to" />
          </linearGradient>
        </defs>
        {lines.length === 0 && <line className="sparkline-none" x1="0" x2="100" y1={HEIGHT - MARGIN} y2={HEIGHT - MARGIN} vectorEffect="non-scaling-stroke" />}
        {lines.slice(1).map((line, index) => {
          const [from, to] = [lines[index]?.at(-1) as Point, line[0] as Point];
          return <line key={to.x} className="sparkline-gap" x1={from.x} y1={from.y} x2={to.x} y2={to.y} vectorEffect="non-scaling-stroke" />;
        })}
        {lines.map((line) => {
          const path = line.map(({ x, y }) => `${x.toFixed(2)},${y.toFixed(2)}`).join(' ');
          const first = line[0] as Point;
          const end = line.at(-1) as Point;
          return (
            <g key={first.x}>
              <polygon points={`${first.x},${HEIGHT} ${path} ${end.x},${HEIGHT}`} fill={`url(#${fill})`} />
              <polyline points={path} vectorEffect="non-scaling-stroke" />
            </g>
          );
        })}
      </svg>
      {last !== undefined && <span className="sparkline-dot" style={{ left: `${last.x}%`, top: `${(last.y / HEIGHT) * 100}%` }} />}
    </div>
  );
}
