/** Roomcast in the browser and in Node. See README.md for the quick start. */

export type { CommandOptions, NotificationPush, QueuedCommand, RoomcastClient, RoomStanding, Subscription } from './api.js';
export { Client, VERSION, type ClientOptions, type Logger } from './client.js';
export { indexedDbCommands, type CommandStorage } from './commands.js';
export type { Counters } from './counters.js';
export type { TokenReason, TokenSource } from './credentials.js';
export { RoomcastError, type ErrorCode, type ErrorFacts } from './error.js';
export type { CloudEvent, Delivery, EventMap, EventOf, Reset, StateChange } from './event.js';
export type { Transport } from './follow.js';
export type { Json, NotificationCounters, Presence, PresentUser, Session } from './frame.js';
export type { HistoryPage, Series, SeriesOptions, Snapshot } from './http.js';
export type { SocketClass, SocketLike } from './link.js';
export type { ConnectionState, ConnectionStatus } from './machine.js';
export { goOn, type Place } from './missed.js';
export { readMetric, readUpdate, type Metric, type MetricGroup } from './metric.js';
export {
  groupNotifications,
  notifications,
  type Mark,
  type MarkStorage,
  type Notification,
  type NotificationGroup,
  type NotificationsOptions,
  type NotificationsStore,
  type NotificationsView,
} from './notifications.js';
export type { WorkerLike } from './place.js';
export { announces, preferences, type Preferences, type PreferencesChange, type PreferencesStore, type PreferencesView } from './preferences.js';
export type { RoomHandlers } from './room.js';
export { sharedClient, type SharedOptions } from './shared.js';
export { Cell, select, shallowEqual, type Store } from './store.js';
export {
  connectionStore,
  eventsStore,
  metricStore,
  presenceStore,
  queueStore,
  roomStore,
  seriesStore,
  type EventsOptions,
  type EventsStore,
  type EventsView,
  type PresenceView,
  type RoomView,
  type SeriesView,
} from './views.js';
