import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { QueuedCommand } from './api.js';
import { Commands, GIVE_UP_MS, WAITING_AGE_MAX_MS, WAITING_MAX, type CommandStorage } from './commands.js';
import { RoomcastError } from './error.js';
import { settle } from './testing/fakes.js';

let isReady = false;
let user: string | undefined = 'u1';
let answers: (() => Promise<Record<string, unknown>>)[] = [];
const sent: string[] = [];
const failures: unknown[] = [];

function make(storage?: CommandStorage): Commands {
  const host = {
    send: ({ name, key }: QueuedCommand): Promise<Record<string, unknown>> => {
      sent.push(`${name} ${key}`);
      return answers.shift()?.() ?? Promise.resolve({ data: name });
    },
    ready: () => isReady,
    user: () => user,
    random: () => 0.5,
    failed: (error: unknown) => void failures.push(error),
  };
  return new Commands(host, storage);
}
const fail = (code: string, temporary: boolean, retryAfterMs?: number) => (): Promise<never> => Promise.reject(new RoomcastError(code, code, { temporary, retryAfterMs }));
const outcome = (promise: Promise<unknown>): { is?: unknown } => {
  const seen: { is?: unknown } = {};
  promise.then((value) => (seen.is = value), (error: RoomcastError) => (seen.is = error.code));
  return seen;
};

beforeEach(() => {
  vi.useFakeTimers();
  isReady = false;
  user = 'u1';
  answers = [];
  sent.length = failures.length = 0;
});
afterEach(() => vi.useRealTimers());

describe('commands', () => {
  it('wait for a connection, then go in order, each once', async () => {
    const commands = make();
    const all = ['a', 'b', 'c'].map((name) => outcome(commands.run(name, {}, { key: `k${name}` })));
    expect(commands.waiting.map(({ key }) => key)).toEqual(['ka', 'kb', 'kc']);
    expect(sent).toEqual([]);
    isReady = true;
    commands.flush();
    commands.flush();
    await settle();
    expect(sent).toEqual(['a ka', 'b kb', 'c kc']);
    expect(all.map(({ is }) => is)).toEqual(['a', 'b', 'c']);
    expect(commands.waiting).toEqual([]);
  });

  it('are asked again with the same key until the answer is final', async () => {
    isReady = true;
    answers = [fail('unknown', true), fail('rate', true, 700), fail('network', true)];
    const commands = make();
    const one = outcome(commands.run('a', {}, { key: 'k' }));
    await vi.advanceTimersByTimeAsync(500);
    expect(sent).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(699);
    expect(sent).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(400 + 10_000);
    expect(sent).toEqual(['a k', 'a k', 'a k', 'a k']);
    expect(one.is).toBe('a');
  });

  it.each(['forbidden', 'conflict', 'too_large'])('%s is final', async (code) => {
    isReady = true;
    answers = [fail(code, false)];
    const one = outcome(make().run('a', {}, {}));
    await settle();
    expect(one.is).toBe(code);
    expect(sent).toHaveLength(1);
  });

  it('give up after a minute of connection, not of being offline', async () => {
    isReady = true;
    answers = Array.from({ length: 100 }, () => fail('unavailable', true));
    const commands = make();
    const one = outcome(commands.run('a', {}, { key: 'k' }));
    await vi.advanceTimersByTimeAsync(30_000);
    isReady = false;
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(one.is).toBeUndefined();
    isReady = true;
    commands.flush();
    await vi.advanceTimersByTimeAsync(GIVE_UP_MS + 31_000);
    expect(one.is).toBe('unavailable');
  });

  it('one that shall not wait fails at once, and so does one too many', async () => {
    const commands = make();
    const hurried = outcome(commands.run('a', {}, { queue: false }));
    for (let n = 0; n < WAITING_MAX; n += 1) void commands.run('b', n, {});
    const last = outcome(commands.run('c', {}, {}));
    await settle();
    expect([hurried.is, last.is]).toEqual(['offline', 'limit']);
  });

  it('survive a reload, are sent for their user alone, and not when they are too old', async () => {
    const kept = new Map<string, QueuedCommand>();
    const storage: CommandStorage = {
      load: async () => [...kept.values()],
      put: async (command) => void kept.set(command.key, command),
      remove: async (key) => void kept.delete(key),
    };
    void make(storage).run('mine', {}, { key: 'k1' });
    await settle();
    user = 'u2';
    void make(storage).run('theirs', {}, { key: 'k2' });
    await settle();
    kept.set('k3', { key: 'k3', name: 'old', data: null, at: Date.now() - WAITING_AGE_MAX_MS - 1, timeoutMs: 1, user: 'u1' });
    user = 'u1';
    isReady = true;
    const commands = make(storage);
    await settle();
    expect(sent).toEqual(['mine k1']);
    expect(failures).toMatchObject([{ code: 'late' }]);
    expect([...kept.keys()]).toEqual(['k2']);
    expect(commands.waiting.map(({ key }) => key)).toEqual(['k2']);
  });

  it('wait while nobody knows who is signed in', async () => {
    void make().run('mine', {}, { key: 'k1' });
    const commands = make({ load: async () => [{ key: 'k1', name: 'mine', data: null, at: Date.now(), timeoutMs: 1, user: 'u1' }], put: async () => undefined, remove: async () => undefined });
    user = undefined;
    isReady = true;
    await settle();
    expect(sent).toEqual([]);
    user = 'u1';
    commands.flush();
    await settle();
    expect(sent).toEqual(['mine k1']);
  });

  it('a storage that is blocked is told, and costs nothing else', async () => {
    const blocked = (): Promise<never> => Promise.reject(new Error('blocked'));
    isReady = true;
    const one = outcome(make({ load: blocked, put: blocked, remove: blocked }).run('a', {}, {}));
    await settle();
    expect(one.is).toBe('a');
    expect(failures.length).toBeGreaterThan(0);
  });
});
