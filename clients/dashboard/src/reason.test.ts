import { describe, expect, it } from 'vitest';
import { reason } from './reason.js';

describe('reasons', () => {
  it.each([
    [{ code: 'network', message: 'TypeError: Failed to fetch', temporary: true }, 'The gateway cannot be reached. It is asked for again by itself.'],
    [{ code: 'forbidden', message: 'not there, or not yours', temporary: false }, 'Your roles do not include this chart.'],
    [{ code: 'bad_request', message: 'from is no instant', temporary: false }, 'from is no instant.'],
    [{ code: 'later', message: 'Something new!', temporary: true }, 'Something new! It is asked for again by itself.'],
  ])('%o', (error, words) => {
    expect(reason(error, 'this chart')).toBe(words);
  });
});
