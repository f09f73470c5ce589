/** Rows of a list: of a table by its columns, of a feed by what the page knows of the event's type. */

import { memo, useEffect, useRef, useState } from 'react';
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
  readonly onOpen: (id: string) => void;
  readonly selected: boolean;
  /** It came while the reader looked. */
  readonly slides: boolean;
}

/** One row. */
export const Row = memo(function Row({ entry, list, onOpen, selected, slides }: RowProps) {
  const { config, format } = usePage();
  const tint = useTouched(entry.touched);
  const [arrives] = useState(slides);
  const attributes = {
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
    <td className="cell-commands"><CommandButtons commands={commands} source={entry} name={name} /></td>
  );
  if (list.columns.length === 0) {
    const event = config.events.get(entry.type);
    return (
      <tr {...attributes} data-kind="feed">
        <td className="cell-title">
          <div className="title">
            <Tile name={fillPlain(event?.icon ?? '', entry)} />
            <div className="title-text">
              <button type="button" className="row-button" onClick={() => onOpen(entry.id)}>{name}</button>
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
              <button type="button" className="row-button" onClick={() => onOpen(entry.id)}>{name}</button>
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
