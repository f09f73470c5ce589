/** The notification centre: grouped, filtered, marked one by one or all at once. */

import type { Notification, NotificationGroup, NotificationsStore } from 'roomcast';
import { Archive, ArchiveRestore, BellOff, Check, CheckCheck, Inbox, X } from 'lucide-react';
import { useEffect, useMemo, useRef, useState } from 'react';
import { createPortal } from 'react-dom';
import { RelativeTime } from '../context.js';
import { Chip } from '../icons.js';
import { Blank } from '../states.js';
import { useStore } from '../store.js';
import { ALL, groups, isUnread, kinds, safeLink, type Filter } from './notices.js';

/** The centre. */
export function Centre({ notices, onClose }: { notices: NotificationsStore; onClose: () => void }) {
  const view = useStore(notices);
  const dialog = useRef<HTMLDialogElement>(null);
  const [filter, setFilter] = useState<Filter>(ALL);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const shown = useMemo(() => groups(view, filter), [view, filter]);
  const unread = view.items.filter(isUnread);
  return createPortal(
    <dialog ref={dialog} className="sheet" data-testid="centre" aria-labelledby="centre-title" onClose={onClose} onClick={(event) => event.target === event.currentTarget && onClose()}>
      <div className="sheet-body centre">
        <div className="sheet-head">
          <h2 id="centre-title">Notifications</h2>
          <button type="button" className="button button-small" data-testid="read-all" disabled={unread.length === 0} onClick={() => notices.mark(unread.map(({ id }) => id), 'read')}>
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
            <select value={filter.kind ?? ''} onChange={(event) => setFilter({ ...filter, kind: event.target.value || undefined })}>
              <option value="">All kinds</option>
              {kinds(view).map((name) => <option key={name} value={name}>{words(name)}</option>)}
            </select>
          </label>
        </div>
        {view.error !== undefined && <p className="line-warning" role="alert">{view.error.message} What you see may be old.</p>}
        {!view.loaded ? (
          <div className="notices" aria-busy>{[0, 1, 2].map((one) => <span key={one} className="skeleton notice-skeleton" />)}</div>
        ) : shown.length === 0 ? (
          <Blank icon={filter.unread ? BellOff : Inbox} title={filter.archived ? 'Nothing is archived' : filter.unread ? 'You have read everything' : 'No notifications'} testId="no-notices">
            <p>What concerns you appears here, on every device.</p>
          </Blank>
        ) : (
          shown.map((group) => <GroupList key={group.name} notices={notices} group={group} />)
        )}
      </div>
    </dialog>,
    document.body,
  );
}

const WHICH: readonly (readonly [string, Pick<Filter, 'unread' | 'archived'>])[] = [
  ['All', { unread: false, archived: false }],
  ['Unread', { unread: true, archived: false }],
  ['Archived', { unread: false, archived: true }],
];

function GroupList({ notices, group }: { notices: NotificationsStore; group: NotificationGroup }) {
  const waiting = group.items.filter(isUnread);
  return (
    <section className="notice-group" aria-labelledby={`group-${group.name}`} data-testid="notice-group" data-group={group.name}>
      <header>
        <h3 id={`group-${group.name}`}>{words(group.name)} <span className="muted">{group.items.length}</span></h3>
        {waiting.length > 0 && (
          <button type="button" className="link" onClick={() => notices.mark(waiting.map(({ id }) => id), 'read')}>Mark {waiting.length} read</button>
        )}
      </header>
      <ol className="notices">
        {group.items.map((notice) => <Item key={notice.id} notices={notices} notice={notice} />)}
      </ol>
    </section>
  );
}

function Item({ notices, notice }: { notices: NotificationsStore; notice: Notification }) {
  const unread = isUnread(notice);
  const link = safeLink(notice.link);
  const title = link === undefined ? notice.title : <a className="link" href={link} {...(/^https?:/.test(link) ? { target: '_blank', rel: 'noreferrer' } : {})}>{notice.title}</a>;
  return (
    <li className="notice" data-testid="notice" data-notice={notice.id} data-unread={unread || undefined} data-priority={notice.priority}>
      <span className="notice-dot" aria-hidden />
      <div className="notice-text">
        <p className="notice-title">{title}{unread && <span className="sr-only"> (unread)</span>}</p>
        {notice.body !== undefined && <p className="muted">{notice.body}</p>}
        <p className="notice-foot"><Chip mark={notice.priority} /> <span className="muted"><RelativeTime at={notice.time} /></span></p>
      </div>
      <div className="notice-tools">
        {unread && (
          <button type="button" className="icon-button icon-button-small" aria-label={`Mark read: ${notice.title}`} title="Mark read" data-testid="read" onClick={() => notices.mark([notice.id], 'read')}>
            <Check size={15} aria-hidden />
          </button>
        )}
        {notice.mark !== 'archived' ? (
          <button type="button" className="icon-button icon-button-small" aria-label={`Archive: ${notice.title}`} title="Archive" data-testid="archive" onClick={() => notices.mark([notice.id], 'archived')}>
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
