/** The bell in the bar: how much waits. Behind it, the notification centre. */

import type { NotificationsStore } from 'roomcast';
import { Bell } from 'lucide-react';
import { useState } from 'react';
import { usePage } from '../context.js';
import { later } from '../later.js';
import { useStore } from '../store.js';
import { worst } from './notices.js';

const Centre = later(() => import('./centre.js').then((part) => part.Centre));

/** The largest number the bell writes. */
const SHOWN_MAX = 99;

/** The bell; nothing where the page has no notifications. */
export function BellButton() {
  const { live } = usePage();
  return live.notices === undefined ? null : <Button notices={live.notices} />;
}

function Button({ notices }: { notices: NotificationsStore }) {
  const view = useStore(notices);
  const [open, setOpen] = useState(false);
  const { unread } = view.counters;
  const label = unread === 0 ? 'Notifications' : `Notifications, ${unread} unread`;
  return (
    <>
      <button type="button" className="icon-button bell" aria-label={label} aria-expanded={open} data-testid="bell" data-unread={unread} data-priority={worst(view)} onClick={() => setOpen(true)}>
        <Bell size={18} aria-hidden />
        {unread > 0 && <span className="bell-count" aria-hidden>{unread > SHOWN_MAX ? `${SHOWN_MAX}+` : unread}</span>}
      </button>
      {open && <Centre notices={notices} onClose={() => setOpen(false)} />}
    </>
  );
}
