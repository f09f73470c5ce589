/** Which test holds which sentence of what the page promises. A sentence names a test that exists; the table is printed. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const HERE = import.meta.dirname;
const FILES = ['page.test.mjs', 'lines.test.mjs', 'scenarios.test.mjs'];
/** Beginnings of tests' names are enough. */
const SENTENCES = {
  'Common to all': [
    ['A badge says LIVE with the transport, CONNECTING, PAUSED', 'the badge goes through its faces'],
    ['and POLLING when falling back; the reader is told', 'without WebSocket the page falls back'],
    ['PAUSED is the reader’s choice; what came meanwhile comes on return', 'a pause keeps everything back'],
    ['It reconnects without end, and nothing is missed or shown twice', 'again and again'],
    ['Numbers and lists load first, then go live without a hole and a double', 'a booking that is published appears'],
    ['A chart goes on live where its history ends', 'repair: the revenue chart'],
    ['Toasts close, pause under the pointer, and go by themselves', 'a toast can be closed'],
    ['Toasts and everything else speak to screen readers', 'nothing wrong for those who cannot see'],
    ['One sound per kind, off until wished', 'a sound for each kind'],
    ['A phone’s width is enough', 'a phone has everything'],
    ['Many tabs in step', 'two tabs agree'],
    ['Many people in step', 'deliveries: several admins are in step'],
    ['Nothing is announced again after F5', 'after a reload everything is there'],
    ['Live again within a second of the network’s return', 'a network that was cut'],
    ['A sleeping machine catches up', 'a frozen page catches up'],
    ['A wrong clock keeps nothing back', 'a clock that is wrong'],
    ['A sign-in that ends is asked for again', 'a sign-in that ends'],
    ['Blocked storage is done without', 'storage that is blocked'],
    ['Bad input breaks nothing', 'malformed and unknown messages'],
    ['A slow line shows the numbers', 'a slow line'],
    ['Memory is flat, an idle page rests, long lists stay smooth', 'ten thousand rows'],
  ],
  bookings: [
    ['Four cards with value, change, trend and sparkline', 'four cards show'],
    ['A booking changes state in place', 'a booking that is published appears'],
    ['Toasts of ten seconds with icon and badge', 'a booking that is published appears'],
    ['The list is filtered by words', 'the keyboard reaches the list'],
  ],
  property: [
    ['Views of six roles; every number of the dashboard', 'property: every view'],
    ['Owners and managers see their own properties', 'property: owners and managers'],
    ['One HTTP call reaches room, role and users', 'property: one call'],
    ['A bell with unread count, priorities, groups, read one and all', 'property: the bell'],
    ['Who is on which page, last seen', 'property: who is here'],
    ['Statistics: connections, rooms, who is connected', 'property: the operators'],
  ],
  repair: [
    ['Four numbers, a chart with its history', 'repair: every view'],
    ['Insert and update are events with old and new row', 'repair: a ticket changes'],
    ['Contact details only for roles that may', 'repair: contacts'],
  ],
  deliveries: [
    ['Four pages', 'deliveries: every view'],
    ['A command tells its sender what came of it; offline it waits', 'deliveries: a command'],
  ],
  restaurant: [
    ['Nothing twice; a click opens the order; F5 announces everything new', 'restaurant: an order is announced once'],
    ['Orders and reservations each have their view', 'restaurant: every view'],
    ['A diagnosis says why nothing arrives', 'a diagnosis names what is wrong'],
    ['Money and telephone numbers for those who may see them', 'restaurant: waiters see'],
  ],
};

test('every sentence has its test', () => {
  const names = FILES.flatMap((file) => [...readFileSync(join(HERE, file), 'utf8').matchAll(/^test\('((?:[^'\\]|\\.)*)'/gm)].map(([, name]) => name));
  const lines = [];
  for (const [business, sentences] of Object.entries(SENTENCES)) {
    for (const [sentence, begins] of sentences) {
      const found = names.filter((name) => name.startsWith(begins));
      assert.equal(found.length, 1, `${business}: ${sentence}: ${begins}: ${found.length} tests`);
      lines.push(`    ${business.padEnd(14)} ${sentence} → ${found[0]}`);
    }
  }
  console.log(lines.join('\n'));
});
