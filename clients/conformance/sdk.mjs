// The TypeScript SDK as a command that the runner can judge: prints what it delivers, events and state values alike.
// Needs the built SDK (npm run build in clients), and `ws` where Node has no WebSocket of its own.
import { Client } from "../js/dist/index.js";
const webSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket;
const print = (event) => event && process.stdout.write(`${JSON.stringify(event)}\n`);
const client = new Client({ url: process.env.ROOMCAST_GATEWAY, token: process.env.ROOMCAST_VIEWER_TOKEN, webSocket, transports: ["websocket"], name: "conformance" });
client.subscribe(process.env.ROOMCAST_ROOM ?? "bookings", {
  history: 0,
  onEvent: print,
  onState: (change) => print(change.event),
  onError: (error) => console.error(error.code, error.message),
});
client.onConnection((state) => {
  if (state.status !== "closed") return;
  console.error("ended for good:", state.error?.code);
  process.exit(1);
});
client.connect();
