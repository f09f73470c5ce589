/** Rows of a list: of a table by its columns, of a feed by what the page knows of the event's type. */

import { memo, useEffect, useLayoutEffect, useRef, useState } from 'react';
import { RelativeTime, usePage } from './context.js';
import { CommandButtons } from './command-button.js';
import type { Entry } from './entries.js';
import type { Format } from './format.js';
import { Chip, Tile } from './icons.js';
import type { PageConfig } from './page.js';
import { fill, fillPlain } from './template.js';
import type { ListConfig } from './view-config.js';

/** What a row reads like: for the search. */
export function textOf(entry: Entry, list: ListConfig, config: PageConfig, format: Format): string {
  const event = config.events.get(entry.type);
  const parts = list.columns.length > 0 ? list.columns.map(({ text, soft }) => `${fill(text, entry, format)} ${soft === undefined ? '' : fill(soft, entry, format)}`) : [fill(event?.title ?? '', entry, format), fill(event?.line ?? '', entry, format)];
  return `${parts.join(' ')} ${entry.id} ${config.marks.get(entry.mark)?.word ?? entry.mark}`;
}

/** The name of a row: what opens it says it. */
export function nameOf(entry: Entry, list: ListConfig, config: PageConfig, format: Format): string {
  const title = list.columns.find(({ role }) => role === 'title')?.text ?? config.events.get(entry.type)?.title ?? '{type}';
  return fill(title, entry, format) || entry.id;
}

interface RowProps {
  readonly entry: Entry;
  readonly list: ListConfig;
  readonly selected: boolean;
  /** It came while the reader looked. */
  readonly slides: boolean;
}

/** One row. */
export const Row = memo(function Row({ entry, list, selected, slides }: RowProps) {
  const { config, format } = usePage();
  const tint = useTouched(entry);
  const arrives = useArrives(entry.id, slides);
  const row = useRef<HTMLTableRowElement>(null);
  useLayoutEffect(() => {
    const element = row.current;
    // The element goes on to another row: the reader's place does not go with it.
    return () => {
      const { activeElement } = document;
      if (activeElement instanceof HTMLElement && element?.contains(activeElement) === true) activeElement.blur();
    };
  }, [entry.id]);
  const attributes = {
    ref: row,
    'data-testid': 'row',
    'data-row': entry.id,
    'data-mark': entry.mark,
    'data-arrives': arrives || undefined,
    'data-tint': tint || undefined,
    'data-selected': selected || undefined,
  };
  const name = nameOf(entry, list, config, format);
  const commands = list.commands.filter(({ marks }) => marks === undefined || marks.includes(entry.mark));
  const time = <td className="cell-time number muted"><RelativeTime at={entry.changedAt} /></td>;
  const chip = <td className="cell-status"><Chip mark={entry.mark} /></td>;
  const buttons = list.commands.length > 0 && (
    <td className="cell-commands"><CommandButtons key={entry.id} commands={commands} source={entry} name={name} /></td>
  );
  if (list.columns.length === 0) {
    const event = config.events.get(entry.type);
    return (
      <tr {...attributes} data-kind="feed">
        <td className="cell-title">
          <div className="title">
            <Tile name={fillPlain(event?.icon ?? '', entry)} />
            <div className="title-text">
              <button type="button" className="row-button">{name}</button>
              <span className="row-line muted">{fill(event?.line ?? '', entry, format)}</span>
            </div>
          </div>
        </td>
        {chip}
        {buttons}
        {time}
      </tr>
    );
  }
  return (
    <tr {...attributes}>
      {chip}
      {list.columns.map((column) => (
        <td key={column.label} className={`cell-${column.role}${column.role === 'amount' ? ' number' : ''}${column.role === 'soft' ? ' muted' : ''}`}>
          {column.role === 'title' ? (
            <div className="title">
              {column.icon !== undefined && <Tile name={fillPlain(column.icon, entry)} word={fillPlain(column.icon, entry)} />}
              <button type="button" className="row-button">{name}</button>
            </div>
          ) : (
            <span>{fill(column.text, entry, format) || '–'}</span>
          )}
          {column.soft !== undefined && <span className="muted"> {fill(column.soft, entry, format)}</span>}
        </td>
      ))}
      {buttons}
      {time}
    </tr>
  );
});

/** Whether the row slides in: as long as the element shows the row with which it came. */
function useArrives(id: string, slides: boolean): boolean {
  const [born] = useState({ id, slides });
  return born.slides && born.id === id;
}

/** True for 1.2 s after a live change. */
function useTouched({ id, touched }: Entry): boolean {
  const before = useRef({ id, touched });
  const [tinted, setTinted] = useState<string>();
  useEffect(() => {
    const { current } = before;
    before.current = { id, touched };
    if (current.id !== id) setTinted(undefined);
    if (current.id !== id || current.touched === touched) return undefined;
    setTinted(id);
    const timer = setTimeout(() => setTinted(undefined), 1_200);
    return () => clearTimeout(timer);
  }, [id, touched]);
  return tinted === id;
}
