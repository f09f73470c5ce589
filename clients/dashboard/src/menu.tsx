/** Theme and sign-out, behind one button; and the list of keys. */

import { BellRing, Keyboard, LogOut, Monitor, Moon, Settings, SlidersHorizontal, Sun, Volume2, VolumeX } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { usePage } from './context.js';
import { later } from './later.js';
import type { Place } from './places.js';
import { choose, settings } from './settings.js';
import { askForDesktop, play } from './speak.js';
import { useStore } from './store.js';
import { readTheme, storeTheme, type Theme } from './theme.js';
import { readable } from './words.js';

const PreferencesDialog = later(() => import('./preferences-dialog.js').then((part) => part.PreferencesDialog));

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
  const [preferring, setPreferring] = useState(false);
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
          <Sounds />
          <Desktop />
          <button type="button" className="menu-item" data-testid="open-preferences" onClick={() => { setOpen(false); setPreferring(true); }}><SlidersHorizontal size={16} aria-hidden /> What is announced</button>
          <button type="button" className="menu-item" onClick={() => { setOpen(false); onKeys(); }}><Keyboard size={16} aria-hidden /> Keys <kbd>?</kbd></button>
          <button type="button" className="menu-item" onClick={onSignOut} data-testid="sign-out"><LogOut size={16} aria-hidden /> Sign out</button>
        </div>
      )}
      {preferring && <PreferencesDialog onClose={() => setPreferring(false)} />}
    </div>
  );
}

/** Sounds: off until wished; a click on the switch is also what the browser waits for. */
function Sounds() {
  const { sounds, volume } = useStore(settings);
  const Icon = sounds ? Volume2 : VolumeX;
  return (
    <div className="menu-sounds">
      <label className="menu-item">
        <Icon size={16} aria-hidden /> Sounds
        <input type="checkbox" role="switch" data-testid="sounds" checked={sounds} onChange={(event) => { choose({ sounds: event.target.checked }); if (event.target.checked) play('info', volume); }} />
      </label>
      {sounds && (
        <>
          <label className="menu-volume">
            <span className="sr-only">Volume</span>
            <input type="range" min="0" max="1" step="0.05" value={volume} data-testid="volume" onChange={(event) => choose({ volume: Number(event.target.value) })} />
          </label>
          <div className="menu-tries">
            {(['info', 'success', 'alert'] as const).map((sound) => <button key={sound} type="button" className="button button-small" data-testid={`try-${sound}`} onClick={() => play(sound, volume)}>{readable(sound)}</button>)}
          </div>
        </>
      )}
    </div>
  );
}

/** Desktop notifications: permission is asked for only by this click. */
function Desktop() {
  const { desktop } = useStore(settings);
  const [refused, setRefused] = useState(false);
  const change = async (wanted: boolean): Promise<void> => {
    const allowed = !wanted || (await askForDesktop());
    setRefused(!allowed);
    choose({ desktop: wanted && allowed });
  };
  return (
    <>
      <label className="menu-item">
        <BellRing size={16} aria-hidden /> Desktop notifications
        <input type="checkbox" role="switch" data-testid="desktop" checked={desktop} onChange={(event) => void change(event.target.checked)} />
      </label>
      {refused && <p className="menu-note" role="status">The browser does not allow them here. Allow notifications for this page in its settings.</p>}
    </>
  );
}

/** The keys, as a dialog. */
export function Keys({ places, open, onClose }: { places: readonly Place[];  open: boolean; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  const keys: [string[], string][] = [
    [['/'], 'Filter the list'],
    ...places.map((view): [string[], string] => [['g', view.key], `Go to ${view.label}`]),
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
