import { describe, expect, it } from 'vitest';
import { readFrame } from './frame.js';

describe('reading frames', () => {
  it.each([
    ['', 'malformed'],
    ['{', 'malformed'],
    ['null', 'malformed'],
    ['[]', 'malformed'],
    ['"ping"', 'malformed'],
    ['{"event":7}', 'malformed'],
    ['{"event":{"room":"r"}}', 'malformed'],
    ['{"event":{"room":"r","event":{"id":"1"}}}', 'malformed'],
    ['{"caughtUp":{"room":"r"}}', 'malformed'],
    ['{"subscribed":{}}', 'malformed'],
    ['{"disconnect":{"code":"4001"}}', 'malformed'],
    ['{}', 'other'],
    ['{"id":4}', 'other'],
    ['{"hologram":{}}', 'other'],
    ['{"toString":{}}', 'other'],
    ['{"__proto__":{}}', 'other'],
    ['{"ping":{}}', 'ping'],
    ['{"ping":{},"later":1}', 'ping'],
    ['{"event":{"room":"r","cursor":"c","event":{"id":"1","source":"s","type":"t"},"hint":9}}', 'event'],
  ])('%s is %s', (message, kind) => {
    expect(readFrame(message).kind).toBe(kind);
  });

  it('does not read binary messages', () => {
    expect(readFrame(new ArrayBuffer(3)).kind).toBe('malformed');
  });

  it('fills in what a server left out of connected', () => {
    const frame = readFrame('{"connected":{"pingSeconds":0,"rooms":[{"room":"a","recovery":"new word"},{"no":"room"},7]}}');
    expect(frame).toMatchObject({ kind: 'connected', session: { pingSeconds: 25, roles: [], resumeSeconds: 0 }, rooms: [{ room: 'a', recovery: 'incomplete' }] });
  });

  it('reads errors without trusting their shape', () => {
    expect(readFrame('{"id":3,"error":{}}')).toMatchObject({ kind: 'error', id: 3, error: { code: 'unknown', temporary: false } });
  });
});
