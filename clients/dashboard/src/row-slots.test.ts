import { describe, expect, it } from 'vitest';
import { assign, noSlots } from './row-slots.js';

/** Each step: the rows that are shown, those of them that come in sight of the reader, and the slots expected. */
describe('slots of rows', () => {
  it.each([
    ['rows keep theirs', [['abc', '', [0, 1, 2]], ['abc', '', [0, 1, 2]]]],
    ['the wheel: what leaves above shows what comes below', [['abc', '', [0, 1, 2]], ['bcd', '', [1, 2, 0]]]],
    ['a jump builds nothing', [['abc', '', [0, 1, 2]], ['xyz', '', [0, 1, 2]]]],
    ['a row that slides in has an element of its own', [['abc', '', [0, 1, 2]], ['nab', 'n', [3, 0, 1]]]],
    ['a longer list builds what is missing, a shorter one leaves the rest', [['ab', '', [0, 1]], ['wxyz', '', [0, 1, 2, 3]], ['z', '', [3]]]],
    ['empty', [['', '', []], ['a', '', [0]]]],
  ] as const)('%s', (_, steps) => {
    const slots = noSlots();
    for (const [ids, fresh, expected] of steps) {
      const found = assign(slots, [...ids], (index) => fresh.includes(ids[index] ?? ' '));
      expect(found).toEqual(expected);
      expect(new Set(found).size).toBe(ids.length);
      expect(slots.byId.size).toBe(ids.length);
    }
  });
});
