/**
 * A live list. Rows change where they stand; new ones come in at the top while the reader is there. However long it is,
 * only the rows on the screen are in the document.
 */

import { ArrowUp, Search } from 'lucide-react';
import { useCallback, useDeferredValue, useEffect, useMemo, useRef, useState, type CSSProperties } from 'react';
import { usePage } from './context.js';
import { select, type Entry } from './entries.js';
import { Row, textOf } from './entry-row.js';
import { markOf, type CommandConfig } from './page.js';
import { usePhone } from './phone.js';
import { usePast } from './range.js';
import { useSlots } from './row-slots.js';
import { useRowsOnScreen } from './rows-on-screen.js';
import { EmptyList, Forbidden, NoMatch, RoomTrouble } from './states.js';
import { useStore } from './store.js';
import type { ListConfig } from './view-config.js';

/** Height of a row, in pixels: of a table, of a feed, and of both on a phone, where a row has several lines. */
const HEIGHT = { table: 44, feed: 52 };
const HEIGHT_PHONE = { table: 104, feed: 76 };

/** The list with its filter. `first` = its search is the one that `/` goes to. */
export function EntryList({ list, first }: { list: ListConfig; first: boolean }) {
  const { config, live, format } = usePage();
  const entries = useStore(live.entries(list.id));
  const opened = useStore(live.opened);
  const [search, setSearch] = useState('');
  const [mark, setMark] = useState<string>();
  const words = useDeferredValue(search);
  // A table shows what there is, a feed what happened: only that has a time to look at.
  const { since } = usePast();
  const from = list.key === undefined ? since : undefined;
  const all = useMemo(() => select(entries, { search: words, mark, since: from }, (entry) => textOf(entry, list, config, format)), [entries, words, mark, from, list, config, format]);
  const { sentinel, rows, waiting, release } = useHeld(all);
  const open = useCallback((id: string) => live.opened.update(() => ({ list: list.id, id })), [live, list.id]);
  const filtered = words !== '' || mark !== undefined || (from !== undefined && entries.order.length > 0);
  const clear = (): void => {
    setSearch('');
    setMark(undefined);
  };
  return (
    <section className="panel list" aria-labelledby={`${list.id}-title`} data-testid="list" data-list={list.id}>
      <header className="panel-head">
        <h2 id={`${list.id}-title`}>{list.title}</h2>
        <label className="search">
          <Search size={15} aria-hidden />
          <span className="sr-only">Filter: {list.title}</span>
          <input id={first ? 'filter' : undefined} type="search" placeholder="Filter" value={search} onChange={(event) => setSearch(event.target.value)} autoComplete="off" spellCheck={false} />
          {first && <kbd aria-hidden>/</kbd>}
        </label>
        {list.filters.length > 0 && (
          <div className="segments" role="radiogroup" aria-label="State">
            {[undefined, ...list.filters].map((value) => (
              <label key={value ?? ''} className="segment">
                <input type="radio" name={`${list.id}-mark`} checked={mark === value} onChange={() => setMark(value)} />
                <span>{value === undefined ? 'All' : markOf(config, value).word}</span>
              </label>
            ))}
          </div>
        )}
      </header>
      <div ref={sentinel} className="sentinel" />
      {waiting > 0 && (
        <button type="button" className="held" data-testid="held" onClick={release}>
          <ArrowUp size={14} aria-hidden /> {waiting} new
        </button>
      )}
      {rows.length > 0 ? <Table list={list} rows={rows} onOpen={open} openId={opened?.list === list.id ? opened.id : undefined} /> : <Nothing list={list} filtered={filtered} onClear={clear} />}
    </section>
  );
}

/** Why there are no rows. */
function Nothing({ list, filtered, onClear }: { list: ListConfig; filtered: boolean; onClear: () => void }) {
  const { live } = usePage();
  const views = useStore(live.rooms);
  const names = [...live.roomsOf(list.id)];
  const rooms = names.map((name) => views.get(name));
  if (names.length === 0) return <Forbidden what={list.title} />;
  if (rooms.some((room) => room === undefined || !room.loaded)) return <TableSkeleton />;
  const errors = rooms.map((room) => room?.error).filter((error) => error !== undefined && !error.isAuth);
  const [error] = errors;
  if (error !== undefined && errors.length === rooms.length) return error.temporary ? <RoomTrouble error={error} /> : <Forbidden what={list.title} />;
  return filtered ? <NoMatch noun={list.noun} onClear={onClear} /> : <EmptyList list={list} />;
}

