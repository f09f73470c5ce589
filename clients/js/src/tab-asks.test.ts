import { describe, expect, it } from 'vitest';
import type { ToHub } from './pipe.js';
import { TabAsks } from './tab-asks.js';

/** What a tab asks, and what its hub, where there is one, hears. */
function make(): { asks: TabAsks; heard: string[]; failed: string[]; ask(id: number, waits?: boolean): void; hub: { isThere: boolean } } {
  const heard: string[] = [];
  const failed: string[] = [];
  const hub = { isThere: true };
  const asks = new TabAsks((message) => {
    if (hub.isThere) heard.push(String((message as ToHub & { t: 'ask' }).id));
    return hub.isThere;
  });
  const ask = (id: number, waits = false): void => void asks.ask(id, 'command', ['go', 1, { key: `k${id}` }], waits).catch(({ code }) => failed.push(`${id} ${code}`));
  return { asks, heard, failed, ask, hub };
}

describe('what a tab asked', () => {
  it('may have been done when a hub was told before somebody else signed in', async () => {
    const { asks, failed, ask, hub } = make();
    ask(1);
    ask(2, true);
    hub.isThere = false;
    ask(3);
    asks.refuse();
    await Promise.resolve();
    await Promise.resolve();
    expect(failed).toEqual(['1 unknown', '2 forbidden', '3 forbidden']);
    expect(asks.commands()).toEqual([]);
  });

  it('is given to the next hub, also while the tab is paused, unless it waits for its return', () => {
    const { asks, heard, ask } = make();
    ask(1);
    ask(2, true);
    asks.giveAgain(true);
    expect(heard).toEqual(['1', '1']);
    asks.release();
    expect(heard).toEqual(['1', '1', '2']);
  });
});
