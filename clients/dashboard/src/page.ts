/** The page's configuration, `/page.json`: public, written by whoever runs the gateway, so read without trust. */

import { iconName, type IconName } from './icons.js';
import { readView, type ViewConfig } from './view-config.js';
import { broken, object, optionalText, text } from './read.js';

export { PageError } from './read.js';

/** The colours a mark may have; each also has an icon and a word. */
export type Tone = 'accent' | 'green' | 'amber' | 'red' | 'grey';
/** The sounds there are. */
export type Sound = 'info' | 'success' | 'alert';

/** How a state or a kind is written: word, icon and colour say the same. */
export interface Mark {
  readonly word: string;
  readonly icon: IconName;
  readonly tone: Tone;
}

/** What a type of event looks like wherever it appears. Texts are templates over the event: `{data.customer}`. */
export interface EventConfig {
  /** What people call such events, in the plural: in preferences. */
  readonly label: string | undefined;
  /** Which of the marks; default: the type. */
  readonly mark: string;
  /** Name of an icon, a template. */
  readonly icon: string | undefined;
  readonly title: string;
  readonly line: string;
  /** Announced when it is news. */
  readonly toast: boolean;
  readonly sound: Sound | undefined;
}

/** A command that people may give. */
export interface CommandConfig {
  readonly name: string;
  readonly label: string;
  /** What is sent, its texts filled from the entry the button stands at. */
  readonly data: unknown;
  /** Which entries have the button, by mark; without, all. */
  readonly marks: readonly string[] | undefined;
}

/** Addresses of admin ports, as exact origins. */
export interface AdminPorts {
  readonly gateway: readonly string[];
  readonly ingest: readonly string[];
  readonly aggregator: readonly string[];
}

/** Everything the page must know before it connects. */
export interface PageConfig {
  readonly scenario: string;
  readonly title: string;
  /** IANA name of the business's zone. */
  readonly timezone: string;
  readonly currency: string;
  /** Where the numbers of the cards come. */
  readonly metrics: string;
  /** Where notifications come; without, there is no bell. */
  readonly notifications: string | undefined;
  /** The room whose people are shown in the bar. */
  readonly presence: string | undefined;
  /** What people call rooms; `property.*` is all of that kind, its `*` what comes after the dot. */
  readonly rooms: ReadonlyMap<string, string>;
  /** How long an announcement stays, in milliseconds. */
  readonly toastMs: number;
  readonly events: ReadonlyMap<string, EventConfig>;
  readonly marks: ReadonlyMap<string, Mark>;
  readonly views: readonly ViewConfig[];
  /** Where events are published, for the examples shown to developers. */
  readonly ingest: string | undefined;
  readonly admin: AdminPorts;
}

/** Views a rail has room for. */
const VIEWS_MAX = 6;
/** Seconds an announcement may stay. */
const TOAST_SECONDS = { usual: 10, least: 2, most: 60 };

/** Checks what came. Throws {@link PageError} naming the first thing that is wrong. */
export function readPage(body: unknown): PageConfig {
  const page = object(body, 'page.json');
  const views = page['views'];
  if (!Array.isArray(views) || views.length === 0) throw broken('views', 'a list that is not empty');
  const seconds = page['toast_seconds'];
  const stay = typeof seconds === 'number' ? Math.min(TOAST_SECONDS.most, Math.max(TOAST_SECONDS.least, seconds)) : TOAST_SECONDS.usual;
  const read = views.slice(0, VIEWS_MAX).map((view, index) => readView(view, `views[${index}]`));
  const twice = read.find((view, index) => read.findIndex(({ id }) => id === view.id) !== index);
  if (twice !== undefined) throw broken('views', `a list without ${twice.id} twice`);
  return {
    scenario: optionalText(page['scenario']) ?? 'roomcast',
    title: text(page['title'], 'title'),
    timezone: zone(page['timezone']),
    currency: typeof page['currency'] === 'string' && /^[A-Z]{3}$/.test(page['currency']) ? page['currency'] : 'USD',
    metrics: text(page['metrics'], 'metrics'),
    notifications: optionalText(page['notifications']),
    presence: optionalText(page['presence']),
    rooms: new Map(Object.entries(object(page['rooms'] ?? {}, 'rooms')).map(([name, value]) => [name, text(value, `rooms.${name}`)])),
    toastMs: stay * 1_000,
    events: new Map(Object.entries(object(page['events'] ?? {}, 'events')).map(([type, value]) => [type, readEvent(value, type)])),
    marks: new Map(Object.entries(object(page['marks'] ?? {}, 'marks')).map(([name, value]) => [name, readMark(value, name)])),
    views: read,
    ingest: optionalText(page['ingest']),
    admin: readAdmin(page['admin']),
  };
}

/** A mark for a name that has none: the name itself, without a colour. */
export function markOf(config: Pick<PageConfig, 'marks'>, name: string): Mark {
  return config.marks.get(name) ?? { word: name.replaceAll('_', ' '), icon: 'dot', tone: 'grey' };
}

function readEvent(value: unknown, type: string): EventConfig {
  const event = object(value, `events.${type}`);
  const sound = event['sound'];
  return {
    label: optionalText(event['label']),
    mark: optionalText(event['mark']) ?? type,
    icon: optionalText(event['icon']),
    title: text(event['title'], `events.${type}.title`),
    line: optionalText(event['line']) ?? '',
    toast: event['toast'] === true,
    sound: sound === 'info' || sound === 'success' || sound === 'alert' ? sound : undefined,
  };
}

function readMark(value: unknown, name: string): Mark {
  const mark = object(value, `marks.${name}`);
  const tone = mark['tone'];
  return {
    word: text(mark['word'], `marks.${name}.word`),
    icon: iconName(mark['icon']) ?? 'dot',
    tone: tone === 'accent' || tone === 'green' || tone === 'amber' || tone === 'red' ? tone : 'grey',
  };
}

function readAdmin(value: unknown): AdminPorts {
  const admin = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  const list = (part: unknown): string[] => (Array.isArray(part) ? part.filter((one): one is string => typeof one === 'string' && /^https?:\/\/[^/\s]+$/.test(one)) : []);
  return { gateway: list(admin['gateway']), ingest: list(admin['ingest']), aggregator: list(admin['aggregator']) };
}

function zone(value: unknown): string {
  const name = text(value, 'timezone');
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return name;
  } catch {
    throw broken('timezone', 'an IANA time zone');
  }
}
