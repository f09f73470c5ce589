/** The live list of bookings. Rows change where they stand; new ones come in at the top while the reader is there. */

import { ArrowUp, Search } from 'lucide-react';
import { memo, useDeferredValue, useEffect, useMemo, useRef, useState } from 'react';
import { select, type Booking, type BookingStatus } from './bookings.js';
import { BookingSheet } from './booking-sheet.js';
import { RelativeTime, usePage } from './context.js';
import { CategoryIcon, StatusChip } from './icons.js';
import { EmptyBookings, Forbidden, NoMatch, RoomTrouble } from './states.js';
import { useStore } from './store.js';

const FILTERS: readonly (readonly [BookingStatus | 'all', string])[] = [
  ['all', 'All'],
  ['new', 'New'],
  ['confirmed', 'Confirmed'],
  ['cancelled', 'Cancelled'],
];

/** The list with its filter and the sheet for one booking. */
export function Bookings() {
  const { live } = usePage();
  const list = useStore(live.bookings);
  const room = useStore(live.eventsRoom);
  const [search, setSearch] = useState('');
  const [status, setStatus] = useState<BookingStatus | 'all'>('all');
  const [openId, setOpenId] = useState<string>();
  const words = useDeferredValue(search);
  const all = useMemo(() => select(list, words, status), [list, words, status]);
  const { sentinel, rows, waiting, release } = useHeld(all);
  const open = openId === undefined ? undefined : list.byId.get(openId);
  const filtered = words !== '' || status !== 'all';
  return (
    <section className="panel" aria-labelledby="bookings-title">
      <header className="panel-head">
        <h2 id="bookings-title">Latest bookings</h2>
        <label className="search">
          <Search size={15} aria-hidden />
          <span className="sr-only">Filter bookings</span>
          <input id="filter" type="search" placeholder="Filter" value={search} onChange={(event) => setSearch(event.target.value)} autoComplete="off" spellCheck={false} />
          <kbd aria-hidden>/</kbd>
        </label>
        <div className="segments" role="radiogroup" aria-label="Status">
          {FILTERS.map(([value, label]) => (
            <label key={value} className="segment">
              <input type="radio" name="status" value={value} checked={status === value} onChange={() => setStatus(value)} />
              <span>{label}</span>
            </label>
          ))}
        </div>
      </header>
      <div ref={sentinel} className="sentinel" />
      {waiting > 0 && (
        <button type="button" className="held" data-testid="held" onClick={release}>
          <ArrowUp size={14} aria-hidden /> {waiting} new
        </button>
      )}
      {rows.length > 0 ? (
        <Table rows={rows} onOpen={setOpenId} openId={openId} />
      ) : !room.loaded ? (
        <TableSkeleton />
      ) : room.error !== undefined && !room.error.isAuth ? (
        room.error.temporary ? <RoomTrouble error={room.error} /> : <Forbidden room="bookings" />
      ) : filtered ? (
        <NoMatch onClear={() => { setSearch(''); setStatus('all'); }} />
      ) : (
        <EmptyBookings />
      )}
      <BookingSheet booking={open} onClose={() => setOpenId(undefined)} />
    </section>
  );
}

function Table({ rows, onOpen, openId }: { rows: readonly Booking[]; onOpen: (id: string) => void; openId: string | undefined }) {
  // Rows that are there when the table appears do not slide in; only those that come later.
  const settled = useRef(false);
  useEffect(() => {
    settled.current = true;
  }, []);
  return (
    <table className="bookings" data-testid="bookings">
      <thead>
        <tr>
          <th scope="col">Status</th>
          <th scope="col">Booking</th>
          <th scope="col">Customer</th>
          <th scope="col">Duration</th>
          <th scope="col" className="number">Amount</th>
          <th scope="col" className="number">Time</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((booking) => (
          <Row key={booking.id} booking={booking} onOpen={onOpen} selected={booking.id === openId} slides={settled.current} />
        ))}
      </tbody>
    </table>
  );
}

const Row = memo(function Row({ booking, onOpen, selected, slides }: { booking: Booking; onOpen: (id: string) => void; selected: boolean; slides: boolean }) {
  const { format } = usePage();
  const tint = useTouched(booking.touched);
  const [arrives] = useState(slides);
  return (
    <tr data-testid="booking" data-booking={booking.id} data-status={booking.status} data-arrives={arrives || undefined} data-tint={tint || undefined} data-selected={selected || undefined}>
      <td className="cell-status"><StatusChip status={booking.status} /></td>
      <td className="cell-title">
        <CategoryIcon category={booking.category} />
        <button type="button" className="row-button" onClick={() => onOpen(booking.id)}>{booking.title || booking.id}</button>
      </td>
      <td className="cell-customer">
        <span>{booking.customer}</span>
        <span className="muted"> {format.country(booking.country)}</span>
      </td>
      <td className="cell-duration muted">{booking.duration}</td>
      <td className="cell-amount number">{format.money(booking.amount, booking.currency)}</td>
      <td className="cell-time number muted"><RelativeTime at={booking.changedAt} /></td>
    </tr>
  );
});

function TableSkeleton() {
  return (
    <div className="table-skeleton" aria-busy aria-label="Loading bookings">
      {Array.from({ length: 8 }, (_, index) => (
        <div key={index}>
          <span className="skeleton" />
          <span className="skeleton" />
          <span className="skeleton" />
          <span className="skeleton" />
        </div>
      ))}
    </div>
  );
}

/** True for 1.2 s after a live change. */
function useTouched(touched: number): boolean {
  const before = useRef(touched);
  const [tint, setTint] = useState(false);
  useEffect(() => {
    if (before.current === touched) return undefined;
    before.current = touched;
    setTint(true);
    const timer = setTimeout(() => setTint(false), 1_200);
    return () => clearTimeout(timer);
  }, [touched]);
  return tint;
}

/** Keeps new rows back while the reader has scrolled into the list, so that nothing moves under the eyes. */
function useHeld(all: readonly Booking[]): { sentinel: React.RefObject<HTMLDivElement | null>; rows: readonly Booking[]; waiting: number; release: () => void } {
  const sentinel = useRef<HTMLDivElement>(null);
  const newest = useRef(0);
  const [cutoff, setCutoff] = useState<number>();
  useEffect(() => {
    const element = sentinel.current;
    if (element === null) return undefined;
    const observer = new IntersectionObserver(
      ([entry]) => {
        if (entry === undefined) return;
        // Below the screen the reader is above the list, which is as good as at its top.
        const inside = !entry.isIntersecting && entry.boundingClientRect.top < 100;
        setCutoff((before) => (inside ? (before ?? newest.current) : undefined));
      },
      // The bar at the top covers that much.
      { rootMargin: '-64px 0px 0px 0px' },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    newest.current = Math.max(newest.current, all[0]?.createdAt ?? 0);
  }, [all]);
  const rows = useMemo(() => (cutoff === undefined ? all : all.filter((booking) => booking.createdAt <= cutoff)), [all, cutoff]);
  return {
    sentinel,
    rows,
    waiting: all.length - rows.length,
    release: () => {
      setCutoff(undefined);
      sentinel.current?.scrollIntoView({ block: 'center', behavior: 'auto' });
    },
  };
}