function Table({ list, rows, onOpen, openId }: { list: ListConfig; rows: readonly Entry[]; onOpen: (id: string) => void; openId: string | undefined }) {
  const table = useRef<HTMLTableElement>(null);
  // Rows that are there when the table appears do not slide in; only those that come later.
  const settled = useRef(false);
  useEffect(() => {
    settled.current = true;
  }, []);
  const kind = list.columns.length > 0 ? 'table' : 'feed';
  const height = (usePhone() ? HEIGHT_PHONE : HEIGHT)[kind];
  const { first, end } = useRowsOnScreen(table, rows.length, height);
  const columns = list.columns.length > 0;
  const shown = rows.slice(first, end);
  const slides = (index: number): boolean => settled.current && first + index < 5;
  const slots = useSlots(shown.map(({ id }) => id), slides);
  return (
    <table ref={table} className="entries" data-testid="entries" data-kind={kind} data-commands={list.commands.length > 0 || undefined} aria-rowcount={rows.length + 1} style={{ '--row': `${height}px` } as CSSProperties}>
      <colgroup>
        {columns && <col className="col-status" />}
        {list.columns.map(({ label, role }) => <col key={label} className={`col-${role}`} />)}
        {!columns && <><col /><col className="col-status" /></>}
        {list.commands.length > 0 && <col style={{ width: commandsWidth(list.commands) }} />}
        <col className="col-time" />
      </colgroup>
      <thead className={columns ? undefined : 'sr-only'}>
        <tr>
          {columns ? (
            <>
              <th scope="col">Status</th>
              {list.columns.map(({ label, role }) => <th key={label} scope="col" className={`head-${role}${role === 'amount' ? ' number' : ''}`}>{label}</th>)}
            </>
          ) : (
            <><th scope="col">What</th><th scope="col">Status</th></>
          )}
          {list.commands.length > 0 && <th scope="col"><span className="sr-only">Commands</span></th>}
          <th scope="col" className="number">Time</th>
        </tr>
      </thead>
      <tbody onClick={(event) => {
        const id = rowOf(event.target);
        if (id !== undefined) onOpen(id);
      }}>
        {first > 0 && <tr className="spacer" aria-hidden><td style={{ height: first * height }} /></tr>}
        {shown.map((entry, index) => <Row key={slots[index]} entry={entry} list={list} selected={entry.id === openId} slides={slides(index)} />)}
        {end < rows.length && <tr className="spacer" aria-hidden><td style={{ height: (rows.length - end) * height }} /></tr>}
      </tbody>
    </table>
  );
}

/** The row that a click means: anywhere but on its commands. By the keyboard its name is the button. */
function rowOf(target: EventTarget): string | undefined {
  if (!(target instanceof Element) || target.closest('.cell-commands') !== null || getSelection()?.isCollapsed === false) return undefined;
  return target.closest<HTMLElement>('[data-row]')?.dataset['row'];
}

/** Width of the buttons that may stand in one row, in pixels: by their letters, with room for what they look like. */
function commandsWidth(commands: readonly CommandConfig[]): number {
  const marks = new Set(commands.flatMap(({ marks: only }) => only ?? []));
  const together = (mark?: string): number => commands.filter(({ marks: only }) => only === undefined || (mark !== undefined && only.includes(mark))).reduce((sum, { label }) => sum + Math.max(label.length, 9) * 7.4 + 32, 0);
  return 20 + Math.max(together(), ...[...marks].map(together));
}

function TableSkeleton() {
  return (
    <div className="table-skeleton" role="status" aria-busy aria-label="Loading">
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

/** Keeps new rows back while the reader has scrolled into the list, so that nothing moves under the eyes. */
function useHeld(all: readonly Entry[]): { sentinel: React.RefObject<HTMLDivElement | null>; rows: readonly Entry[]; waiting: number; release: () => void } {
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
  const rows = useMemo(() => (cutoff === undefined ? all : all.filter((entry) => entry.createdAt <= cutoff)), [all, cutoff]);
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
