/** Roomcast in the browser and in Node. See README.md for the quick start. */

export { Client, VERSION, type ClientOptions, type Subscription } from './client.js';
export type { Counters } from './counters.js';
export type { TokenReason, TokenSource } from './credentials.js';
export { RoomcastError, type ErrorCode, type ErrorFacts } from './error.js';
export type { CloudEvent, Delivery, EventMap, EventOf, Reset, StateChange } from './event.js';
export type { Session } from './frame.js';
export type { HistoryPage, Snapshot } from './http.js';
export type { SocketClass, SocketLike } from './link.js';
export type { ConnectionState, ConnectionStatus } from './machine.js';
export type { RoomHandlers } from './room.js';
