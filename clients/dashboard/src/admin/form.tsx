/** A form of the admin view: fields, one button, what came of it. */

import { useState, type FormEvent, type ReactNode } from 'react';

/** One field. */
export interface Field {
  readonly name: string;
  readonly label: string;
  readonly long?: boolean;
  readonly needed?: boolean;
  readonly value?: string;
  readonly hint?: string;
}

/** Asks with what was filled in; `show` draws the answer. */
export function AdminForm<T>({ fields, button, ask, show }: { fields: readonly Field[]; button: string; ask: (values: Record<string, string>) => Promise<T>; show: (answer: T) => ReactNode }) {
  const [values, setValues] = useState<Record<string, string>>(() => Object.fromEntries(fields.map(({ name, value }) => [name, value ?? ''])));
  const [state, setState] = useState<{ pending?: true; answer?: T; error?: string }>({});
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setState({ pending: true });
    ask(values).then(
      (answer) => setState({ answer }),
      (error: unknown) => setState({ error: error instanceof Error ? error.message : String(error) }),
    );
  };
  return (
    <form className="admin-form" onSubmit={submit}>
      {fields.map(({ name, label, long, needed, hint }) => (
        <label key={name} className="field" data-long={long || undefined}>
          <span>{label}{needed === true ? '' : ' (may be empty)'}</span>
          {long === true ? (
            <textarea name={name} rows={10} spellCheck={false} required={needed} value={values[name]} onChange={(event) => setValues({ ...values, [name]: event.target.value })} />
          ) : (
            <input name={name} required={needed} spellCheck={false} autoComplete="off" placeholder={hint} value={values[name]} onChange={(event) => setValues({ ...values, [name]: event.target.value })} />
          )}
        </label>
      ))}
      <button type="submit" className="button button-primary" aria-busy={state.pending}>{button}</button>
      {state.error !== undefined && <p className="line-warning" role="alert">{state.error}</p>}
      {state.answer !== undefined && <div className="admin-answer" role="status">{show(state.answer)}</div>}
    </form>
  );
}
