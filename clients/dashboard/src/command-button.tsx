/** Buttons that give commands: what is under way, what came of it, and again if it failed. */

import { Check, Clock3, LoaderCircle, TriangleAlert } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { give, newKey, type Outcome } from './commands.js';
import { usePage } from './context.js';
import type { CommandConfig } from './page.js';
import { fillData, type Source } from './template.js';

/** How long "done" is said, in milliseconds. */
const DONE_MS = 3_000;

/** Some commands side by side; `name` is what they are about, for those who do not see where they stand. */
export function CommandButtons({ commands, source, name }: { commands: readonly CommandConfig[]; source: Source; name?: string | undefined }) {
  return (
    <span className="commands">
      {commands.map((command) => (
        <CommandButton key={command.label} command={command} source={source} about={name} />
      ))}
    </span>
  );
}

function CommandButton({ command, source, about }: { command: CommandConfig; source: Source; about: string | undefined }) {
  const { live } = usePage();
  const [outcome, setOutcome] = useState<Outcome>();
  // One key until it is known what came of it: pressing again after a failure is the same command.
  const key = useRef<string>(undefined);
  const there = useRef(true);
  useEffect(() => {
    there.current = true;
    return () => {
      there.current = false;
    };
  }, []);
  useEffect(() => {
    if (outcome?.state !== 'done') return undefined;
    const timer = setTimeout(() => setOutcome(undefined), DONE_MS);
    return () => clearTimeout(timer);
  }, [outcome]);
  const press = async (): Promise<void> => {
    if (outcome?.state === 'pending' || outcome?.state === 'waiting') return;
    key.current ??= newKey();
    setOutcome({ state: live.client.connection.status === 'live' ? 'pending' : 'waiting' });
    const came = await give(live.client, command.name, fillData(command.data, source), key.current);
    if (came.state !== 'failed' || !came.again) key.current = undefined;
    if (there.current) setOutcome(came);
  };
  const again = outcome?.state === 'failed' && outcome.again;
  const Icon = outcome?.state === 'waiting' ? Clock3 : outcome?.state === 'pending' ? LoaderCircle : outcome?.state === 'done' ? Check : outcome?.state === 'failed' ? TriangleAlert : undefined;
  const word = again ? 'Try again' : command.label;
  return (
    <span className="command" data-testid="command" data-command={command.name} data-state={outcome?.state ?? 'idle'}>
      <button type="button" className="button button-small" aria-busy={outcome?.state === 'pending'} aria-label={about === undefined ? undefined : `${word}: ${about}`} onClick={() => void press()}>
        {Icon !== undefined && <Icon size={14} aria-hidden className={outcome?.state === 'pending' ? 'turning' : undefined} />} {word}
      </button>
      <span className="command-said" role="status">{outcome?.state === 'failed' ? outcome.why : outcome?.state === 'waiting' ? 'Sent when the connection is back' : outcome?.state === 'done' ? <span className="sr-only">Done</span> : null}</span>
    </span>
  );
}
