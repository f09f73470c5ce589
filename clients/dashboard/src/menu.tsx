/** Theme and sign-out, behind one button; and the list of keys. */

import { Keyboard, LogOut, Monitor, Moon, Settings, Sun } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { usePage } from './context.js';
import { VIEWS } from './page.js';
import { useStore } from './store.js';
import { readTheme, storeTheme, type Theme } from './theme.js';

const THEMES = [
  ['system', 'System', Monitor],
  ['light', 'Light', Sun],
  ['dark', 'Dark', Moon],
] as const;

/** The menu in the top bar. */
export function Menu({ onSignOut, onKeys }: { onSignOut: () => void; onKeys: () => void }) {
  const { live } = usePage();
  const { session } = useStore(live.connection);
  const [open, setOpen] = useState(false);
  const [theme, setTheme] = useState<Theme>(readTheme);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return undefined;
    const outside = (event: Event): void => {
      if (!(event.target instanceof Node) || box.current?.contains(event.target) !== true) setOpen(false);
    };
    const escape = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape') return;
      setOpen(false);
      box.current?.querySelector('button')?.focus();
    };
    document.addEventListener('pointerdown', outside);
    document.addEventListener('focusin', outside);
    document.addEventListener('keydown', escape);
    return () => {
      document.removeEventListener('pointerdown', outside);
      document.removeEventListener('focusin', outside);
      document.removeEventListener('keydown', escape);
    };
  }, [open]);
  const choose = (next: Theme): void => {
    storeTheme(next);
    setTheme(next);
  };
  return (
    <div className="menu" ref={box}>
      <button type="button" className="icon-button" aria-label="Settings" aria-expanded={open} onClick={() => setOpen(!open)} data-testid="menu">
        <Settings size={18} aria-hidden />
      </button>
      {open && (
        <div className="menu-panel">
          {session !== undefined && <p className="menu-user">{session.user} <span className="muted">{session.roles.join(', ')}</span></p>}
          <div className="segments" role="radiogroup" aria-label="Theme">
            {THEMES.map(([value, label, Icon]) => (
              <label key={value} className="segment">
                <input type="radio" name="theme" value={value} checked={theme === value} onChange={() => choose(value)} />
                <span><Icon size={14} aria-hidden /> {label}</span>
              </label>
            ))}
          </div>
          <button type="button" className="menu-item" onClick={() => { setOpen(false); onKeys(); }}><Keyboard size={16} aria-hidden /> Keys <kbd>?</kbd></button>
          <button type="button" className="menu-item" onClick={onSignOut} data-testid="sign-out"><LogOut size={16} aria-hidden /> Sign out</button>
        </div>
      )}
    </div>
  );
}

/** The keys, as a dialog. */
export function Keys({ open, onClose }: { open: boolean; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  const keys: [string[], string][] = [
    [['/'], 'Filter the list'],
    ...VIEWS.map((view): [string[], string] => [['g', view.key], `Go to ${view.label}`]),
    [['?'], 'Show these keys'],
    [['Esc'], 'Close what is open'],
  ];
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="keys-title" onClose={onClose} onClick={(event) => event.target === event.currentTarget && onClose()}>
      <div className="dialog-body">
        <h2 id="keys-title">Keys</h2>
        <dl className="facts">
          {keys.map(([names, what]) => (
            <div key={what}>
              <dt>{what}</dt>
              <dd>{names.map((name) => <kbd key={name}>{name}</kbd>)}</dd>
            </div>
          ))}
        </dl>
        <button type="button" className="button" onClick={onClose}>Close</button>
      </div>
    </dialog>
  );
}
