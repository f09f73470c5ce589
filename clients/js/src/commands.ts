/**
 * Commands on their way: each is sent until it has an answer that is final, always with the same key, so that it is
 * done once. What waits for a connection keeps its order and goes one after the other. Knows no socket: it is told when
 * there is a connection and how to send.
 */

import type { CommandOptions, QueuedCommand } from './api.js';
import { retryDelayMs } from './backoff.js';
import { asError, offline, RoomcastError } from './error.js';

/** Where waiting commands live. The default is memory, which a reload forgets. */
export interface CommandStorage {
  /** All that were put and not removed, in the order of `at`. */
  load(): Promise<QueuedCommand[]>;
  put(command: QueuedCommand): Promise<void>;
  remove(key: string): Promise<void>;
}

/** What commands need from their client. */
export interface CommandsHost {
  send(command: QueuedCommand): Promise<Record<string, unknown>>;
  ready(): boolean;
  /** Who is signed in, as far as it is known. */
  user(): string | undefined;
  random(): number;
  /** A listener or the storage failed. */
  failed(error: unknown): void;
}

/** Commands that wait at most; one more fails with `limit`. */
export const WAITING_MAX = 1_000;
/** A command that has waited so long is not sent any more, in milliseconds: its key would not be known 24 hours later. */
export const WAITING_AGE_MAX_MS = 23 * 3_600_000;
/** How long a command without a final answer is sent again while there is a connection, in milliseconds. */
export const GIVE_UP_MS = 60_000;

interface Entry {
  readonly command: QueuedCommand;
  settle: ((result: unknown) => void) | undefined;
  fail: ((error: RoomcastError) => void) | undefined;
  attempt: number;
  /** When it was first sent over the present connection. */
  since: number | undefined;
  underWay: boolean;
}

function entryOf(command: QueuedCommand, settle?: (result: unknown) => void, fail?: (error: RoomcastError) => void): Entry {
  return { command, settle, fail, attempt: 0, since: undefined, underWay: false };
}

