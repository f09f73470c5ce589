/** The icons in use, by what they stand for, so that one thing has one icon everywhere. */

import {
  ArrowDownRight,
  ArrowRight,
  ArrowUpRight,
  Building2,
  CalendarCheck2,
  CarFront,
  CircleCheck,
  CirclePlus,
  CircleX,
  Compass,
  Bus,
  Package,
  PlugZap,
} from 'lucide-react';
import type { LucideIcon } from 'lucide-react';
import type { BookingStatus, Category } from './bookings.js';
import type { Direction } from './metric.js';

const VIEW_ICONS = { bookings: CalendarCheck2, connection: PlugZap } satisfies Record<string, LucideIcon>;
/** Icons of views. */
export type IconName = keyof typeof VIEW_ICONS;

const CATEGORY: Record<Category, LucideIcon> = { property: Building2, car: CarFront, transfer: Bus, tour: Compass, other: Package };
const CATEGORY_WORD: Record<Category, string> = { property: 'Property', car: 'Car', transfer: 'Transfer', tour: 'Tour', other: 'Other' };
const STATUS: Record<BookingStatus, LucideIcon> = { new: CirclePlus, confirmed: CircleCheck, cancelled: CircleX };
const STATUS_WORD: Record<BookingStatus, string> = { new: 'New', confirmed: 'Confirmed', cancelled: 'Cancelled' };
const DIRECTION: Record<Direction, LucideIcon> = { up: ArrowUpRight, down: ArrowDownRight, flat: ArrowRight };

/** A view's icon. */
export function ViewIcon({ name }: { name: IconName }) {
  const Icon = VIEW_ICONS[name];
  return <Icon size={18} aria-hidden />;
}

/** A category's icon on its tile. */
export function CategoryIcon({ category }: { category: Category }) {
  const Icon = CATEGORY[category];
  return (
    <span className="category" data-category={category} title={CATEGORY_WORD[category]}>
      <Icon size={16} aria-hidden />
      <span className="sr-only">{CATEGORY_WORD[category]}</span>
    </span>
  );
}

/** A booking's status: colour, icon and word say the same. */
export function StatusChip({ status }: { status: BookingStatus }) {
  const Icon = STATUS[status];
  return (
    <span className="chip" data-status={status}>
      <Icon size={13} strokeWidth={2.25} aria-hidden />
      {STATUS_WORD[status]}
    </span>
  );
}

/** The arrow of a change. */
export function DirectionIcon({ direction }: { direction: Direction }) {
  const Icon = DIRECTION[direction];
  return <Icon size={14} strokeWidth={2.25} aria-hidden />;
}
