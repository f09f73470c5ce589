// Publishes one booking over HTTP: publish.mjs [ID]. Answer on standard output; exit 0 stored, 65 refused, 69 not reached in five attempts.
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const file = ".roomcast/dev.env";
if (!existsSync(file)) {
  console.error(`no ${file} here: run this where 'roomcast dev' runs`);
  process.exit(69);
}
const env = Object.fromEntries([...readFileSync(file, "utf8").matchAll(/^(\w+)=(.*)$/gm)].map((m) => [m[1], m[2]]));
// One id and the same bytes for every attempt: so it is stored once.
const id = process.argv[2] ?? `bk-js-${process.pid}-${Date.now()}`;
const data = { id, customer: "Elif Kaya", country: "TR", category: "tour",
  title: "Bosphorus cruise at sunset", duration: "3 hours", amount: 4250.5, currency: "TRY" };
const body = JSON.stringify({ id, type: "booking:new", room: "bookings", audience: "staff", data });

/** Status, the pause that is asked for, and what was said; status 0 is no answer. */
async function attempt() {
  try {
    const answer = await fetch(`${env.ROOMCAST_INGEST}/v1/events`, { method: "POST", body, signal: AbortSignal.timeout(10_000),
      headers: { authorization: `Bearer ${env.ROOMCAST_TOKEN}`, "content-type": "application/json" } });
    return [answer.status, Number(answer.headers.get("retry-after")) || 0, await answer.text()];
  } catch (error) {
    return [0, 0, error.cause?.message ?? error.message];
  }
}

for (const pause of [1, 2, 4, 8, null]) {
  const [status, after, said] = await attempt();
  const final = status > 0 && status < 500 && status !== 408 && status !== 429;
  // Who shall wait for longer than this comes back later: after two minutes a repeat is a new event.
  if (final || pause === null || after > 15) {
    (status ? console.log : console.error)(said);
    process.exitCode = status === 200 ? 0 : final ? 65 : 69;
    break;
  }
  await sleep(1_000 * Math.max(pause, after));
}
