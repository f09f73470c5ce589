import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Client } from './client.js';
import { announces, preferences, readPreferences, type PreferencesStore } from './preferences.js';
import { fakeFetch, FakeSocket, settle } from './testing/fakes.js';

const NONE = readPreferences({});

describe('what is announced', () => {
  const at = (text: string): number => Date.parse(text);
  const NOON = at('2026-06-01T12:00:00Z');
  const NIGHT = { quiet: { from: '22:00', to: '07:00', zone: 'Europe/Istanbul' } };
  it.each([
    ['without preferences', {}, NOON, true],
    ['of a muted type', { mute: { types: ['order'] } }, NOON, false],
    ['in a muted room', { mute: { rooms: ['admin'] } }, NOON, false],
    ['of another type and room', { mute: { types: ['other'], rooms: ['elsewhere'] } }, NOON, true],
    ['by day', NIGHT, NOON, true],
    ['when the quiet begins', NIGHT, at('2026-06-01T19:00:00Z'), false],
    ['after midnight', NIGHT, at('2026-06-01T00:30:00Z'), false],
    ['when the quiet ends', NIGHT, at('2026-06-01T04:00:00Z'), true],
    ['in a quiet noon', { quiet: { from: '11:00', to: '13:00', zone: 'UTC' } }, NOON, false],
    ['after a quiet noon', { quiet: { from: '11:00', to: '12:00', zone: 'UTC' } }, NOON, true],
    ['in a zone nobody knows', { quiet: { from: '00:00', to: '23:59', zone: 'Mars/Olympus' } }, NOON, true],
    ['with hours that are none', { quiet: { from: '25:00', to: '7', zone: 'UTC' } }, NOON, true],
    ['with nonsense', { mute: 7, quiet: [], sounds: 'no' }, NOON, true],
  ])('%s', (_, set, now, expected) => {
    expect(announces(readPreferences(set), { type: 'order', room: 'admin' }, now as number)).toBe(expected);
  });
});

describe('preferences', () => {
  let client: Client;
  let store: PreferencesStore;
  let stop: () => void;
  const answer = async (body: unknown): Promise<unknown> => {
    const asked = FakeSocket.last.sent.filter((frame) => 'preferences' in frame).at(-1);
    FakeSocket.last.say({ id: asked?.['id'], ...(body as object) });
    await settle();
    return asked?.['preferences'];
  };
  beforeEach(async () => {
    vi.useFakeTimers();
    FakeSocket.all = [];
    client = new Client({ url: 'http://gateway', token: 'T', webSocket: FakeSocket, transports: ['websocket'], random: () => 0.5, fetch: fakeFetch({}).fetch, onProblem: () => undefined });
    store = preferences(client);
    stop = store.subscribe(() => undefined);
    client.connect();
    await settle();
    FakeSocket.last.open();
    await settle();
    FakeSocket.last.connected([]);
    await settle();
  });
  afterEach(() => {
    stop();
    client.close();
    vi.useRealTimers();
  });

  it('are read with the connection, and changed by what other devices do', async () => {
    expect(await answer({ preferences: { version: 3, preferences: { sounds: false } } })).toEqual({});
    expect(store.get()).toEqual({ loaded: true, error: undefined, preferences: { ...NONE, sounds: false } });
    FakeSocket.last.say({ preferences: { version: 4, preferences: { desktop: false } } });
    expect(store.get().preferences).toEqual({ ...NONE, desktop: false });
    FakeSocket.last.say({ preferences: { version: 2, preferences: {} } });
    expect(store.get().preferences.desktop, 'overtaken').toBe(false);
    expect(client.counters.unknown).toBe(0);
  });

  it('are set for everybody of the user, or refused and unchanged', async () => {
    await answer({ preferences: { version: 1, preferences: {} } });
    const watcher = vi.fn();
    store.subscribe(watcher);
    const set = store.set({ mute: { types: ['order'], rooms: [] }, quiet: null });
    expect(watcher, 'not with the next frame').toHaveBeenCalledTimes(1);
    await settle();
    expect(store.get().preferences.mute, 'at once').toEqual({ types: ['order'], rooms: [] });
    expect(await answer({ preferences: { version: 2, preferences: { mute: { types: ['order'] } } } })).toEqual({ set: { mute: { types: ['order'], rooms: [] }, quiet: null } });
    await set;
    expect(store.get().preferences.mute).toEqual({ types: ['order'], rooms: [] });
    const refused = store.set({ quiet: { from: 'x', to: 'y', zone: 'UTC' } });
    refused.catch(() => undefined);
    await settle();
    await answer({ error: { code: 'bad_request', message: 'no' } });
    await expect(refused).rejects.toMatchObject({ code: 'bad_request' });
    expect(store.get().preferences.quiet).toBeUndefined();
    expect(store.get().preferences.mute).toEqual({ types: ['order'], rooms: [] });
  });

  it('stay as they were set, whatever is heard before the server has them', async () => {
    await answer({ preferences: { version: 1, preferences: {} } });
    const sounds = store.set({ sounds: false });
    await settle();
    FakeSocket.last.say({ preferences: { version: 2, preferences: { desktop: false } } });
    expect(store.get().preferences).toEqual({ ...NONE, desktop: false, sounds: false });
    const back = store.set({ desktop: null });
    await settle();
    expect(store.get().preferences).toEqual({ ...NONE, sounds: false });
    await answer({ preferences: { version: 3, preferences: {} } });
    await back;
    expect(store.get().preferences, 'the other one is still on its way').toEqual({ ...NONE, sounds: false });
    const [asked] = FakeSocket.last.sent.filter((frame) => 'set' in ((frame['preferences'] as object | undefined) ?? {}));
    FakeSocket.last.say({ id: asked?.['id'], error: { code: 'bad_request', message: 'no' } });
    await expect(sounds).rejects.toMatchObject({ code: 'bad_request' });
    expect(store.get().preferences).toEqual(NONE);
  });

  it('say so when they cannot be read', async () => {
    await answer({ error: { code: 'unavailable', message: 'not now', temporary: true } });
    expect(store.get()).toMatchObject({ loaded: true, error: { code: 'unavailable' }, preferences: NONE });
  });
});
