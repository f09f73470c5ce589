/** Which test holds which sentence of what the page promises. A sentence names a test that exists; the table is printed. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const HERE = import.meta.dirname;
const FILES = ['page.test.mjs', 'lines.test.mjs', 'scenarios.test.mjs', 'sdk.test.mjs', 'quickstart.test.mjs'];
/** Beginnings of tests' names are enough. */
const SENTENCES = {
  'Common to all': [
    ['A badge says LIVE with the transport, CONNECTING, PAUSED by the user’s choice', 'the badge goes through its faces'],
    ['The badge says more when asked', 'the badge says more when it is asked'],
    ['and POLLING when falling back; the reader is told', 'without WebSocket the page falls back'],
    ['PAUSED keeps everything back; what came meanwhile comes on return', 'a pause keeps everything back'],
    ['It reconnects with back-off and jitter, no end to the attempts, nothing missed or shown twice', 'again and again'],
    ['“Retry now” after five attempts', 'without a gateway it tries on and on'],
    ['Numbers and lists load first, then go live without a hole and a double', 'a booking that is published appears'],
    ['A chart goes on live where its history ends', 'repair: the revenue chart'],
    ['Charts and feeds look back as far as the reader wishes', 'a time range narrows charts'],
    ['Toasts close, pause under the pointer, and go by themselves', 'a toast can be closed'],
    ['Toasts stack at most five', 'at most five announcements'],
    ['Toasts and everything else speak to screen readers', 'nothing wrong for those who cannot see'],
    ['Everything is reached by the keyboard', 'the keyboard reaches the list'],
    ['One sound per kind, off until wished, never before the browser allows it', 'a sound for each kind'],
    ['A phone’s width is enough', 'a phone has everything'],
    ['Many tabs in step', 'two tabs agree'],
    ['Many tabs, one connection', 'many tabs have one connection'],
    ['Many people in step', 'deliveries: several admins are in step'],
    ['Nothing is announced again after F5', 'after a reload everything is there'],
    ['Connected in half a second', 'opens already signed in'],
    ['An event on the screen in 100 ms, a toast in one frame, memory flat, an idle page rests and asks for nothing', 'ten thousand rows'],
    ['Live again within a second of the network’s return', 'a network that was cut'],
    ['A sleeping machine catches up', 'a frozen page catches up'],
    ['A wrong clock keeps nothing back', 'a clock that is wrong'],
    ['A sign-in that ends while nobody looks is asked for again', 'a sign-in that ends'],
    ['Blocked storage is done without', 'storage that is blocked'],
    ['Malformed frames, unknown messages and newer servers break nothing', 'malformed and unknown messages'],
    ['A slow line shows the numbers', 'a slow line'],
  ],
  bookings: [
    ['Four cards with value, change, trend and sparkline', 'four cards show'],
    ['New, confirmed, cancelled: a booking changes state in place', 'a booking that is published appears'],
    ['Toasts of ten seconds with icon by category and badge', 'a booking that is published appears'],
    ['Numbers are those the gateway says, and move with an event', 'a booking that is published appears'],
    ['Three sounds', 'a sound for each kind'],
    ['The list is filtered by words', 'the keyboard reaches the list'],
    ['WebSocket health view', 'a diagnosis names what is wrong'],
  ],
  property: [
    ['Views of six roles; every number of the dashboard', 'property: every view'],
    ['Owners and managers see their own properties’ rooms only', 'property: owners and managers'],
    ['One HTTP call reaches room, role and users', 'property: one call'],
    ['A bell with unread count, priorities, groups, read one and all', 'property: the bell'],
    ['Preferences: mute by type and room, quiet hours, on every device', 'property: what is muted'],
    ['Who is on which page, last seen', 'property: who is here'],
    ['Statistics: connections, rooms, who is connected; who may see an event', 'property: the operators'],
    ['Buttons: connect, disconnect, refresh', 'deliveries: a command'],
  ],
  repair: [
    ['Four numbers, a chart with its history, a feed', 'repair: every view'],
    ['A revenue chart that loads its history and goes on live', 'repair: the revenue chart'],
    ['Insert and update are events with old and new row; the feed tells each step', 'repair: a ticket changes'],
    ['Contact details only for roles that may', 'repair: contacts'],
    ['Polling for the numbers when nothing else works', 'without WebSocket the page falls back'],
    ['Actions taken offline are queued and sent once', 'commands that wait survive a reload'],
    ['Several dashboards open at once agree', 'two tabs agree'],
  ],
  deliveries: [
    ['Four pages: dashboard, customers, analytics, users and vendors', 'deliveries: every view'],
    ['Vendors ranked; several admins in step', 'deliveries: several admins are in step'],
    ['A command tells its sender what came of it; offline it waits and is sent once', 'deliveries: a command'],
    ['A notice when the mode changes', 'without WebSocket the page falls back'],
    ['Hooks for React', 'the page has typed events'],
  ],
  restaurant: [
    ['Nothing twice, over WebSocket and polling alike', 'without WebSocket the page falls back'],
    ['Nothing old announced; a click opens the order; F5 announces everything new', 'restaurant: an order is announced once'],
    ['Polling takes over at once and ends when the socket is back', 'where WebSockets are not let through'],
    ['Orders and reservations each have their view', 'restaurant: every view'],
    ['A diagnosis says why nothing arrives', 'a diagnosis names what is wrong'],
    ['Money and telephone numbers for those who may see them', 'restaurant: waiters see'],
  ],
};

test('every sentence has its test', () => {
  const names = FILES.flatMap((file) => [...readFileSync(join(HERE, file), 'utf8').matchAll(/^ *test\(['`]((?:[^'`\\]|\\.)*)/gm)].map(([, name]) => name));
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
