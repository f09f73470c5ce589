// Publishes one booking over HTTP. Answer on standard output; exit 0 stored, 65 refused, 69 not reached.
import { readFileSync } from "node:fs";
try {
  const env = Object.fromEntries([...readFileSync(".roomcast/dev.env", "utf8").matchAll(/^(\w+)=(.*)$/gm)].map((m) => [m[1], m[2]]));
  const data = { id: `bk-js-${process.pid}`, customer: "Elif Kaya", country: "TR", category: "tour",
    title: "Bosphorus cruise at sunset", duration: "3 hours", amount: 4250.5, currency: "TRY" };
  const answer = await fetch(`${env.ROOMCAST_INGEST}/v1/events`, { method: "POST", signal: AbortSignal.timeout(10_000),
    headers: { authorization: `Bearer ${env.ROOMCAST_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify({ type: "booking:new", room: "bookings", audience: "staff", data }) });
  console.log(await answer.text());
  process.exitCode = answer.ok ? 0 : answer.status >= 500 || answer.status === 429 ? 69 : 65;
} catch (error) {
  process.exitCode = (console.error(error.cause?.message ?? error.message), 69);
}
