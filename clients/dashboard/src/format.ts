/** Numbers, money and times in the reader's language and the business's zone. Formatters are made once: making them is slow. */

import type { PageConfig } from './page.js';
import type { NumberFormat as CardFormat } from './view-config.js';

type NumberText = Parameters<Intl.NumberFormat['format']>[0];

/** Writes everything the page shows. */
export class Format {
  readonly zone: string;
  /** The zone's city, when it is not the reader's own. */
  readonly foreignZone: string | undefined;
  readonly #locale: string | undefined;
  readonly #formats = new Map<string, Intl.NumberFormat>();
  readonly #time: Intl.DateTimeFormat;
  readonly #shortTime: Intl.DateTimeFormat;
  readonly #day: Intl.DateTimeFormat;
  readonly #date: Intl.DateTimeFormat;
  readonly #full: Intl.DateTimeFormat;
  /** Where in its day, week and month an instant lies, whatever the reader's language. */
  readonly #place: Intl.DateTimeFormat;
  readonly #relative: Intl.RelativeTimeFormat;
  readonly #regions: Intl.DisplayNames;
  readonly #countries = new Map<string, string>();
  /** The business's currency. */
  readonly currency: string;

  constructor(config: Pick<PageConfig, 'timezone' | 'currency'>, locale?: string) {
    this.#locale = locale;
    this.zone = config.timezone;
    this.currency = config.currency;
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    this.foreignZone = own === config.timezone ? undefined : config.timezone.split('/').at(-1)?.replaceAll('_', ' ');
    const timeZone = config.timezone;
    this.#time = new Intl.DateTimeFormat(locale, { timeZone, hour: '2-digit', minute: '2-digit', second: '2-digit' });
    this.#shortTime = new Intl.DateTimeFormat(locale, { timeZone, hour: '2-digit', minute: '2-digit' });
    this.#day = new Intl.DateTimeFormat(locale, { timeZone, day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });
    this.#date = new Intl.DateTimeFormat(locale, { timeZone, day: 'numeric', month: 'short' });
    this.#full = new Intl.DateTimeFormat(locale, { timeZone, dateStyle: 'medium', timeStyle: 'long' });
    this.#place = new Intl.DateTimeFormat('en-GB', { timeZone, weekday: 'short', day: 'numeric', hour: 'numeric', minute: 'numeric', hourCycle: 'h23' });
    this.#relative = new Intl.RelativeTimeFormat(locale, { style: 'narrow', numeric: 'always' });
    this.#regions = new Intl.DisplayNames(locale ?? [], { type: 'region' });
  }

  /** A card's number. Decimal text is formatted exactly; whole numbers when they are large. */
  card(value: string | number, format: CardFormat): string {
    const size = Math.abs(Number(value));
    switch (format) {
      case 'currency':
        return this.#number(value, `c${size >= 1000}`, { style: 'currency', currency: this.currency, currencyDisplay: 'narrowSymbol', ...(size >= 1000 ? { maximumFractionDigits: 0 } : {}) });
      case 'percent':
        return this.#number(value, 'p', { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });
      case 'number':
        return this.#number(value, 'n', { maximumFractionDigits: 2 });
    }
  }

  /** The same with every digit there is. */
  exact(value: string, format: CardFormat): string {
    const digits = { minimumFractionDigits: 0, maximumFractionDigits: 12 };
    if (format === 'currency') return this.#number(value, 'ce', { style: 'currency', currency: this.currency, currencyDisplay: 'narrowSymbol', ...digits, minimumFractionDigits: 2 });
    return this.#number(value, `e${format}`, format === 'percent' ? { style: 'percent', ...digits } : digits);
  }

  /** An amount in its own currency. */
  money(amount: number | string | undefined, currency: string): string {
    if (amount === undefined) return '–';
    const known = /^[A-Z]{3}$/.test(currency);
    if (!known) return `${this.#number(amount, 'm', { maximumFractionDigits: 2 })} ${currency}`.trim();
    return this.#number(amount, `m${currency}`, { style: 'currency', currency, currencyDisplay: 'narrowSymbol' });
  }

