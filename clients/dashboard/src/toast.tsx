/** Announcements of what just happened. Only news get here: `live.ts` sees to that. */

import { X } from 'lucide-react';
import { memo, useCallback, useEffect, useRef } from 'react';
import { RelativeTime, usePage } from './context.js';
import { Chip, Tile } from './icons.js';
import { usePhone } from './phone.js';
import { useStore } from './store.js';
import { dismiss, expire, nextEnd, pause, resume, TOASTS_SHOWN, TOASTS_SHOWN_PHONE, type Toast } from './toasts.js';

/** The stack: top right, at the bottom on phones. */
export function ToastStack() {
  const { live } = usePage();
  const toasts = useStore(live.toasts);
  const stack = useRef<HTMLDivElement>(null);
  const isHovered = useRef(false);
  useEffect(() => {
    const end = nextEnd(toasts);
    if (end === undefined) return undefined;
    const timer = setTimeout(() => live.toasts.update((now) => expire(now, Date.now())), Math.max(0, end - Date.now()) + 10);
    return () => clearTimeout(timer);
  }, [toasts, live]);
  useEffect(() => {
    // Nobody sees a hidden page, so its toasts wait.
    const turn = (): void => live.toasts.update((now) => (document.visibilityState === 'visible' ? resume(now, Date.now()) : pause(now, Date.now())));
    document.addEventListener('visibilitychange', turn);
    return () => document.removeEventListener('visibilitychange', turn);
  }, [live]);
  const hold = (): void => live.toasts.update((now) => pause(now, Date.now()));
  const letGo = (): void => live.toasts.update((now) => resume(now, Date.now()));
  const hover = (isOver: boolean) => (): void => {
    isHovered.current = isOver;
    (isOver ? hold : letGo)();
  };
  const close = useCallback(
    // The closed one may have been what held the time: a removed element tells nobody that the pointer or the focus left.
    (id: string) => {
      if (live.toasts.now.list.length <= 1) isHovered.current = false;
      const isHeld = moveFocus(stack.current) || isHovered.current;
      live.toasts.update((now) => (isHeld ? dismiss(now, id) : resume(dismiss(now, id), Date.now())));
    },
    [live],
  );
  const shown = usePhone() ? TOASTS_SHOWN_PHONE : TOASTS_SHOWN;
  const more = toasts.list.length - shown;
  return (
    <div ref={stack} className="toasts" role="region" aria-label="Announcements" data-testid="toasts" data-paused={toasts.pausedAt !== undefined || undefined} onPointerEnter={hover(true)} onPointerLeave={hover(false)} onFocus={hold} onBlur={letGo}>
      {toasts.list.slice(0, shown).map((toast) => (
        <ToastCard key={toast.id} toast={toast} onClose={close} />
      ))}
      {more > 0 && (
        <div className="toast-more" data-testid="toast-more">
          +{more} more
          <button
            type="button"
            className="link"
            onClick={() => {
              isHovered.current = false;
              live.toasts.update((now) => ({ ...resume(now, Date.now()), list: [] }));
            }}
          >
            Close all
          </button>
        </div>
      )}
    </div>
  );
}

/** Whoever closes one by keyboard goes on with the next one, or the one before; false where there is none, or nobody does. */
function moveFocus(stack: HTMLElement | null): boolean {
  const toast = document.activeElement?.closest('.toast') ?? null;
  if (stack === null || toast === null || !stack.contains(toast) || document.activeElement?.matches(':focus-visible') !== true) return false;
  const all = [...stack.querySelectorAll('.toast')];
  const next = all[all.indexOf(toast) + 1] ?? all[all.indexOf(toast) - 1];
  next?.querySelector<HTMLElement>('[data-testid=toast-close]')?.focus();
  return next !== undefined;
}

/** Drawn once: another announcement beside it changes nothing here. */
const ToastCard = memo(function ToastCard({ toast, onClose }: { toast: Toast; onClose: (id: string) => void }) {
  const { live } = usePage();
  const { id, opens } = toast;
  // Ages are by the server's clock, the stack's timer by this machine's.
  const skew = live.client.serverNow() - Date.now();
  const open = (): void => {
    if (opens !== undefined) live.opened.update(() => opens);
    onClose(id);
  };
  return (
    <div className="toast" role={toast.critical ? 'alert' : 'status'} data-testid="toast" data-mark={toast.mark} data-toast={id} onKeyDown={(event) => event.key === 'Escape' && onClose(id)}>
      <Tile name={toast.icon} />
      <div className="toast-text">
        <div className="toast-row">
          {opens === undefined ? <p className="toast-title">{toast.title}</p> : <button type="button" className="toast-title toast-open" data-testid="toast-open" onClick={open}>{toast.title}</button>}
          <Chip mark={toast.mark} />
        </div>
        <div className="toast-row muted">
          <p className="toast-line" title={toast.line}>{toast.line}</p>
          <RelativeTime at={toast.shownAt + skew} />
        </div>
      </div>
      <button type="button" className="icon-button icon-button-small" aria-label="Close" data-testid="toast-close" onClick={() => onClose(id)}>
        <X size={15} aria-hidden />
      </button>
    </div>
  );
});
