/** What was refused: shown with what was sent, and taken again as it was or mended. */

import { useCallback, useState } from 'react';
import { usePage } from '../context.js';
import { plain } from '../template.js';
import { listOf, type AdminApi } from './admin-api.js';
import { AdminPanel, AdminTable, Raw, SureButton, useAsked } from './asked.js';
import { AdminForm } from './form.js';

/** The part. Letters are kept in NATS, so any ingest knows all. */
export function DeadLetters({ api }: { api: AdminApi }) {
  const { format } = usePage();
  const [open, setOpen] = useState<Record<string, unknown>>();
  const ask = useCallback(async () => (await api.all('ingest', '/dead-letters?limit=200')).slice(0, 1), [api]);
  const { answers, again } = useAsked(ask);
  const letters = (answers ?? []).flatMap(({ body }) => listOf(body, 'letters')).reverse();
  const replay = (position: string) => async (): Promise<void> => {
    await api.one('ingest', `/dead-letters/${position}/replay`, { method: 'POST', body: {} });
    again();
  };
  return (
    <>
      <AdminPanel id="letters" title="Dead letters" answers={answers} again={again}>
        <AdminTable
          label="Dead letters"
          none={answers === undefined ? 'Asking …' : 'Nothing was refused.'}
          heads={['When', 'Reason', 'Why', 'From', 'By', '']}
          rows={letters.map((letter) => {
            const position = plain(letter['position']);
            return [
              position,
              [
                format.full(Number(letter['at'])),
                plain(letter['reason']),
                plain(letter['detail']),
                plain(letter['publisher']),
                plain(letter['origin']),
                <span className="commands">
                  <button type="button" className="button button-small" aria-label={`Show letter ${position}`} onClick={() => void api.one('ingest', `/dead-letters/${position}`).then(setOpen, () => setOpen(letter))}>Show</button>
                  <SureButton label="Take again" sure="As it was sent" about={`letter ${position}`} onSure={replay(position)} />
                </span>,
              ],
            ];
          })}
        />
      </AdminPanel>
      {open !== undefined && (
        <AdminPanel id="letter" title={`Letter ${plain(open['position'])}, ${plain(open['reason'])}`}>
          <AdminForm
            key={plain(open['position'])}
            button="Take it, mended"
            fields={[{ name: 'event', label: 'The event, as it was sent', long: true, needed: true, value: plain(open['text']) }]}
            ask={async ({ event }) => {
              const answer = await api.one('ingest', `/dead-letters/${plain(open['position'])}/replay`, { method: 'POST', body: JSON.parse(event ?? '') as unknown });
              again();
              return answer;
            }}
            show={(answer) => <Raw value={answer} />}
          />
        </AdminPanel>
      )}
    </>
  );
}
