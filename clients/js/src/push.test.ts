import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createHash } from 'node:crypto';
import { disablePush, enablePush, type EnablePushOptions } from './push.js';

/** A point of P-256 as the gateway names it: 65 bytes, base64url. */
const KEY = Buffer.from([4, ...Array.from({ length: 64 }, (_, n) => n)]).toString('base64url');
const OTHER_KEY = Buffer.from([4, ...Array.from({ length: 64 }, (_, n) => 255 - n)]).toString('base64url');

/** What happened, in order. */
let said: string[] = [];

/** A browser's push manager: one subscription, under one key. */
class FakePushManager {
  subscription: FakeSubscription | null = null;
  fails: Error | undefined;
  count = 0;

  async getSubscription(): Promise<FakeSubscription | null> {
    return this.subscription;
  }

  async subscribe(options: { userVisibleOnly: boolean; applicationServerKey: Uint8Array }): Promise<FakeSubscription> {
    said.push('subscribe');
    if (this.fails !== undefined) throw this.fails;
    expect(options.userVisibleOnly).toBe(true);
    const key = Buffer.from(options.applicationServerKey).toString('base64url');
    if (this.subscription !== null) {
      if (this.subscription.key !== key) throw new Error('InvalidStateError');
      return this.subscription;
    }
    this.subscription = new FakeSubscription(this, key, `https://push.example/${(this.count += 1)}`);
    return this.subscription;
  }
}

class FakeSubscription {
  readonly options: { applicationServerKey: ArrayBuffer };
  sticks = false;

  constructor(
    readonly manager: FakePushManager,
    readonly key: string,
    readonly endpoint: string,
  ) {
    this.options = { applicationServerKey: Uint8Array.from(Buffer.from(key, 'base64url')).buffer };
  }

  toJSON(): object {
    return { endpoint: this.endpoint, expirationTime: null, keys: { p256dh: 'BP', auth: 'au' } };
  }

  async unsubscribe(): Promise<boolean> {
    said.push('unsubscribe');
    if (this.sticks) return false;
    this.manager.subscription = null;
    return true;
  }
}

/** A gateway that keeps devices. */
class FakeGateway {
  readonly devices = new Map<string, unknown>();
  token = 't1';
  publicKey: unknown = KEY;
  status: number | undefined;
  isAway = false;

  readonly fetch = (async (url: string, init: RequestInit): Promise<Response> => {
    const path = new URL(url).pathname;
    said.push(`${init.method} ${path}`);
    if (this.isAway) throw new TypeError('fetch failed');
    const answer = (status: number, body: unknown): Response => new Response(JSON.stringify(body), { status });
    if (this.status !== undefined) return answer(this.status, { code: 'not_found', detail: 'no pushes are sent here' });
    if ((init.headers as Record<string, string>)['authorization'] !== `Bearer ${this.token}`) return answer(401, { code: 'expired' });
    if (init.method === 'GET') return answer(200, { publicKey: this.publicKey, devices: [] });
    if (init.method === 'DELETE') {
      this.devices.delete(path.split('/').at(-1) ?? '');
      return answer(200, {});
    }
    expect((init.headers as Record<string, string>)['content-type']).toBe('application/json');
    const wanted = JSON.parse(String(init.body)) as { subscription: { endpoint: string } };
    const device = createHash('sha256').update(wanted.subscription.endpoint).digest().subarray(0, 16).toString('base64url');
    this.devices.set(device, wanted);
    return answer(200, { device, until: 1_700_000_000 });
  }) as unknown as typeof fetch;
}

/** What the user answers when asked. */
function browser(permission: string, answer = permission): void {
  Object.assign(globalThis, {
    PushManager: class {},
    Notification: {
      permission,
      requestPermission: async () => {
        said.push('asked');
        return answer;
      },
    },
  });
}

let manager: FakePushManager;
let gateway: FakeGateway;
let options: EnablePushOptions;

beforeEach(() => {
  said = [];
  manager = new FakePushManager();
  gateway = new FakeGateway();
  const worker = { pushManager: manager } as unknown as ServiceWorkerRegistration;
  options = { url: 'https://live.example/', token: () => gateway.token, worker, fetch: gateway.fetch, name: 'phone' };
});

afterEach(() => {
  for (const name of ['Notification', 'PushManager']) Reflect.deleteProperty(globalThis, name);
});

