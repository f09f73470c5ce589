/** One live number: value, change, trend, and an honest word when it is not fresh. */

import { Info, TriangleAlert } from 'lucide-react';
import type { Metric } from 'roomcast';
import { memo, useEffect, useId, useRef, useState } from 'react';
import { useClock, usePage } from './context.js';
import { DirectionIcon } from './icons.js';
import { instant, type MetricStatus } from './metric.js';
import { isRefusal } from './reason.js';
import type { CardConfig } from './view-config.js';
import { Sparkline } from './sparkline.js';
import { useStore } from './store.js';
import { useTween } from './tween.js';

/** Age from which a number says how old it is, in milliseconds. */
const FRESH_MS = 5_000;

/** The numbers on top of a view. */
export function Cards({ cards }: { cards: readonly CardConfig[] }) {
  const { config, live } = usePage();
  const { values, statuses } = useStore(live.metrics);
  const rooms = useStore(live.rooms);
  if (cards.length === 0) return null;
  return (
    <section className="cards" aria-label="Key numbers" data-count={cards.length}>
      {cards.map((card) => {
        const room = rooms.get(card.room ?? config.metrics);
        return <Card key={card.metric} card={card} metric={values.get(card.metric)} status={statuses.get(card.metric)} loaded={room?.loaded === true} refused={isRefusal(room?.error)} />;
      })}
    </section>
  );
}

interface CardProps {
  readonly card: CardConfig;
  readonly metric: Metric | undefined;
  readonly status: MetricStatus | undefined;
  readonly loaded: boolean;
  readonly refused: boolean;
}

const Card = memo(function Card({ card, metric, status, loaded, refused }: CardProps) {
  const tinted = useTint(metric?.value);
  if (metric === undefined && !loaded) return <CardSkeleton label={card.label} metric={card.metric} />;
  const empty = metric === undefined || metric.noData || metric.number === null;
  const stalled = metric?.stalled === true;
  const state = refused && metric === undefined ? 'forbidden' : empty ? 'empty' : stalled ? 'stalled' : 'live';
  return (
    <article className="card" data-testid="card" data-metric={card.metric} data-state={state} data-value={metric?.value ?? ''} data-tint={tinted || undefined}>
      <header className="card-head">
        <h2>{card.label}</h2>
        <CardAge metric={metric} />
        <CardDetails card={card} metric={metric} status={status} />
      </header>
      <CardNumber card={card} value={empty ? null : (metric?.value ?? null)} approximate={metric?.approximate === true} />
      <div className="card-change">{state === 'forbidden' ? <span className="muted">Your roles do not include this number</span> : <Change card={card} metric={metric} empty={empty} />}</div>
      <Sparkline values={metric?.sparkline ?? []} label={`${card.label}, trend of the last ${metric?.sparkline.length ?? 0} intervals`} />
    </article>
  );
});

function CardNumber({ card, value, approximate }: { card: CardConfig; value: string | null; approximate: boolean }) {
  const { format } = usePage();
  const shown = useTween(value);
  return (
    <p className="card-number" data-testid="card-value">
      {shown === null ? <span className="card-none">–</span> : `${approximate ? '≈ ' : ''}${format.card(shown, card.format)}`}
    </p>
  );
}

function Change({ card, metric, empty }: { card: CardConfig; metric: Metric | undefined; empty: boolean }) {
  const { format } = usePage();
  if (metric === undefined || empty) return <span className="muted">No data yet</span>;
  const [start, end] = spanOf(metric);
  const versus = card.versus ?? (start !== null && end !== null ? format.before(start, end) : 'previous');
  if (metric.direction === null || metric.changePercent === null) return <span className="muted">No earlier period to compare with</span>;
  const word = { up: 'Up', down: 'Down', flat: 'Unchanged' }[metric.direction];
  return (
    <>
      <span className="change" data-direction={metric.direction}>
        <DirectionIcon direction={metric.direction} />
        <span className="sr-only">{word} </span>
        {format.change(metric.changePercent)}
      </span>
      <span className="muted">vs {versus}</span>
    </>
  );
}

