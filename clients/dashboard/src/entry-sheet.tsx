/** One entry in full: its facts, what happened to it, and the event as it came. A native dialog keeps the focus. */

import { X } from 'lucide-react';
import { useEffect, useRef } from 'react';
import { WhoSees } from './admin/who-sees.js';
import { CommandButtons } from './command-button.js';
import { usePage } from './context.js';
import { CopyButton } from './copy-button.js';
import type { Entry } from './entries.js';
import { nameOf } from './entry-row.js';
import { Chip, Tile } from './icons.js';
import { useStore } from './store.js';
import { fill, fillPlain, plain } from './template.js';
import type { ListConfig } from './view-config.js';

/** The sheet of one entry. */
export function EntrySheet({ list, id }: { list: ListConfig; id: string }) {
  const { live } = usePage();
  const entry = useStore(live.entries(list.id)).byId.get(id);
  const dialog = useRef<HTMLDialogElement>(null);
  const isThere = entry !== undefined;
  useEffect(() => {
    dialog.current?.showModal();
  }, [isThere]);
  const close = (): void => live.opened.update(() => undefined);
  if (!isThere) return null;
  return (
    <dialog ref={dialog} className="sheet" data-testid="sheet" aria-labelledby="sheet-title" onClose={close} onClick={(event) => event.target === event.currentTarget && close()}>
      <SheetBody list={list} entry={entry} onClose={close} />
    </dialog>
  );
}

function SheetBody({ list, entry, onClose }: { list: ListConfig; entry: Entry; onClose: () => void }) {
  const { config, format } = usePage();
  const latest = entry.events.at(-1);
  const json = JSON.stringify(latest, null, 2);
  const name = nameOf(entry, list, config, format);
  const icon = list.columns.find((column) => column.icon !== undefined)?.icon ?? config.events.get(entry.type)?.icon ?? '';
  const columns = list.columns.filter(({ role }) => role !== 'title').map(({ label, text, soft }): [string, string] => [label, `${fill(text, entry, format)} ${soft === undefined ? '' : fill(soft, entry, format)}`.trim()]);
  const facts = columns.length > 0 ? columns : Object.entries(entry.data).map(([key, value]): [string, string] => [key.replaceAll('_', ' '), plain(value)]);
  const commands = list.commands.filter(({ marks }) => marks === undefined || marks.includes(entry.mark));
  return (
    <div className="sheet-body">
      <div className="sheet-head">
        <Tile name={fillPlain(icon, entry)} />
        <h2 id="sheet-title">{name}</h2>
        <button type="button" className="icon-button" aria-label="Close" onClick={onClose}>
          <X size={18} aria-hidden />
        </button>
      </div>
      <Chip mark={entry.mark} />
      <dl className="facts">
        {[...facts.filter(([, value]) => value !== ''), ['Room', entry.room], ['Id', list.key === undefined ? (latest?.id ?? '') : entry.id]].map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      {commands.length > 0 && <CommandButtons commands={commands} source={entry} name={name} />}
      <h3>What happened</h3>
      <ol className="timeline">
        {entry.events.map((event) => {
          const mark = fillPlain(list.mark ?? config.events.get(event.type)?.mark ?? event.type, event);
          const at = event.time === undefined ? Number.NaN : Date.parse(event.time);
          return (
            <li key={`${event.source} ${event.id}`} data-mark={mark}>
              <Chip mark={mark} />
              <span className="muted">{Number.isNaN(at) ? '' : format.full(at)}</span>
            </li>
          );
        })}
      </ol>
      <h3>
        Latest event <CopyButton text={json} label="Copy event" />
      </h3>
      <pre className="code" tabIndex={0}>{json}</pre>
      {config.admin.gateway.length > 0 && latest !== undefined && <WhoSees room={entry.room} event={latest.id} />}
    </div>
  );
}