describe('becoming a device', () => {
  it("asks the user before all else, subscribes under the gateway's key and registers", async () => {
    browser('default', 'granted');
    const made = await enablePush(options);
    expect(said).toEqual(['asked', 'GET /v1/devices', 'subscribe', 'POST /v1/devices']);
    expect(manager.subscription?.key).toBe(KEY);
    expect(made).toEqual({ device: [...gateway.devices.keys()][0], until: 1_700_000_000_000 });
    expect([...gateway.devices.values()]).toEqual([{ subscription: manager.subscription?.toJSON(), name: 'phone' }]);
  });

  it('at the next load it is the same device, and nobody is asked', async () => {
    browser('granted');
    const before = await enablePush({ ...options, ask: false });
    const after = await enablePush({ ...options, ask: false });
    expect(after).toEqual(before);
    expect(gateway.devices.size).toBe(1);
    expect(said).not.toContain('asked');
  });

  it('under another key of the operator it subscribes again', async () => {
    browser('granted');
    gateway.publicKey = OTHER_KEY;
    await enablePush(options);
    gateway.publicKey = KEY;
    await enablePush(options);
    expect(manager.subscription?.key).toBe(KEY);
    expect(said.filter((one) => one === 'unsubscribe')).toHaveLength(1);
  });

  it('a token that has ended is renewed once', async () => {
    browser('granted');
    gateway.token = 't2';
    const tokens = ['t1', 't2'];
    await enablePush({ ...options, token: () => tokens.shift() ?? null });
    expect(gateway.devices.size).toBe(1);
    gateway.token = 't3';
    await expect(enablePush({ ...options, token: 't1' })).rejects.toMatchObject({ code: 'expired' });
  });

  it.each([
    ['nobody is asked who has not been', () => browser('default', 'granted'), { ask: false }, undefined],
    ['the user refuses', () => browser('default', 'denied'), {}, 'denied'],
    ['the user has refused', () => browser('denied'), { ask: false }, 'denied'],
    ['the user looks away', () => browser('default'), {}, undefined],
    ['the browser has no pushes', () => {}, {}, 'unsupported'],
    ['the worker has no pushes', () => browser('granted'), { worker: {} as ServiceWorkerRegistration }, 'unsupported'],
    ['the operator sends none', () => { browser('granted'); gateway.status = 404; }, {}, 'not_found'],
    ['the gateway names no key', () => { browser('granted'); gateway.publicKey = 5; }, {}, 'unavailable'],
    ['the gateway is away', () => { browser('granted'); gateway.isAway = true; }, {}, 'network'],
    ['the push service is away', () => { browser('granted'); manager.fails = new Error('AbortError'); }, {}, 'network'],
    ['nobody is signed in', () => browser('granted'), { token: () => null }, 'no_token'],
  ])('%s', async (_, arrange, more, code) => {
    arrange();
    const made = enablePush({ ...options, ...more });
    if (code === undefined) expect(await made).toBeUndefined();
    else await expect(made).rejects.toMatchObject({ name: 'RoomcastError', code });
    expect(gateway.devices.size).toBe(0);
    expect(manager.subscription).toBeNull();
  });
});

describe('being none any more', () => {
  beforeEach(async () => {
    browser('granted');
    await enablePush(options);
    said = [];
  });

  it('ends at the gateway and in the browser', async () => {
    await disablePush(options);
    expect(gateway.devices.size).toBe(0);
    expect(manager.subscription).toBeNull();
    said = [];
    await disablePush(options);
    expect(said).toEqual([]);
  });

  it.each([
    ['the gateway is away', () => { gateway.isAway = true; }, undefined],
    ['the browser keeps it', () => { manager.subscription!.sticks = true; }, undefined],
    ['neither', () => { gateway.isAway = true; manager.subscription!.sticks = true; }, 'network'],
  ])('one of both suffices: %s', async (_, arrange, code) => {
    arrange();
    const ending = disablePush(options);
    if (code === undefined) await ending;
    else await expect(ending).rejects.toMatchObject({ name: 'RoomcastError', code });
    expect(gateway.devices.size === 0 || manager.subscription === null).toBe(code === undefined);
  });

  it('without pushes there is nothing to end', async () => {
    await expect(disablePush({ ...options, worker: {} as ServiceWorkerRegistration })).rejects.toMatchObject({ code: 'unsupported' });
  });
});
