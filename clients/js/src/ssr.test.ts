import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import { expect, it, vi } from 'vitest';

/** Where there is no page everything may be imported and made; nothing runs before `connect`. */
it('on a server it touches no window, no network and no clock', async () => {
  expect('window' in globalThis).toBe(false);
  const timers = vi.spyOn(globalThis, 'setTimeout');
  const network = vi.spyOn(globalThis, 'fetch');
  const sdk = await import('./index.js');
  const react = await import('./react/index.js');
  const clients = [new sdk.Client({ url: 'http://gateway' }), sdk.sharedClient({ url: 'http://gateway' })];
  for (const client of clients) {
    const View = (): string => {
      const { status } = react.useConnection();
      const { loaded } = react.useEvents('r');
      return [status, loaded, react.useMetric('r', 'm')?.value, react.useSeries('r', 'm').windows.length, react.useNotifications().counters.unread, react.usePresence('r').total].join();
    };
    expect(renderToString(createElement(react.RoomcastProvider, { client }, createElement(View)))).toBe('idle,false,,0,0,0');
  }
  expect(timers).not.toHaveBeenCalled();
  expect(network).not.toHaveBeenCalled();
});
