/** What every part of the admin view shares: asking, asking again, and the states in between. */

import { RotateCw } from 'lucide-react';
import { useCallback, useEffect, useRef, useState, type ReactNode } from 'react';
import { CopyButton } from '../copy-button.js';
import type { Answered } from './admin-api.js';

/** How often a list that is looked at is read again, in milliseconds. */
const AGAIN_MS = 5_000;

/** Answers of several ports, read again while somebody looks. */
export function useAsked(ask: () => Promise<Answered[]>): { answers: Answered[] | undefined; again: () => void } {
  const [answers, setAnswers] = useState<Answered[]>();
  const turn = useRef(0);
  const again = useCallback(() => {
    turn.current += 1;
    const mine = turn.current;
    void ask().then((came) => {
      if (mine === turn.current) setAnswers(came);
    });
  }, [ask]);
  useEffect(() => {
    again();
    const timer = setInterval(() => document.visibilityState === 'visible' && again(), AGAIN_MS);
    return () => {
      clearInterval(timer);
      turn.current += 1;
    };
  }, [again]);
  return { answers, again };
}

/** A panel with a title, what did not answer, and a button to ask again. */
export function AdminPanel({ title, id, answers, again, children }: { title: string; id: string; answers?: Answered[] | undefined; again?: () => void; children: ReactNode }) {
  const failed = (answers ?? []).filter((answer) => answer.error !== undefined);
  return (
    <section className="panel" aria-labelledby={`${id}-title`} data-testid={`admin-${id}`}>
      <header className="panel-head">
        <h2 id={`${id}-title`}>{title}</h2>
        {again !== undefined && (
          <button type="button" className="icon-button" aria-label="Ask again" onClick={again}>
            <RotateCw size={16} aria-hidden />
          </button>
        )}
      </header>
      {failed.map(({ port, error }) => (
        <p key={port} className="line-warning" role="alert" data-testid="admin-error">{error?.code === 'network' ? '' : `${port}: `}{error?.message}</p>
      ))}
      {children}
    </section>
  );
}

/** A table of texts; cells may be anything. */
export function AdminTable({ heads, rows, none, label }: { heads: readonly string[]; rows: readonly (readonly [key: string, cells: readonly ReactNode[]])[]; none: string; label: string }) {
  if (rows.length === 0) return <p className="chart-none">{none}</p>;
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={`${label}, as a table`}>
      <table className="plain">
        <thead><tr>{heads.map((head) => <th key={head} scope="col">{head === '' ? <span className="sr-only">What to do</span> : head}</th>)}</tr></thead>
        <tbody>{rows.map(([key, cells]) => <tr key={key} data-key={key}>{cells.map((cell, index) => <td key={heads[index]}>{cell}</td>)}</tr>)}</tbody>
      </table>
    </div>
  );
}

/** A button that does something that cannot be undone: asks once more where it stands. */
export function SureButton({ label, sure, about, onSure }: { label: string; sure: string; about: string; onSure: () => Promise<void> }) {
  const [state, setState] = useState<'idle' | 'asked' | 'pending' | string>('idle');
  const press = (): void => {
    if (state !== 'asked') return setState('asked');
    setState('pending');
    onSure().then(
      () => setState('idle'),
      (error: unknown) => setState(error instanceof Error ? error.message : String(error)),
    );
  };
  const failed = state !== 'idle' && state !== 'asked' && state !== 'pending';
  return (
    <span className="commands">
      <button type="button" className="button button-small" data-asked={state === 'asked' || undefined} aria-busy={state === 'pending'} aria-label={`${state === 'asked' ? sure : label}: ${about}`} onClick={press} onBlur={() => setState((now) => (now === 'asked' ? 'idle' : now))}>
        {state === 'asked' ? sure : label}
      </button>
      {failed && <span className="command-said" role="status">{state}</span>}
    </span>
  );
}

/** An answer as it came, to be read and copied. */
export function Raw({ value }: { value: unknown }) {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  return (
    <div className="raw">
      <pre className="code" tabIndex={0}>{text}</pre>
      <CopyButton text={text} label="Copy" />
    </div>
  );
}
