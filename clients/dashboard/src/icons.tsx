/** The icons in use, by what they stand for, so that one thing has one icon everywhere. */

import {
  Activity,
  ArrowDownRight,
  ArrowRight,
  ArrowUpRight,
  BadgeCheck,
  Ban,
  Banknote,
  Bell,
  Building2,
  Bus,
  CalendarCheck2,
  CarFront,
  ChartColumn,
  CircleCheck,
  CircleDot,
  CirclePlus,
  CircleX,
  Clock3,
  Compass,
  Eye,
  House,
  LayoutDashboard,
  LogIn,
  LogOut,
  MousePointerClick,
  Package,
  PencilLine,
  PlugZap,
  ShieldCheck,
  ShoppingBag,
  Ticket,
  Trash2,
  TriangleAlert,
  Truck,
  User,
  Users,
  UtensilsCrossed,
  Wallet,
  Wrench,
} from 'lucide-react';
import type { LucideIcon } from 'lucide-react';
import { usePage } from './context.js';
import type { Metric } from 'roomcast';
import { markOf } from './page.js';

const ICONS = {
  activity: Activity,
  admin: ShieldCheck,
  alert: TriangleAlert,
  ban: Ban,
  bell: Bell,
  calendar: CalendarCheck2,
  car: CarFront,
  chart: ChartColumn,
  check: CircleCheck,
  click: MousePointerClick,
  clock: Clock3,
  connection: PlugZap,
  customer: User,
  dashboard: LayoutDashboard,
  done: BadgeCheck,
  dot: CircleDot,
  edit: PencilLine,
  eye: Eye,
  house: House,
  login: LogIn,
  logout: LogOut,
  money: Banknote,
  order: ShoppingBag,
  package: Package,
  plus: CirclePlus,
  property: Building2,
  table: UtensilsCrossed,
  ticket: Ticket,
  tour: Compass,
  transfer: Bus,
  trash: Trash2,
  truck: Truck,
  users: Users,
  wallet: Wallet,
  wrench: Wrench,
  x: CircleX,
} satisfies Record<string, LucideIcon>;

/** A name of an icon. */
export type IconName = keyof typeof ICONS;

type Direction = NonNullable<Metric['direction']>;

const DIRECTION: Record<Direction, LucideIcon> = { up: ArrowUpRight, down: ArrowDownRight, flat: ArrowRight };

/** A name of an icon, or undefined for anything else. */
export function iconName(value: unknown): IconName | undefined {
  return typeof value === 'string' && Object.hasOwn(ICONS, value) ? (value as IconName) : undefined;
}

/** An icon by its name. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  const Drawn = ICONS[name];
  return <Drawn size={size} aria-hidden />;
}

/** An icon on its tile; `name` may be anything, what is no icon is a parcel. */
export function Tile({ name, word }: { name: string; word?: string | undefined }) {
  return (
    <span className="tile" title={word}>
      <Icon name={iconName(name) ?? 'package'} size={16} />
      {word !== undefined && <span className="sr-only">{word}</span>}
    </span>
  );
}

/** A mark: colour, icon and word say the same. */
export function Chip({ mark }: { mark: string }) {
  const { config } = usePage();
  const { word, icon, tone } = markOf(config, mark);
  const Drawn = ICONS[icon];
  return (
    <span className="chip" data-tone={tone} data-mark={mark}>
      <Drawn size={13} strokeWidth={2.25} aria-hidden />
      {word}
    </span>
  );
}

/** The arrow of a change. */
export function DirectionIcon({ direction }: { direction: Direction }) {
  const Drawn = DIRECTION[direction];
  return <Drawn size={14} strokeWidth={2.25} aria-hidden />;
}
