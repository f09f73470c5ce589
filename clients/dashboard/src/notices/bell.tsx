/** The bell and, behind it, the notification centre: grouped, filtered, marked one by one or all at once. */

import { Archive, ArchiveRestore, Bell, BellOff, Check, CheckCheck, Inbox, X } from 'lucide-react';
import { useEffect, useMemo, useRef, useState } from 'react';
import { createPortal } from 'react-dom';
import { RelativeTime, usePage } from '../context.js';
import { Chip } from '../icons.js';
import { Blank } from '../states.js';
import { useStore } from '../store.js';
import type { NoticeBoard } from './notices-live.js';
import { ALL, categories, count, groups, isUnread, type Filter, type Group, type Notice } from './notices.js';

/** The largest number the bell writes. */
const SHOWN_MAX = 99;

/** The bell in the bar; nothing where the page has no notifications. */
export function BellButton() {
  const { live } = usePage();
  const board = useStore(live.notices.board);
  const [open, setOpen] = useState(false);
  if (!live.notices.wanted) return null;
  const { unread, worst } = count(board.notices);
  const label = unread === 0 ? 'Notifications' : `Notifications, ${unread} unread`;
  return (
    <>
      <button type="button" className="icon-button bell" aria-label={label} aria-expanded={open} data-testid="bell" data-unread={unread} data-priority={worst} onClick={() => setOpen(true)}>
        <Bell size={18} aria-hidden />
        {unread > 0 && <span className="bell-count" aria-hidden>{unread > SHOWN_MAX ? `${SHOWN_MAX}+` : unread}</span>}
      </button>
      {open && createPortal(<Centre board={board} onClose={() => setOpen(false)} />, document.body)}
    </>
  );
}

function Centre({ board, onClose }: { board: NoticeBoard; onClose: () => void }) {
  const { live } = usePage();
  const dialog = useRef<HTMLDialogElement>(null);
  const [filter, setFilter] = useState<Filter>(ALL);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const shown = useMemo(() => groups(board.notices, filter), [board.notices, filter]);
  const unread = board.notices.filter(isUnread);
  return (
    <dialog ref={dialog} className="sheet" data-testid="centre" aria-labelledby="centre-title" onClose={onClose} onClick={(event) => event.target === event.currentTarget && onClose()}>
      <div className="sheet-body centre">
        <div className="sheet-head">
          <h2 id="centre-title">Notifications</h2>
          <button type="button" className="button button-small" data-testid="read-all" disabled={unread.length === 0} onClick={() => void live.notices.mark(unread.map(({ id }) => id), 'read')}>
            <CheckCheck size={14} aria-hidden /> Mark all read
          </button>
          <button type="button" className="icon-button" aria-label="Close" onClick={onClose}>
            <X size={18} aria-hidden />
          </button>
        </div>
        <div className="centre-filter">
          <div className="segments" role="radiogroup" aria-label="Which">
            {WHICH.map(([label, part]) => (
              <label key={label} className="segment">
                <input type="radio" name="which" checked={filter.unread === part.unread && filter.archived === part.archived} onChange={() => setFilter({ ...filter, ...part })} />
                <span>{label}</span>
              </label>
            ))}
          </div>
          <label className="select">
            <span className="sr-only">Kind</span>
            <select value={filter.category ?? ''} onChange={(event) => setFilter({ ...filter, category: event.target.value || undefined })}>
              <option value="">All kinds</option>
              {categories(board.notices).map((name) => <option key={name} value={name}>{words(name)}</option>)}
            </select>
          </label>
        </div>
        {board.why !== undefined && <p className="line-warning" role="alert">{board.why} What you see may be old.</p>}
        {board.state === 'loading' ? (
          <div className="notices" aria-busy>{[0, 1, 2].map((one) => <span key={one} className="skeleton notice-skeleton" />)}</div>
        ) : shown.length === 0 ? (
          <Blank icon={filter.unread ? BellOff : Inbox} title={filter.archived ? 'Nothing is archived' : filter.unread ? 'You have read everything' : 'No notifications'} testId="no-notices">
            <p>What concerns you appears here, on every device.</p>
          </Blank>
        ) : (
          shown.map((group) => <GroupList key={group.name} group={group} />)
        )}
      </div>
    </dialog>
  );
}

const WHICH: readonly (readonly [string, Pick<Filter, 'unread' | 'archived'>])[] = [
  ['All', { unread: false, archived: false }],
  ['Unread', { unread: true, archived: false }],
  ['Archived', { unread: false, archived: true }],
];

function GroupList({ group }: { group: Group }) {
  const { live } = usePage();
  const waiting = group.notices.filter(isUnread);
  return (
    <section className="notice-group" aria-labelledby={`group-${group.name}`} data-testid="notice-group" data-group={group.name}>
      <header>
        <h3 id={`group-${group.name}`}>{words(group.name)} <span className="muted">{group.notices.length}</span></h3>
        {waiting.length > 0 && (
          <button type="button" className="link" onClick={() => void live.notices.mark(waiting.map(({ id }) => id), 'read')}>Mark {waiting.length} read</button>
        )}
      </header>
      <ol className="notices">
        {group.notices.map((notice) => <Item key={notice.id} notice={notice} />)}
      </ol>
    </section>
  );
}

function Item({ notice }: { notice: Notice }) {
  const { live } = usePage();
  const unread = isUnread(notice);
  const title = notice.link === undefined ? notice.title : <a className="link" href={notice.link} {...(/^https?:/.test(notice.link) ? { target: '_blank', rel: 'noreferrer' } : {})}>{notice.title}</a>;
  return (
    <li className="notice" data-testid="notice" data-notice={notice.id} data-unread={unread || undefined} data-priority={notice.priority}>
      <span className="notice-dot" aria-hidden />
      <div className="notice-text">
        <p className="notice-title">{title}{unread && <span className="sr-only"> (unread)</span>}</p>
        {notice.body !== '' && <p className="muted">{notice.body}</p>}
        <p className="notice-foot"><Chip mark={notice.priority} /> <span className="muted"><RelativeTime at={notice.at} /></span></p>
      </div>
      <div className="notice-tools">
        {unread && (
          <button type="button" className="icon-button icon-button-small" aria-label={`Mark read: ${notice.title}`} title="Mark read" data-testid="read" onClick={() => void live.notices.mark([notice.id], 'read')}>
            <Check size={15} aria-hidden />
          </button>
        )}
        {notice.level !== 'archived' ? (
          <button type="button" className="icon-button icon-button-small" aria-label={`Archive: ${notice.title}`} title="Archive" data-testid="archive" onClick={() => void live.notices.mark([notice.id], 'archived')}>
            <Archive size={15} aria-hidden />
          </button>
        ) : (
          <ArchiveRestore size={15} aria-label="Archived" className="muted" />
        )}
      </div>
    </li>
  );
}

function words(name: string): string {
  const text = name.replaceAll(/[._-]/g, ' ');
  return text.charAt(0).toLocaleUpperCase() + text.slice(1);
}