/** What is wrong with the number, or how old it is. Stands in the head, so that nothing moves when it comes and goes. */
function CardAge({ metric }: { metric: Metric | undefined }) {
  const { format } = usePage();
  const asOf = instant(metric?.asOf);
  const incomplete = instant(metric?.incompleteSince);
  const since = useClock((now) => (incomplete === null ? '' : format.shortTime(incomplete, now)));
  const old = useClock((now) => (asOf === null || now - asOf <= FRESH_MS ? '' : format.time(asOf, now)));
  if (metric === undefined) return null;
  if (metric.error !== undefined) return <p className="card-age card-warning" title={metric.error}><TriangleAlert size={13} aria-hidden /> <span>{metric.error}</span></p>;
  if (incomplete !== null) return <p className="card-age card-warning"><TriangleAlert size={13} aria-hidden /> incomplete since {since}</p>;
  // Since when is not known: a window goes on, and what it is as of with it.
  if (metric.stalled) return <p className="card-age card-warning"><TriangleAlert size={13} aria-hidden /> stalled</p>;
  return old !== '' && !metric.noData ? <p className="card-age">as of {old}</p> : null;
}

/** Exact value, window, what was skipped: on hover, focus or tap. */
function CardDetails({ card, metric, status }: { card: CardConfig; metric: Metric | undefined; status: MetricStatus | undefined }) {
  const { format, live } = usePage();
  const id = useId();
  const [open, setOpen] = useState(false);
  if (metric === undefined) return null;
  const [start, end] = spanOf(metric);
  const asOf = instant(metric.asOf);
  const rows: [string, string][] = [];
  if (metric.value !== null) rows.push(['Exact value', format.exact(metric.value, card.format)]);
  if (metric.previous !== null) rows.push(['Before', format.exact(metric.previous, card.format)]);
  if (start !== null && end !== null) rows.push(['Window', format.range(start, end)]);
  rows.push(['Events', format.count(metric.events)]);
  if (asOf !== null) rows.push(['As of', format.time(asOf, live.client.serverNow())]);
  const skipped = status?.skipped ?? [];
  rows.push(['Skipped', skipped.length === 0 ? 'none' : skipped.map(([reason, count]) => `${format.count(count)} ${reason.replaceAll('_', ' ')}`).join(', ')]);
  return (
    <div className="details" onPointerEnter={(event) => event.pointerType === 'mouse' && setOpen(true)} onPointerLeave={(event) => event.pointerType === 'mouse' && setOpen(false)}>
      <button
        type="button"
        className="icon-button icon-button-small"
        aria-label={`About ${card.label}`}
        aria-describedby={open ? id : undefined}
        aria-expanded={open}
        onClick={() => setOpen(true)}
        onFocus={() => setOpen(true)}
        onBlur={() => setOpen(false)}
        onKeyDown={(event) => event.key === 'Escape' && setOpen(false)}
      >
        <Info size={15} aria-hidden />
      </button>
      {open && (
        <div className="tooltip" role="tooltip" id={id}>
          {card.definition !== undefined && <p>{card.definition}</p>}
          <dl>
            {rows.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </div>
      )}
    </div>
  );
}

/** A metric's window, in milliseconds since the Unix epoch. */
function spanOf({ window }: Metric): [start: number | null, end: number | null] {
  return [instant(window.start), instant(window.end)];
}

/** The card's shape before its number is there. */
function CardSkeleton({ label, metric }: { label: string; metric: string }) {
  return (
    <article className="card" data-testid="card" data-metric={metric} data-state="loading" aria-busy>
      <header className="card-head">
        <h2>{label}</h2>
      </header>
      <p className="card-number"><span className="skeleton skeleton-number" /></p>
      <div className="card-change"><span className="skeleton skeleton-line" /></div>
      <div className="sparkline"><span className="skeleton skeleton-block" /></div>
    </article>
  );
}

/** True for a moment after the value changed; not for the first one. */
function useTint(value: string | null | undefined): boolean {
  const before = useRef(value);
  const [tinted, setTinted] = useState(false);
  useEffect(() => {
    const first = before.current === undefined;
    const same = before.current === value;
    before.current = value;
    if (first || same) return undefined;
    setTinted(true);
    const timer = setTimeout(() => setTinted(false), 600);
    return () => clearTimeout(timer);
  }, [value]);
  return tinted;
}
