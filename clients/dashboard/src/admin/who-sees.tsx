/** Who gets one event, and who does not and why: for those who may ask the gateways. */

import { useMemo, useState } from 'react';
import { usePage } from '../context.js';
import { useStore } from '../store.js';
import { TokenForm } from '../states.js';
import { AdminApi, type Answered } from './admin-api.js';
import { adminToken } from './admin-token.js';
import { ExplainTable } from './explain-table.js';

/** A button that becomes a table; asks for the operator's token first where there is none yet. */
export function WhoSees({ room, event }: { room: string; event: string }) {
  const { config } = usePage();
  const token = useStore(adminToken);
  const [answers, setAnswers] = useState<Answered[] | 'asked' | 'token'>();
  const api = useMemo(() => (token === undefined ? undefined : new AdminApi(config.admin, token)), [config.admin, token]);
  const ask = async (with_: AdminApi): Promise<void> => {
    setAnswers('asked');
    setAnswers(await with_.all('gateway', `/explain?${new URLSearchParams({ room, event })}`));
  };
  const bring = (text: string): void => {
    adminToken.update(() => text);
    void ask(new AdminApi(config.admin, text));
  };
  if (answers === undefined || (answers !== 'token' && answers !== 'asked' && api === undefined)) {
    return <button type="button" className="button" data-testid="who-sees" onClick={() => (api === undefined ? setAnswers('token') : void ask(api))}>Who may see this?</button>;
  }
  if (answers === 'token') return <TokenForm label="Admin token" onToken={bring} />;
  if (answers === 'asked') return <p className="muted" role="status">Asking the gateways …</p>;
  const failed = answers.filter(({ error }) => error !== undefined);
  return (
    <div data-testid="who-sees-table">
      {failed.map(({ port, error }) => <p key={port} className="line-warning" role="alert">{error?.message}</p>)}
      {failed.length < answers.length && <ExplainTable answers={answers} />}
    </div>
  );
}
