/** One configured view: cards on top, then charts and rankings beside the lists. */

import type { ReactNode } from 'react';
import { Cards } from './card.js';
import { Chart } from './chart.js';
import { CommandButtons } from './command-button.js';
import { EntryList } from './entry-list.js';
import { Ranking } from './ranking.js';
import type { ViewConfig } from './view-config.js';

/** The view; `tools` stand where they begin to apply: above charts and lists. */
export function View({ view, tools }: { view: ViewConfig; tools?: ReactNode }) {
  const numbers = view.charts.length + view.rankings.length > 0;
  const lists = view.lists.length > 0;
  return (
    <>
      {view.commands.length > 0 && <div className="view-commands"><CommandButtons commands={view.commands} source={{}} /></div>}
      <Cards cards={view.cards} />
      {tools}
      <div className="parts" data-sides={numbers && lists ? 2 : 1}>
        {numbers && (
          <div className="side" data-side="numbers">
            {view.charts.map((chart) => <Chart key={chart.metric} chart={chart} />)}
            {view.rankings.map((ranking) => <Ranking key={ranking.metric} ranking={ranking} />)}
          </div>
        )}
        {lists && (
          <div className="side" data-side="lists">
            {view.lists.map((list, index) => <EntryList key={list.id} list={list} first={index === 0} />)}
          </div>
        )}
      </div>
    </>
  );
}