/** The commands of one client. */
export class Commands {
  #entries: Entry[] = [];
  #waiting: readonly QueuedCommand[] = [];
  readonly #host: CommandsHost;
  readonly #storage: CommandStorage | undefined;
  readonly #listeners = new Set<(commands: readonly QueuedCommand[]) => void>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: CommandsHost, storage?: CommandStorage) {
    this.#host = host;
    this.#storage = storage;
    if (storage !== undefined) this.#restore(storage);
  }

  /** Those that wait to be sent. */
  get waiting(): readonly QueuedCommand[] {
    return this.#waiting;
  }

  listen(listener: (commands: readonly QueuedCommand[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Sends a command, now or on return. */
  run(name: string, data: unknown, options: CommandOptions): Promise<unknown> {
    const command: QueuedCommand = {
      key: options.key ?? crypto.randomUUID(),
      name,
      data,
      at: Date.now(),
      timeoutMs: options.timeoutMs ?? 10_000,
      user: this.#host.user(),
    };
    const isReady = this.#host.ready();
    if (!isReady && options.queue === false) return Promise.reject(offline());
    // Asked for before a reload, and now again.
    const before = this.#entries.find((entry) => entry.command.key === command.key && entry.settle === undefined);
    if (before !== undefined) {
      return new Promise((settle, fail) => {
        before.settle = settle;
        before.fail = fail;
      });
    }
    if (this.#entries.length >= WAITING_MAX) return Promise.reject(new RoomcastError('limit', `More than ${WAITING_MAX} commands wait.`));
    return new Promise((settle, fail) => {
      const entry = entryOf(command, settle, fail);
      this.#entries.push(entry);
      // What is sent at once need not wait for what is stored; what waits survives a reload.
      const stored = options.queue === false ? undefined : this.#storage?.put(command);
      stored?.catch((error: unknown) => this.#host.failed(error));
      // Nobody waits in front of it: it need not queue.
      if (isReady && this.#entries.every((other) => other === entry || other.underWay)) void this.#send(entry);
      this.#tell();
    });
  }

  /** There is a connection: what waits is sent, in order. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const next = this.#entries.find((entry) => !entry.underWay && this.#isOurs(entry));
    if (next === undefined || !this.#host.ready()) return;
    void this.#send(next).then(() => {
      if (this.#timer === undefined) this.flush();
    });
  }

  async #send(entry: Entry): Promise<void> {
    const now = Date.now();
    if (now - entry.command.at > WAITING_AGE_MAX_MS) return this.#done(entry, new RoomcastError('late', 'It waited too long.'));
    entry.underWay = true;
    entry.since ??= now;
    this.#tell();
    try {
      const answer = await this.#host.send(entry.command);
      entry.underWay = false;
      this.#done(entry, undefined, answer['data']);
    } catch (thrown) {
      entry.underWay = false;
      this.#failed(entry, asError(thrown));
    }
  }

  #failed(entry: Entry, error: RoomcastError): void {
    if (!error.temporary) return this.#done(entry, error);
    if (!this.#host.ready()) {
      // The time without a connection is not the command's.
      entry.since = undefined;
      entry.attempt = 0;
      return this.#tell();
    }
    if (Date.now() - (entry.since ?? 0) >= GIVE_UP_MS) return this.#done(entry, error);
    const ms = retryDelayMs(entry.attempt, this.#host.random(), error.retryAfterMs);
    entry.attempt += 1;
    this.#tell();
    this.#timer ??= setTimeout(() => this.flush(), ms);
  }

  #done(entry: Entry, error: RoomcastError | undefined, result?: unknown): void {
    this.#entries = this.#entries.filter((other) => other !== entry);
    this.#storage?.remove(entry.command.key).catch((failure: unknown) => this.#host.failed(failure));
    this.#tell();
    if (error === undefined) entry.settle?.(result);
    else if (entry.fail !== undefined) entry.fail(error);
    // Nobody waits for what was asked before a reload.
    else this.#host.failed(error);
  }

  #isOurs({ command }: Entry): boolean {
    return command.user === undefined || command.user === this.#host.user();
  }

  #restore(storage: CommandStorage): void {
    storage.load().then(
      (commands) => {
        const known = new Set(this.#entries.map(({ command }) => command.key));
        const restored = commands.filter(({ key }) => !known.has(key)).map((command) => entryOf(command));
        this.#entries = [...restored, ...this.#entries].slice(0, WAITING_MAX);
        this.#tell();
        if (restored.length > 0) this.flush();
      },
      (error: unknown) => this.#host.failed(error),
    );
  }

  #tell(): void {
    const waiting = this.#entries.filter((entry) => !entry.underWay).map(({ command }) => command);
    if (waiting.length === 0 && this.#waiting.length === 0) return;
    this.#waiting = waiting;
    for (const listener of [...this.#listeners]) {
      try {
        listener(waiting);
      } catch (error) {
        this.#host.failed(error);
      }
    }
  }
}

/**
 * Keeps waiting commands in IndexedDB, over reloads. Where that is blocked commands wait in memory, and `onProblem` hears of it.
 * One browser tab at a time should send them: with several, each key still counts once.
 */
export function indexedDbCommands(name = 'roomcast'): CommandStorage {
  const STORE = 'commands';
  let opening: Promise<IDBDatabase> | undefined;
  const open = (): Promise<IDBDatabase> =>
    (opening ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'key' });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error('IndexedDB is blocked'));
    }));
  const run = async <T>(mode: IDBTransactionMode, ask: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const transaction = (await open()).transaction(STORE, mode);
    const request = ask(transaction.objectStore(STORE));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  };
  return {
    load: async () => (await run<QueuedCommand[]>('readonly', (store) => store.getAll())).sort((a, b) => a.at - b.at),
    put: async (command) => void (await run('readwrite', (store) => store.put(command))),
    remove: async (key) => void (await run('readwrite', (store) => store.delete(key))),
  };
}
