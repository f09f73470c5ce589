/** What the notification centre shows of the bell's notifications: filtered, ordered, grouped by kind. Pure; the SDK keeps them true. */

import { groupNotifications, type Notification, type NotificationGroup, type NotificationsView } from 'roomcast';

/** What is shown. */
export interface Filter {
  readonly kind: string | undefined;
  readonly unread: boolean;
  readonly archived: boolean;
}

/** Everything that is not archived. */
export const ALL: Filter = { kind: undefined, unread: false, archived: false };

const PRIORITIES = ['critical', 'high', 'medium', 'low'] as const;

/** What it is about: its category, else its type. */
export function kindOf(notification: Pick<Notification, 'category' | 'type'>): string {
  return notification.category ?? notification.type.replace(/^notification\./, '');
}

/** Whether it waits for its reader. */
export function isUnread({ mark }: Pick<Notification, 'mark'>): boolean {
  return mark === undefined || mark === 'seen';
}

/** The most urgent priority of those that wait; undefined where none does. */
export function worst({ counters }: Pick<NotificationsView, 'counters'>): Notification['priority'] | undefined {
  return PRIORITIES.find((priority) => counters[priority] > 0);
}

/** The kinds there are, by name. */
export function kinds(view: Pick<NotificationsView, 'items' | 'archived'>): string[] {
  return [...new Set([...view.items, ...view.archived].map(kindOf))].sort();
}

/** What a filter lets through, by kind; groups in the order of their most urgent, then newest. */
export function groups(view: Pick<NotificationsView, 'items' | 'archived'>, filter: Filter): NotificationGroup[] {
  const all = filter.archived ? view.archived : view.items;
  const shown = all.filter((one) => (!filter.unread || isUnread(one)) && (filter.kind === undefined || kindOf(one) === filter.kind));
  return groupNotifications(shown.sort(urgentFirst), kindOf);
}

function urgentFirst(a: Notification, b: Notification): number {
  const waits = Number(isUnread(b)) - Number(isUnread(a));
  const urgent = PRIORITIES.indexOf(a.priority) - PRIORITIES.indexOf(b.priority);
  // What was read is no longer urgent.
  return waits !== 0 ? waits : isUnread(a) && urgent !== 0 ? urgent : b.time - a.time;
}

/** Only addresses of the web and of this page: nothing that runs. */
export function safeLink(link: string | undefined): string | undefined {
  return link !== undefined && /^(https?:\/\/|\/(?!\/)|#)/.test(link) ? link : undefined;
}
