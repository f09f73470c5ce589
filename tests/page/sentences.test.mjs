/** Which test holds which sentence of what the page promises. A sentence names a test that exists; the table is printed. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, '../..');
const FILES = ['page.test.mjs', 'lines.test.mjs', 'scenarios.test.mjs', 'states.test.mjs', 'sdk.test.mjs', 'quickstart.test.mjs'];
const GATEWAY = 'services/edge-gateway/tests/sockets';
const AGGREGATOR = 'services/metrics-aggregator/src/engine';
/** Beginnings of browser tests' names; `file: name` is a test elsewhere, in Rust its function. */
const SENTENCES = {
  'Common to all': [
    ['The badge has three faces: LIVE with the transport’s name, CONNECTING, PAUSED by the user’s choice', 'the badge goes through its faces'],
    ['and a fourth when falling back: POLLING', 'without WebSocket the page falls back'],
    ['The badge says more when asked', 'the badge says more when it is asked'],
    ['PAUSED keeps everything back; what came meanwhile comes on return', 'a pause keeps everything back'],
    ['Reconnect with exponential back-off and jitter', 'clients/js/src/backoff.test.ts: stays within its bounds for every attempt and chance'],
    ['no end to the attempts', 'clients/js/src/machine.test.ts: never gives up and counts its failures'],
    ['A “retry now” button after five', 'without a gateway it tries on and on'],
    ['Killed again and again, nothing is missed or shown twice', 'again and again'],
    ['Numbers and lists load over HTTP first, then go live without a hole and without a double', 'a booking that is published appears'],
    ['A chart goes on live where its history ends', 'repair: the revenue chart'],
    ['Charts and feeds look back as far as the reader wishes', 'a time range narrows charts'],
    ['Toasts are animated, closable, pause under the pointer', 'a toast can be closed'],
    ['announce themselves to screen readers', 'nothing wrong for those who cannot see'],
    ['and stack at most five', 'at most five announcements'],
    ['Everything is reached by the keyboard', 'the keyboard reaches the list'],
    ['One sound per kind of event, off until the user turns it on, never before the browser allows it', 'a sound for each kind'],
    ['Phone width', 'a phone has everything'],
    ['Many tabs in step', 'two tabs agree'],
    ['Many tabs, one connection', 'many tabs have one connection'],
    ['in a worker, with a fallback', 'the connection lives in a worker'],
    ['A worker that dies loses nothing', 'a worker that dies is replaced'],
    ['A hidden tab costs no frames but pings', 'a hidden tab costs no frames'],
    ['Many people in step', 'deliveries: several admins are in step'],
    ['Nothing re-announced after F5', 'after a reload everything is there'],
    ['Connected in < 500 ms', 'opens already signed in'],
    ['An event on the screen in < 100 ms', 'a booking that is published appears'],
    ['A toast rendered inside one 60 Hz frame, < 1 % CPU idle, 99 % fewer requests than polling; 10,000 rows stay smooth', 'ten thousand rows'],
    ['Page memory flat over an hour at 20 events/s; frames at 100 events/s', 'an hour at twenty events'],
    ['Live again within a second of the network’s return', 'a network that was cut'],
    ['A sleeping machine catches up', 'a frozen page catches up'],
    ['A wrong clock keeps nothing back', 'a clock that is wrong'],
    ['A sign-in that ends while nobody looks is asked for again', 'a sign-in that ends'],
    ['Blocked storage is done without', 'storage that is blocked'],
    ['Malformed frames, unknown messages and newer servers break nothing', 'malformed and unknown messages'],
    ['A slow line shows the numbers', 'a slow line'],
    ['Loading, empty, error, forbidden, offline, stale: each state is designed', 'loading: the shape'],
    ['', 'empty: how the first'],
    ['', 'forbidden: what is missing'],
    ['', 'offline: the data stays'],
    ['', 'stale: the gateway'],
    ['', 'stalled: a number'],
    ['', 'connecting: the gateway answers'],
    ['', 'nobody is signed in'],
    ['', 'without its configuration'],
  ],
  bookings: [
    ['booking:new, booking:confirmed, booking:cancelled: a booking changes state in place', 'a booking that is published appears'],
    ['A new booking every 8–15 s, each confirmed or cancelled 5–10 s later', 'services/cli/src/scenario/generator.rs: live_goes_on_from_history_at_an_even_pace'],
    ['Every event coherent', 'services/cli/src/scenario/generator.rs: every_event_is_coherent'],
    ['deterministic by seed', 'services/cli/src/scenario/generator.rs: the_same_seed_tells_the_same_and_another_something_else'],
    ['Revenue: the sum of confirmed, in TRY', 'a booking that is published appears'],
    ['Customers are distinct; conversion is a share', 'customers are counted once'],
    ['Each with % against the previous period and direction', 'four cards show'],
    ['An update within 250 ms of an event, at most 4 a second', `${AGGREGATOR}/rules/shown.rs: at_most_every_drops_updates_in_between_and_never_a_windows_last`],
    ['and at each step of the window', `${AGGREGATOR}/window.rs: sliding_windows_end_at_the_next_step`],
    ['Four cards with trend and sparkline', 'four cards show'],
    ['A live list of bookings', 'a booking that is published appears'],
    ['Toasts of 10 s with icon by category and badge New / Confirmed / Cancelled', 'a booking that is published appears'],
    ['Three sounds (info, success, alert)', 'a sound for each kind'],
    ['Notification centre with history, filter by type', 'property: the bell'],
    ['Preferences', 'property: what is muted'],
    ['Desktop notifications', 'the desktop is told'],
    ['Error telemetry', 'clients/js/src/client.test.ts: a listener that throws hurts nobody else'],
    ['WebSocket health view', 'a diagnosis names what is wrong'],
  ],
  property: [
    ['Views of six roles; every number of the dashboard', 'property: every view'],
    ['The six roles, their rooms and what is taken out', 'services/cli/tests/main/scenarios.rs: property'],
    ['Owners and managers see their own properties’ rooms only', 'property: owners and managers'],
    ['booking_update, property_update, alert_update, metric_update, user_activity, dashboard_update', 'property: every view'],
    ['One HTTP call: type, data, affected users, optionally a room or a role', 'property: one call'],
    ['to room, to user, to role', 'services/ingest/tests/main/triggers.rs: one_call_reaches_a_room_a_role_and_users'],
    ['The same address answers statistics: connections, rooms, users per room, who is connected', 'services/ingest/tests/main/statistics.rs: a_backend_hears_who_is_connected'],
    ['Bell with unread count, four priorities (critical first), grouped by type with counts, read one / read all', 'property: the bell'],
    ['Low priority cleans itself up', 'property: a notification that is over'],
    ['Activity: who is on which page, last seen', 'property: who is here'],
    ['', 'users publish, say what they do'],
    ['Buttons: connect, disconnect, refresh', 'connect, disconnect, refresh'],
    ['Numbers without an event behind them move all the same', `${AGGREGATOR}/window.rs: sliding_windows_end_at_the_next_step`],
    ['Audit of who saw what: who may see an event, and why', 'property: the operators'],
    ['and what users were refused is on record', 'tests/e2e/tests/admin/record.rs: what_users_are_refused_is_on_record'],
    ['Operators try policies and metrics before they are in force', 'property: the operators'],
  ],
  repair: [
    ['Nobody publishes: Roomcast reads the changes', 'services/cli/tests/main/scenarios.rs: repair_lives_on_a_database'],
    ['Insert, update and delete of each become events with old and new row', 'services/capture/src/event/tests.rs: updates_say_what_was_and_what_is_not_known'],
    ['', 'services/capture/src/event/tests.rs: a_row_that_is_gone_is_what_it_was'],
    ['Total revenue, active repairs, new tickets in 24 h, products sold', 'repair: every view'],
    ['Active repairs are right after a restart and for rows that existed before', 'services/ingest/tests/main/capture.rs: rows_of_before_and_changes_after_make_one_history'],
    ['', `${AGGREGATOR}/naive/mod.rs: every_gauge_equals_its_recomputation`],
    ['A revenue chart that loads its history and goes on live', 'repair: the revenue chart'],
    ['Activity feed: new ticket, ticket changed status, order placed …', 'repair: a ticket changes'],
    ['HTTP endpoint for the first load', `${GATEWAY}/routes.rs: rooms_are_read_at_one_cut_and_gone_on_with_live`],
    ['Periodic polling for the critical numbers when nothing else works', 'without WebSocket the page falls back'],
    ['Actions taken offline are queued and sent once, on return', 'clients/js/src/commands.test.ts: wait for a connection, then go in order, each once'],
    ['also after a reload', 'commands that wait survive a reload'],
    ['Several dashboards open at once agree to the number', 'two tabs agree'],
    ['Sanitised data: contact details only for roles that may', 'repair: contacts'],
    ['Rate and connection limits', `${GATEWAY}/limits.rs: operations_have_rates_over_all_connections_and_routes_of_a_user`],
    ['', `${GATEWAY}/limits.rs: a_user_and_a_tenant_have_so_many_connections`],
    ['Compressed messages, where they are long: what is loaded and polled', `${GATEWAY}/packed.rs: who_takes_gzip_gets_the_same_answers_in_fewer_bytes`],
    ['Frequent updates merged', `${GATEWAY}/slow.rs: a_busy_rooms_events_leave_together_and_a_lone_one_at_once`],
    ['', `${GATEWAY}/slow.rs: a_slow_reader_gets_the_newest_state_instead_of_the_end`],
  ],
  deliveries: [
    ['stats:updated, delivery:updated, payment:added, customer:updated, activity:updated, error', 'services/cli/tests/main/scenarios.rs: deliveries'],
    ['Four pages: dashboard, customers, analytics, users and vendors', 'deliveries: every view'],
    ['Several admins in step; vendors’ activity and status', 'deliveries: several admins are in step'],
    ['Hooks for React: socket, stats, deliveries, payments, customers, activity, health', 'the files of the README are typed'],
    ['One provider for the whole app', 'the page has typed events'],
    ['Live data preferred, HTTP as the fallback, with a visible hint of which it is', 'without WebSocket the page falls back'],
    ['A user notice when the mode changes', 'without WebSocket the page falls back'],
    ['A command changes the delivery for all admins at once', 'deliveries: several admins are in step'],
    ['runs once however often it is sent', 'tests/e2e/tests/commands.rs: a_command_is_carried_out_once_and_its_result_given_to_every_repeat'],
    ['tells the sender what came of it', 'deliveries: a command'],
    ['Existing Socket.IO clients (web and mobile) keep working', 'deliveries: clients that speak Socket.IO'],
  ],
  restaurant: [
    ['Never show the same thing twice, over WebSocket and polling alike', 'where WebSockets are not let through'],
    ['Never announce what was there before the page loaded; F5 announces nothing old but everything new', 'restaurant: an order is announced once'],
    ['WebSocket lost: polling takes over at once with the same memory', 'where WebSockets are not let through'],
    ['Reconnects after 1, 2, 4, 8, 16 s (with jitter)', 'clients/js/src/backoff.test.ts: stays within its bounds for every attempt and chance'],
    ['Polling ends when the socket is back', 'where WebSockets are not let through'],
    ['A click on the toast opens the order', 'restaurant: an order is announced once'],
    ['Sound once the user has touched the page', 'a sound for each kind'],
    ['A diagnosis view tells why nothing arrives: token, transport, rights, clock, last event', 'a diagnosis names what is wrong'],
    ['', 'a clock that is wrong'],
    ['Orders and reservations each have their view', 'restaurant: every view'],
    ['Money and telephone numbers for those who may see them', 'restaurant: waiters see'],
  ],
};
/** Sentences that nothing holds, and why. */
const NOT_THERE = [['repair', 'Compressed messages on a live line', 'left out on purpose: ARCHITECTURE.md, deliberately absent']];

