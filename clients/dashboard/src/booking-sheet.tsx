/** One booking in full: its facts, what happened to it, and the event as it came. A native dialog keeps the focus. */

import { Check, Copy, X } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import type { Booking } from './bookings.js';
import { usePage } from './context.js';
import { CategoryIcon, StatusChip } from './icons.js';
import { readBooking } from './bookings.js';

/** Open while there is a booking. */
export function BookingSheet({ booking, onClose }: { booking: Booking | undefined; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = booking !== undefined;
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  return (
    <dialog ref={dialog} className="sheet" data-testid="sheet" aria-labelledby="sheet-title" onClose={onClose} onClick={(event) => event.target === event.currentTarget && onClose()}>
      {booking !== undefined && <SheetBody booking={booking} onClose={onClose} />}
    </dialog>
  );
}

function SheetBody({ booking, onClose }: { booking: Booking; onClose: () => void }) {
  const { format } = usePage();
  const latest = booking.events.at(-1);
  const json = JSON.stringify(latest, null, 2);
  const facts: [string, string][] = [
    ['Customer', booking.customer],
    ['Country', format.country(booking.country)],
    ['Duration', booking.duration],
    ['Amount', format.money(booking.amount, booking.currency)],
    ['Booking', booking.id],
  ];
  return (
    <div className="sheet-body">
      <header className="sheet-head">
        <CategoryIcon category={booking.category} />
        <h2 id="sheet-title">{booking.title || booking.id}</h2>
        <button type="button" className="icon-button" aria-label="Close" onClick={onClose}>
          <X size={18} aria-hidden />
        </button>
      </header>
      <StatusChip status={booking.status} />
      <dl className="facts">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <h3>What happened</h3>
      <ol className="timeline">
        {booking.events.map((event) => {
          const read = readBooking(event);
          const at = event.time === undefined ? Number.NaN : Date.parse(event.time);
          return (
            <li key={`${event.source} ${event.id}`} data-status={read?.status}>
              {read !== undefined && <StatusChip status={read.status} />}
              <span className="muted">{Number.isNaN(at) ? '' : format.full(at)}</span>
            </li>
          );
        })}
      </ol>
      <h3>
        Latest event <CopyButton text={json} label="Copy event" />
      </h3>
      <pre className="code">{json}</pre>
    </div>
  );
}

/** Copies a text and says so. */
export function CopyButton({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => setCopied(false), 2_000);
    return () => clearTimeout(timer);
  }, [copied]);
  const copy = (): void => {
    // Refused where the page is not secure or the reader forbids it: the text stays selectable.
    navigator.clipboard?.writeText(text).then(() => setCopied(true), () => undefined);
  };
  const Icon = copied ? Check : Copy;
  return (
    <button type="button" className="button button-small" onClick={copy}>
      <Icon size={14} aria-hidden /> <span aria-live="polite">{copied ? 'Copied' : label}</span>
    </button>
  );
}
