import { describe, expect, it } from 'vitest';
import { mistakesOf, placeMistake } from './mistakes.js';

const TEXT = 'version: 1\r\nmetrics:\n  - name: x\n';

describe('mistakes', () => {
  it.each([
    ['metrics:3:5: there is no value', { line: 3, column: 5, what: 'there is no value', source: '  - name: x' }],
    ['policy:1:1: a: b: c', { line: 1, column: 1, what: 'a: b: c', source: 'version: 1' }],
    ['metrics:99:1: beyond the end', { line: 99, column: 1, what: 'beyond the end', source: undefined }],
    ['something else', { line: undefined, column: undefined, what: 'something else', source: undefined }],
    ['', { line: undefined, column: undefined, what: '', source: undefined }],
  ])('%s', (mistake, place) => {
    expect(placeMistake(mistake, TEXT)).toEqual(place);
  });

  it('are read without trust', () => {
    expect([mistakesOf({}), mistakesOf({ mistakes: 'x' }), mistakesOf({ mistakes: ['a', 7] })]).toEqual([[], [], ['a', '7']]);
  });
});
