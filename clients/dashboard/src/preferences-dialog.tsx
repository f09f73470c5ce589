/** How the reader wants to be told, on every device: what is muted, quiet hours, sounds, the desktop. The server keeps it. */

import { ChevronRight, X } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import type { Preferences, PreferencesChange } from 'roomcast';
import { usePage } from './context.js';
import { useStore } from './store.js';
import { families, readable, wordOfRoom, wordOfType } from './words.js';

/** What quiet hours begin with. */
const NIGHT = { from: '22:00', to: '07:00' };

/** So many rooms of one kind are folded into one line. */
const FAMILY_LEAST = 4;

/** The dialog. */
export function PreferencesDialog({ onClose }: { onClose: () => void }) {
  const { live } = usePage();
  const { loaded, error, preferences } = useStore(live.preferences);
  const dialog = useRef<HTMLDialogElement>(null);
  const [refused, setRefused] = useState<string>();
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const set = (change: PreferencesChange): void => {
    setRefused(undefined);
    live.preferences.set(change).catch((thrown: unknown) => setRefused(thrown instanceof Error ? thrown.message : String(thrown)));
  };
  return (
    <dialog ref={dialog} className="dialog" data-testid="preferences" aria-labelledby="preferences-title" onClose={onClose} onClick={(event) => event.target === event.currentTarget && onClose()}>
      <div className="preferences">
        <div className="preferences-head">
          <h2 id="preferences-title">What is announced</h2>
          <button type="button" className="icon-button" aria-label="Close" onClick={onClose}><X size={18} aria-hidden /></button>
          <p className="muted">On all your devices. What is muted is in lists and behind the bell all the same.</p>
        </div>
        {(refused ?? error?.message) !== undefined && <p className="line-warning" role="alert">{refused ?? error?.message}</p>}
        <fieldset disabled={!loaded || error !== undefined} aria-busy={!loaded}>
          <section>
            <h3>How</h3>
            <Switch name="sounds" label="Sounds" on={preferences.sounds !== false} onChange={(on) => set({ sounds: on ? null : false })} />
            <Switch name="desktop" label="Notifications outside of the page" on={preferences.desktop !== false} onChange={(on) => set({ desktop: on ? null : false })} />
            <Quiet quiet={preferences.quiet} onChange={(quiet) => set({ quiet })} />
          </section>
          <Muted mute={preferences.mute} onChange={(mute) => set({ mute })} />
        </fieldset>
      </div>
    </dialog>
  );
}

function Switch({ name, label, on, onChange }: { name: string; label: string; on: boolean; onChange: (on: boolean) => void }) {
  return (
    <label className="menu-item">
      {label}
      <input type="checkbox" role="switch" data-testid={`prefer-${name}`} checked={on} onChange={(event) => onChange(event.target.checked)} />
    </label>
  );
}

/** Hours of each day in which nothing is announced, by the reader's own clock. */
function Quiet({ quiet, onChange }: { quiet: Preferences['quiet']; onChange: (quiet: Preferences['quiet'] | null) => void }) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const change = (part: Partial<typeof NIGHT>): void => onChange({ ...NIGHT, zone, ...quiet, ...part });
  return (
    <>
      <Switch name="quiet" label="Quiet hours" on={quiet !== undefined} onChange={(on) => onChange(on ? { ...NIGHT, zone } : null)} />
      {quiet !== undefined && (
        <p className="preferences-hours">
          {(['from', 'to'] as const).map((end) => (
            <label key={end}>
              <span className="muted">{end}</span> <input type="time" required data-testid={`quiet-${end}`} value={quiet[end]} onChange={(event) => event.target.value !== '' && change({ [end]: event.target.value })} />
            </label>
          ))}
          <span className="muted">{quiet.zone.replaceAll('_', ' ')}</span>
        </p>
      )}
    </>
  );
}

/** Kinds and rooms of which nothing is announced. */
function Muted({ mute, onChange }: { mute: Preferences['mute']; onChange: (mute: Preferences['mute'] | null) => void }) {
  const { config, live } = usePage();
  const { types, rooms } = mute ?? { types: [], rooms: [] };
  const kinds = [...config.events].filter(([type, { toast }]) => toast || types.includes(type)).map(([type]) => type);
  const places = [...new Set([...live.roomsOfLists(), ...(config.notifications === undefined ? [] : [config.notifications]), ...rooms])];
  const turn = (list: readonly string[], names: readonly string[], on: boolean): string[] => [...list.filter((one) => !names.includes(one)), ...(on ? [] : names)];
  const change = (next: NonNullable<Preferences['mute']>): void => onChange(next.types.length + next.rooms.length === 0 ? null : next);
  const changeRooms = (names: readonly string[], on: boolean): void => change({ types, rooms: turn(rooms, names, on) });
  return (
    <>
      {kinds.length > 0 && (
        <section>
          <h3>Kinds</h3>
          {kinds.map((type) => <Switch key={type} name={type} label={wordOfType(config, type)} on={!types.includes(type)} onChange={(on) => change({ types: turn(types, [type], on), rooms })} />)}
        </section>
      )}
      <section>
        <h3>Rooms</h3>
        {families(places, FAMILY_LEAST).map(({ name, rooms: own }) => {
          const one = (room: string) => <Switch key={room} name={room} label={wordOfRoom(config, room)} on={!rooms.includes(room)} onChange={(on) => changeRooms([room], on)} />;
          if (name === undefined) return own.map(one);
          const heard = own.filter((room) => !rooms.includes(room)).length;
          return (
            <details key={name} className="preferences-family" data-testid={`family-${name}`}>
              <summary>
                <ChevronRight size={16} aria-hidden />
                <span>{(config.rooms.get(`${name}.*`) ?? readable(name)).replaceAll('*', '').trim()}</span>
                <span className="muted">{heard === own.length ? `all ${own.length}` : heard === 0 ? 'none' : `${heard} of ${own.length}`}</span>
              </summary>
              <Switch name={`${name}.*`} label="All of them" on={heard === own.length} onChange={(on) => changeRooms(own, on)} />
              {own.map(one)}
            </details>
          );
        })}
      </section>
    </>
  );
}