/** The name of a test elsewhere, where its file has it. */
function elsewhere(file, name) {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const found = file.endsWith('.rs') ? new RegExp(`fn ${name}\\(`).test(text) : text.includes(name);
  return found ? [`${file}: ${name}`] : [];
}

test('every sentence has its test', () => {
  const names = FILES.flatMap((file) => [...readFileSync(join(HERE, file), 'utf8').matchAll(/^ *test\(['`]((?:[^'`\\]|\\.)*)/gm)].map(([, name]) => name));
  const lines = [];
  for (const [business, sentences] of Object.entries(SENTENCES)) {
    for (const [sentence, held] of sentences) {
      const [, file, name] = /^(\S+\.(?:rs|ts)): (.+)$/.exec(held) ?? [];
      const found = file === undefined ? names.filter((one) => one.startsWith(held)) : elsewhere(file, name);
      assert.equal(found.length, 1, `${business}: ${sentence}: ${held}: ${found.length} tests`);
      lines.push(`    ${business.padEnd(14)} ${sentence === '' ? '  and' : sentence} → ${found[0]}`);
    }
  }
  for (const [business, sentence, why] of NOT_THERE) lines.push(`    ${business.padEnd(14)} ${sentence} → ${why}`);
  console.log(lines.join('\n'));
});
