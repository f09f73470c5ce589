/** One view as the configuration describes it: cards, charts, rankings, lists. Read without trust, like the rest of `/page.json`. */

import { iconName, type IconName } from './icons.js';
import type { CommandConfig } from './page.js';
import { broken, object, optionalText, text, texts } from './read.js';

/** How a number is written. */
export type NumberFormat = 'currency' | 'number' | 'percent';

/** One card. */
export interface CardConfig {
  readonly metric: string;
  readonly label: string;
  readonly format: NumberFormat;
  /** The room its number comes in; default: the page's. */
  readonly room: string | undefined;
  /** What the number means, for the tooltip. */
  readonly definition: string | undefined;
  /** What its change is compared with: "last week"; default: what the length of its window lets one guess. */
  readonly versus: string | undefined;
}

/** A number over time: the windows of one metric. */
export interface ChartConfig extends CardConfig {
  readonly kind: 'bars' | 'line';
}

/** The groups of one metric, the largest first. */
export interface RankingConfig extends CardConfig {
  /** Names of groups, by what the key says. */
  readonly names: Readonly<Record<string, string>>;
}

/** One column of a table. Its role says where it stands on a phone. */
export interface ColumnConfig {
  readonly label: string;
  readonly role: 'title' | 'text' | 'soft' | 'amount';
  /** A template over the entry. */
  readonly text: string;
  /** Said softly behind it. */
  readonly soft: string | undefined;
  readonly icon: string | undefined;
}

/** A list of what happened: a table of things that change, or a feed of events. */
export interface ListConfig {
  readonly id: string;
  readonly title: string;
  /** Names of rooms; `property.*` is every such room that is open to the reader. */
  readonly rooms: readonly string[];
  /** Only these types; none named: all that the page knows. */
  readonly types: readonly string[];
  /** Path of what makes two events speak of one thing; without, each event is a row. */
  readonly key: string | undefined;
  /** A template whose value names the mark; default: the event's own. */
  readonly mark: string | undefined;
  /** Marks that can be chosen above the list. */
  readonly filters: readonly string[];
  readonly columns: readonly ColumnConfig[];
  readonly commands: readonly CommandConfig[];
  /** What one row is called, for empty states. */
  readonly noun: string;
  /** An event one may publish, for the empty state. */
  readonly example: unknown;
}

/** One view. */
export interface ViewConfig {
  readonly id: string;
  readonly label: string;
  readonly icon: IconName;
  /** The key that follows `g`. */
  readonly key: string;
  readonly cards: readonly CardConfig[];
  readonly charts: readonly ChartConfig[];
  readonly rankings: readonly RankingConfig[];
  readonly lists: readonly ListConfig[];
  /** Buttons of the view itself. */
  readonly commands: readonly CommandConfig[];
}

/** Cards a view shows at most: more is a table. */
const CARDS_MAX = 8;
const PARTS_MAX = 4;
const COLUMNS_MAX = 6;

/** Reads one view; throws a `PageError` naming what is wrong. */
export function readView(value: unknown, path: string): ViewConfig {
  const view = object(value, path);
  const id = text(view['id'], `${path}.id`);
  if (!/^[a-z][a-z0-9-]*$/.test(id) || RESERVED.has(id)) throw broken(`${path}.id`, 'a word of small letters that the page does not use itself');
  return {
    id,
    label: text(view['label'], `${path}.label`),
    icon: iconName(view['icon']) ?? 'dashboard',
    key: optionalText(view['key'])?.slice(0, 1) ?? id.slice(0, 1),
    cards: part(view['cards'], `${path}.cards`, CARDS_MAX, readCard),
    charts: part(view['charts'], `${path}.charts`, PARTS_MAX, readChart),
    rankings: part(view['rankings'], `${path}.rankings`, PARTS_MAX, readRanking),
    lists: part(view['lists'], `${path}.lists`, PARTS_MAX, readList),
    commands: part(view['commands'], `${path}.commands`, PARTS_MAX, readCommand),
  };
}

/** Views that every page has. */
const RESERVED: ReadonlySet<string> = new Set(['connection', 'admin']);

function part<T>(value: unknown, path: string, most: number, read: (value: unknown, path: string) => T): T[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw broken(path, 'a list');
  return value.slice(0, most).map((one, index) => read(one, `${path}[${index}]`));
}

function readCard(value: unknown, path: string): CardConfig {
  const card = object(value, path);
  const format = card['format'];
  return {
    metric: text(card['metric'], `${path}.metric`),
    label: text(card['label'], `${path}.label`),
    format: format === 'currency' || format === 'percent' ? format : 'number',
    room: optionalText(card['room']),
    definition: optionalText(card['definition']),
    versus: optionalText(card['versus']),
  };
}

function readChart(value: unknown, path: string): ChartConfig {
  return { ...readCard(value, path), kind: object(value, path)['kind'] === 'line' ? 'line' : 'bars' };
}

function readRanking(value: unknown, path: string): RankingConfig {
  const names = object(object(value, path)['names'] ?? {}, `${path}.names`);
  return { ...readCard(value, path), names: Object.fromEntries(Object.entries(names).filter((pair): pair is [string, string] => typeof pair[1] === 'string')) };
}

function readList(value: unknown, path: string): ListConfig {
  const list = object(value, path);
  const rooms = texts(list['rooms']);
  if (rooms.length === 0) throw broken(`${path}.rooms`, 'a list of rooms');
  return {
    id: text(list['id'], `${path}.id`),
    title: text(list['title'], `${path}.title`),
    rooms,
    types: texts(list['types']),
    key: optionalText(list['key']),
    mark: optionalText(list['mark']),
    filters: texts(list['filters']),
    columns: part(list['columns'], `${path}.columns`, COLUMNS_MAX, readColumn),
    commands: part(list['commands'], `${path}.commands`, PARTS_MAX, readCommand),
    noun: optionalText(list['noun']) ?? 'event',
    example: list['example'],
  };
}

function readColumn(value: unknown, path: string): ColumnConfig {
  const column = object(value, path);
  const role = column['role'];
  return {
    label: text(column['label'], `${path}.label`),
    role: role === 'title' || role === 'soft' || role === 'amount' ? role : 'text',
    text: text(column['text'], `${path}.text`),
    soft: optionalText(column['soft']),
    icon: optionalText(column['icon']),
  };
}

function readCommand(value: unknown, path: string): CommandConfig {
  const command = object(value, path);
  const marks = texts(command['marks']);
  return {
    name: text(command['command'], `${path}.command`),
    label: text(command['label'], `${path}.label`),
    data: command['data'] ?? {},
    marks: marks.length === 0 ? undefined : marks,
  };
}