  /** A change in percent without its sign: the arrow says the direction. */
  change(percent: string): string {
    const size = Math.abs(Number(percent));
    const digits = size < 100 ? 1 : 0;
    return this.#number(size / 100, `ch${digits}`, { style: 'percent', minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  /** A percentage that is said as one: 63 is 63 %. */
  percent(value: number): string {
    return this.#number(value / 100, 'pc', { style: 'percent', maximumFractionDigits: 1 });
  }

  /** A whole number. */
  count(value: number): string {
    return this.#number(value, 'n', { maximumFractionDigits: 2 });
  }

  /** 14:03:07; with `now` its day stands in front where that is another one: 4 Mar, 14:03:07. */
  time(at: number, now = at): string {
    return this.#withDay(this.#time, at, now);
  }

  /** 14:03, or 4 Mar, 14:03. */
  shortTime(at: number, now = at): string {
    return this.#withDay(this.#shortTime, at, now);
  }

  /** 14:00, or 4 Mar where a step is a day or longer: an axis. */
  tick(at: number, step: number): string {
    return step >= 86_400_000 ? this.#date.format(at) : this.#shortTime.format(at);
  }

  /** A number on an axis: 12K. */
  short(value: number): string {
    return this.#number(value, 'short', { notation: 'compact', maximumFractionDigits: 1 });
  }

  /** 4 Mar, 14:03 – 5 Mar, 14:03 */
  range(from: number, to: number): string {
    return this.#day.formatRange(from, to);
  }

  /** 5 Mar 2026, 14:03:07 GMT+3 */
  full(at: number): string {
    return this.#full.format(at);
  }

  /** "now", "2 min ago"; ages with the clock it is given. */
  ago(at: number, now: number): string {
    const seconds = Math.max(0, Math.round((now - at) / 1_000));
    if (seconds < 10) return 'now';
    if (seconds < 60) return this.#relative.format(-seconds, 'second');
    if (seconds < 3_600) return this.#relative.format(-Math.floor(seconds / 60), 'minute');
    if (seconds < 86_400) return this.#relative.format(-Math.floor(seconds / 3_600), 'hour');
    return this.#relative.format(-Math.floor(seconds / 86_400), 'day');
  }

  /** "24h" for a window of that length. */
  span(ms: number): string {
    const units = [['day', 86_400_000], ['hour', 3_600_000], ['minute', 60_000]] as const;
    // A day reads better as 24 h, because it slides.
    const [unit, size] = units.find(([name, length]) => ms % length === 0 && (name !== 'day' || ms > length)) ?? ['second', 1_000];
    return new Intl.NumberFormat(this.#locale, { style: 'unit', unit, unitDisplay: 'narrow' }).format(ms / size);
  }

  /** What a window is compared with: "yesterday" for a day of the business's calendar, "previous 24h" for one that slides. */
  before(start: number, end: number): string {
    const of = new Map(this.#place.formatToParts(start).map(({ type, value }) => [type, value]));
    const days = (end - start) / 86_400_000;
    // A day in which the clock is changed has an hour more or less.
    const lasts = (least: number, most = least): boolean => days > least - 0.05 && days < most + 0.05;
    if (Number(of.get('hour')) + Number(of.get('minute')) === 0) {
      if (lasts(1)) return 'yesterday';
      if (lasts(7) && of.get('weekday') === 'Mon') return 'last week';
      if (lasts(28, 31) && of.get('day') === '1') return 'last month';
    }
    // It grows: what it is compared with is as long as it is now.
    return (end - start) % 60_000 === 0 ? `previous ${this.span(end - start)}` : 'the same time before';
  }

  /** A country's name for its code. */
  country(code: string): string {
    let name = this.#countries.get(code);
    if (name === undefined) {
      try {
        name = this.#regions.of(code) ?? code;
      } catch {
        name = code;
      }
      // There are some 250; what is none is not kept.
      if (code.length === 2) this.#countries.set(code, name);
    }
    return name;
  }

  #withDay(format: Intl.DateTimeFormat, at: number, now: number): string {
    const day = this.#date.format(at);
    const isToday = Math.abs(now - at) < 86_400_000 && day === this.#date.format(now);
    return isToday ? format.format(at) : `${day}, ${format.format(at)}`;
  }

  #number(value: string | number, key: string, options: Intl.NumberFormatOptions): string {
    let format = this.#formats.get(key);
    if (format === undefined) {
      format = new Intl.NumberFormat(this.#locale, options);
      this.#formats.set(key, format);
    }
    return format.format(value as NumberText);
  }
}
