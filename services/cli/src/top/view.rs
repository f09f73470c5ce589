//! From two looks to lines. Reads no clock and no terminal.

use std::collections::BTreeMap;

use super::seen::{Aggregator, Connection, Gateway, Ingest, Said, Seen};
pub(super) use super::table::Line;
use super::table::{Table, Tone};
use crate::terminal::harmless;

/// How many of the slow connections are shown: those for which the most waits.
const SLOW_SHOWN: usize = 8;
/// Events that an aggregator has still to read, above which it is not simply at work.
const LAG_EVENTS: u64 = 10_000;

/// Everything, at most `rooms` rooms. Without a look before there are no rates.
pub(super) fn lines(before: Option<&Seen>, now: &Seen, rooms: usize) -> Vec<Line> {
    let seconds = before.map(|before| now.at.saturating_duration_since(before.at).as_secs_f64());
    let pace = Pace(seconds.filter(|seconds| *seconds > 0.0));
    let mut gateways = Table::new(&[
        "GATEWAY", "UP", "STATE", "CLIENTS", "SLOW", "ROOMS", "NEW/s", "ENDED/s", "IN/s", "OUT/s", "BYTES/s",
        "MEMORY",
    ]);
    let mut ingests = Table::new(&[
        "INGEST",
        "UP",
        "STATE",
        "STORED/s",
        "SENT/s",
        "DUPLICATE/s",
        "REFUSED/s",
        "RETRIED/s",
        "AT WORK",
    ]);
    let mut aggregators = Table::new(&[
        "AGGREGATOR",
        "UP",
        "STATE",
        "SHARDS",
        "METRICS",
        "FOLDED/s",
        "VALUES/s",
        "BEHIND",
    ]);
    let mut silent = Table::new(&["NO ANSWER", "WHY"]);
    let (mut clients, mut slow) = (0, 0);
    for port in &now.ports {
        let old = before.and_then(|before| before.of(&port.address));
        match &port.said {
            Said::Gateway(gateway) => {
                clients += gateway.statistics.clients();
                slow += gateway.statistics.slow();
                let old = match old {
                    Some(Said::Gateway(old)) => Some(&**old),
                    _ => None,
                };
                gateways.row(self::gateway(&port.address, old, gateway, pace));
            }
            Said::Ingest(ingest) => {
                let old = match old {
                    Some(Said::Ingest(old)) => Some(old),
                    _ => None,
                };
                ingests.row(self::ingest(&port.address, old, ingest, pace));
            }
            Said::Aggregator(aggregator) => {
                let old = match old {
                    Some(Said::Aggregator(old)) => Some(old),
                    _ => None,
                };
                aggregators.row(self::aggregator(&port.address, old, aggregator, pace));
            }
            Said::Nothing(why) => silent.row((Tone::Bad, vec![port.address.clone(), why.clone()])),
        }
    }
    let rates = pace.0.map_or_else(
        || "rates come with the next look".to_owned(),
        |seconds| format!("rates over {seconds:.1} s"),
    );
    let mut out = vec![Line::title(&format!(
        "Roomcast · {} · {} · {} · {}, {} slow · {rates}",
        counted(gateways.len() as u64, "gateway"),
        counted(ingests.len() as u64, "ingest"),
        counted(aggregators.len() as u64, "aggregator"),
        counted(clients, "client"),
        whole(slow),
    ))];
    let slow = slow_connections(now);
    let fullest = fullest(before, now, rooms, pace);
    for table in [silent, gateways, ingests, aggregators, slow, fullest] {
        if table.len() > 0 {
            out.push(Line::plain(""));
            out.extend(table.lines());
        }
    }
    out
}

type Row = (Tone, Vec<String>);

fn gateway(address: &str, old: Option<&Gateway>, gateway: &Gateway, pace: Pace) -> Row {
    let (now, totals) = (&gateway.statistics, &gateway.statistics.totals);
    let old = old.map(|old| &old.statistics.totals);
    let closed = |closes: &BTreeMap<String, u64>| closes.values().sum::<u64>();
    let (tone, state) = match (&now.stale_since, now.accepting) {
        (Some(_), _) => (Tone::Bad, "stale"),
        (None, false) => (Tone::Warn, "closed"),
        (None, true) if now.slow() > 0 => (Tone::Warn, "ready"),
        (None, true) => (Tone::Plain, "ready"),
    };
    let cells = vec![
        address.to_owned(),
        age(now.uptime_seconds),
        state.to_owned(),
        whole(now.clients()),
        whole(now.slow()),
        whole(now.rooms),
        pace.of(old.map(|old| old.connected), totals.connected),
        pace.of(old.map(|old| closed(&old.closes)), closed(&totals.closes)),
        pace.of(old.map(|old| old.frames_in), totals.frames_in),
        pace.of(old.map(|old| old.deliveries), totals.deliveries),
        pace.bytes(old.map(|old| old.bytes_out), totals.bytes_out),
        bytes(now.memory.ring_bytes + now.memory.state_bytes),
    ];
    (tone, cells)
}

fn ingest(address: &str, old: Option<&Ingest>, ingest: &Ingest, pace: Pace) -> Row {
    let (totals, old) = (&ingest.totals, old.map(|old| &old.totals));
    let refused = |refused: &BTreeMap<String, u64>| refused.values().sum::<u64>();
    let (tone, state) = match ingest.connected {
        true => (Tone::Plain, "ready"),
        false => (Tone::Bad, "no NATS"),
    };
    let cells = vec![
        address.to_owned(),
        age(ingest.uptime_seconds),
        state.to_owned(),
        pace.of(old.map(|old| old.stored), totals.stored),
        pace.of(old.map(|old| old.sent), totals.sent),
        pace.of(old.map(|old| old.duplicate), totals.duplicate),
        pace.of(old.map(|old| refused(&old.refused)), refused(&totals.refused)),
        pace.of(old.map(|old| old.retries), totals.retries),
        whole(ingest.in_flight),
    ];
    (tone, cells)
}

fn aggregator(address: &str, old: Option<&Aggregator>, aggregator: &Aggregator, pace: Pace) -> Row {
    let (totals, old) = (&aggregator.totals, old.map(|old| &old.totals));
    let shards = &aggregator.shards;
    let behind: u64 = shards.iter().map(|shard| shard.lag_events).sum();
    let (tone, state) = match shards.iter().all(|shard| shard.current) {
        _ if shards.is_empty() => (Tone::Plain, "spare"),
        true if behind > LAG_EVENTS => (Tone::Warn, "behind"),
        true => (Tone::Plain, "current"),
        false => (Tone::Warn, "reading"),
    };
    let cells = vec![
        address.to_owned(),
        age(aggregator.uptime_seconds),
        state.to_owned(),
        whole(shards.len() as u64),
        whole(shards.iter().map(|shard| shard.metrics).sum()),
        pace.of(old.map(|old| old.folded), totals.folded),
        pace.of(old.map(|old| old.published), totals.published),
        whole(behind),
    ];
    (tone, cells)
}

fn slow_connections(now: &Seen) -> Table {
    let mut table = Table::new(&["SLOW CONNECTION", "GATEWAY", "USER", "WAITING", "BYTES", "STUCK"]);
    let mut all: Vec<(&str, &Connection)> = gateways(now)
        .flat_map(|(address, gateway)| gateway.slow.iter().map(move |one| (address, one)))
        .collect();
    all.sort_by_key(|(_, one)| std::cmp::Reverse((one.waiting_bytes, one.stuck_millis)));
    for (address, one) in all.into_iter().take(SLOW_SHOWN) {
        let user = one.user.as_ref().map_or_else(
            || "nobody yet".to_owned(),
            |user| format!("{}/{}", harmless(&user.tenant), harmless(&user.user)),
        );
        let stuck = one.stuck_millis / 100;
        table.row((
            Tone::Warn,
            vec![
                harmless(&one.connection),
                address.to_owned(),
                user,
                whole(one.waiting_frames),
                bytes(one.waiting_bytes),
                format!("{}.{} s", whole(stuck / 10), stuck % 10),
            ],
        ));
    }
    table
}

/// One room over all gateways.
#[derive(Default)]
struct Sum {
    members: u64,
    gateways: usize,
    /// Every gateway with members counts all events of the room, so the largest rate is nearest the truth.
    rate: Option<f64>,
    /// At the gateway that holds the most of it.
    memory: u64,
}

fn fullest(before: Option<&Seen>, now: &Seen, limit: usize, pace: Pace) -> Table {
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for (address, gateway) in gateways(now) {
        let old = match before.and_then(|before| before.of(address)) {
            Some(Said::Gateway(old)) => Some(old),
            _ => None,
        };
        for room in &gateway.rooms.rooms {
            let same = |old: &&super::seen::Room| old.room == room.room && old.tenant == room.tenant;
            let events = old
                .and_then(|old| old.rooms.rooms.iter().find(same))
                .map(|old| old.events);
            let rate = pace.per_second(events, room.events);
            let sum = sums.entry((&room.tenant, &room.room)).or_default();
            sum.members += room.members;
            sum.gateways += 1;
            sum.memory = sum
                .memory
                .max(room.ring_bytes + room.state_bytes.unwrap_or_default());
            sum.rate = [sum.rate, rate].into_iter().flatten().reduce(f64::max);
        }
    }
    // Where a gateway did not list all of its rooms, one that is not listed may have members there nevertheless.
    let cut = gateways(now).any(|(_, gateway)| gateway.statistics.rooms > gateway.rooms.rooms.len() as u64);
    let all = gateways(now).count();
    let mut fullest: Vec<_> = sums.into_iter().collect();
    // Stable: of two alike the first by name.
    fullest.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.members));
    let mut table = Table::new(&["ROOM", "MEMBERS", "GATEWAYS", "EVENTS/s", "MEMORY"]);
    for ((tenant, room), sum) in fullest.into_iter().take(limit) {
        let least = if cut && sum.gateways < all { "≥ " } else { "" };
        table.row((
            Tone::Plain,
            vec![
                format!("{}/{}", harmless(tenant), harmless(room)),
                format!("{least}{}", whole(sum.members)),
                whole(sum.gateways as u64),
                sum.rate.map_or_else(nothing, short),
                bytes(sum.memory),
            ],
        ));
    }
    table
}

fn gateways(seen: &Seen) -> impl Iterator<Item = (&str, &Gateway)> {
    seen.ports.iter().filter_map(|port| match &port.said {
        Said::Gateway(gateway) => Some((port.address.as_str(), &**gateway)),
        _ => None,
    })
}

/// Seconds between the two looks; `None`: there is only one.
#[derive(Clone, Copy)]
struct Pace(Option<f64>);

impl Pace {
    /// `None` as well where the count began anew.
    fn per_second(self, before: Option<u64>, now: u64) -> Option<f64> {
        let more = now.checked_sub(before?)?;
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        Some(more as f64 / self.0?)
    }

    fn of(self, before: Option<u64>, now: u64) -> String {
        self.per_second(before, now).map_or_else(nothing, short)
    }

    fn bytes(self, before: Option<u64>, now: u64) -> String {
        let rate = self.per_second(before, now);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; ends at the largest number"
        )]
        rate.map_or_else(nothing, |rate| bytes(rate as u64))
    }
}

fn nothing() -> String {
    "–".to_owned()
}

/// Three digits or so.
fn short(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        small if small < 9.95 => format!("{small:.1}"),
        medium if medium < 9_999.5 => format!("{medium:.0}"),
        large if large < 999_950.0 => format!("{:.1}k", large / 1e3),
        huge => format!("{:.1}M", huge / 1e6),
    }
}

/// With commas between thousands.
fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 1_000.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match unit {
        0 => format!("{number} {name}"),
        _ if value < 10.0 => format!("{value:.1} {name}"),
        _ => format!("{value:.0} {name}"),
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn counted(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        more => format!("{} {noun}s", whole(more)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::*;
    use crate::top::seen::Port;

    fn gateway_said(clients: u64, slow: u64, deliveries: u64, rooms: &[(&str, u64, u64)]) -> Said {
        let rooms: Vec<Value> = rooms
            .iter()
            .map(|(room, members, events)| {
                json!({ "tenant": "main", "room": room, "members": members, "events": events, "ringEvents": 1,
                    "ringBytes": 2_000, "stateKeys": 1, "stateBytes": 48 })
            })
            .collect();
        let waiting = |n: u64| {
            json!({ "connection": format!("c{n:016x}"), "transport": "websocket.json", "address": "10.0.0.1", "since": "…",
                "user": { "user": format!("u{n}\u{1b}"), "tenant": "main", "roles": [], "expiresAt": "…", "rooms": 1 },
                "waitingFrames": n, "waitingBytes": n * 1_000, "stuckMillis": n * 1_250 })
        };
        let statistics = json!({
            "service": "roomcast-edge-gateway", "instance": "h", "version": "0.1.0", "uptimeSeconds": 3_725, "accepting": true,
            "resumeSeconds": 600, "connections": { "json": clients - 1, "protobuf": 1, "strangers": 5, "newcomers": 5, "slow": slow },
            "rooms": rooms.len(),
            "memory": { "ringEvents": 1, "ringBytes": 5_000_000, "stateRooms": 1, "stateValues": 1, "stateBytes": 242_880 },
            "totals": { "connected": clients, "deliveries": deliveries, "framesIn": 10, "bytesIn": 1, "framesOut": 1,
                "bytesOut": deliveries * 300, "closes": { "drain": 2, "too_slow": 1 } },
        });
        Said::Gateway(Box::new(Gateway {
            statistics: serde_json::from_value(statistics).unwrap(),
            rooms: serde_json::from_value(json!({ "rooms": rooms })).unwrap(),
            slow: (1..=slow)
                .map(|n| serde_json::from_value(waiting(n)).unwrap())
                .collect(),
        }))
    }

    fn ingest_said(stored: u64) -> Said {
        let ingest = json!({ "uptimeSeconds": 59, "connected": true, "inFlight": 3,
            "totals": { "stored": stored, "duplicate": 0, "sent": 0, "refused": { "forbidden": 4, "late": 1 }, "retries": 0, "full": 0 } });
        Said::Ingest(serde_json::from_value(ingest).unwrap())
    }

    fn aggregator_said(shards: Value) -> Said {
        let aggregator = json!({ "uptimeSeconds": 200_000, "shards": shards,
            "totals": { "folded": 7, "published": 7, "flushes": 1, "conflicts": 0, "unreadable": 0 } });
        Said::Aggregator(serde_json::from_value(aggregator).unwrap())
    }

    fn seen(at: Instant, ports: Vec<(&str, Said)>) -> Seen {
        let port = |(address, said): (&str, Said)| Port {
            address: address.to_owned(),
            said,
        };
        Seen {
            at,
            ports: ports.into_iter().map(port).collect(),
        }
    }

    #[track_caller]
    fn check(before: Option<&Seen>, now: &Seen, rooms: usize, expected: &[&str]) {
        let lines = lines(before, now, rooms);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, expected, "\n{}", texts.join("\n"));
    }

    #[test]
    fn two_looks_are_rates() {
        let start = Instant::now();
        let shards = || json!([{ "shard": 3, "current": true, "lagEvents": 2, "metrics": 4 }]);
        let before = seen(
            start,
            vec![
                (
                    "a:1",
                    gateway_said(1_000, 0, 1_000, &[("bookings", 900, 10), ("lobby", 5, 0)]),
                ),
                ("b:1", gateway_said(10, 0, 500, &[("bookings", 4, 10)])),
                ("i:1", ingest_said(100)),
                ("g:1", aggregator_said(shards())),
            ],
        );
        let now = seen(
            start + Duration::from_secs(2),
            vec![
                (
                    "a:1",
                    gateway_said(1_234, 2, 31_000, &[("bookings", 1_100, 30), ("lobby", 5, 1)]),
                ),
                // Started anew: it counts from nothing.
                (
                    "b:1",
                    gateway_said(8, 0, 20, &[("bookings", 4, 2), ("vault", 5, 0)]),
                ),
                ("i:1", ingest_said(103)),
                ("g:1", aggregator_said(shards())),
                ("g:2", aggregator_said(json!([]))),
                ("x:1", Said::Nothing("connection refused".to_owned())),
            ],
        );
        check(
            Some(&before),
            &now,
            20,
            &[
                "Roomcast · 2 gateways · 1 ingest · 2 aggregators · 1,242 clients, 2 slow · rates over 2.0 s",
                "",
                "NO ANSWER  WHY",
                "x:1        connection refused",
                "",
                "GATEWAY     UP  STATE  CLIENTS  SLOW  ROOMS  NEW/s  ENDED/s  IN/s  OUT/s  BYTES/s   MEMORY",
                "a:1      1h02m  ready    1,234     2      2    117        0     0  15.0k  4.3 MiB  5.0 MiB",
                "b:1      1h02m  ready        8     0      2      –        0     0      –        –  5.0 MiB",
                "",
                "INGEST   UP  STATE  STORED/s  SENT/s  DUPLICATE/s  REFUSED/s  RETRIED/s  AT WORK",
                "i:1     59s  ready       1.5       0            0          0          0        3",
                "",
                "AGGREGATOR     UP  STATE    SHARDS  METRICS  FOLDED/s  VALUES/s  BEHIND",
                "g:1         2d07h  current       1        4         0         0       2",
                "g:2         2d07h  spare         0        0         –         –       0",
                "",
                "SLOW CONNECTION    GATEWAY  USER      WAITING    BYTES  STUCK",
                "c0000000000000002  a:1      main/u2·        2  2.0 KiB  2.5 s",
                "c0000000000000001  a:1      main/u1·        1  1.0 KiB  1.2 s",
                "",
                "ROOM           MEMBERS  GATEWAYS  EVENTS/s   MEMORY",
                "main/bookings    1,104         2        10  2.0 KiB",
                "main/lobby           5         1       0.5  2.0 KiB",
                "main/vault           5         1         –  2.0 KiB",
            ],
        );
    }

    #[test]
    fn one_look_has_no_rates_and_what_was_cut_says_so() {
        let mut gateways = [("a:1", 7), ("b:1", 9)].map(|(address, members)| {
            let rooms: &[(&str, u64, u64)] = match address {
                "a:1" => &[("bookings", members, 1), ("only-here", 3, 1)],
                _ => &[("bookings", members, 1)],
            };
            (address, gateway_said(2, 0, 1, rooms))
        });
        if let Said::Gateway(gateway) = &mut gateways[1].1 {
            gateway.statistics.rooms = 500;
            gateway.statistics.stale_since = Some("…".to_owned());
        }
        let now = seen(Instant::now(), gateways.into());
        check(
            None,
            &now,
            2,
            &[
                "Roomcast · 2 gateways · 0 ingests · 0 aggregators · 4 clients, 0 slow · rates come with the next look",
                "",
                "GATEWAY     UP  STATE  CLIENTS  SLOW  ROOMS  NEW/s  ENDED/s  IN/s  OUT/s  BYTES/s   MEMORY",
                "a:1      1h02m  ready        2     0      2      –        –     –      –        –  5.0 MiB",
                "b:1      1h02m  stale        2     0    500      –        –     –      –        –  5.0 MiB",
                "",
                "ROOM            MEMBERS  GATEWAYS  EVENTS/s   MEMORY",
                "main/bookings        16         2         –  2.0 KiB",
                "main/only-here      ≥ 3         1         –  2.0 KiB",
            ],
        );
        let tones: Vec<Tone> = lines(None, &now, 2).iter().map(|line| line.tone).collect();
        assert_eq!(tones[3..5], [Tone::Plain, Tone::Bad]);
    }

    #[test]
    fn numbers_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (9.94, "9.9"),
            (9.96, "10"),
            (9_999.0, "9999"),
            (10_000.0, "10.0k"),
            (1_234_567.0, "1.2M"),
        ] {
            assert_eq!(short(number), expected);
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(whole(number), expected);
        }
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 KiB"),
            (20_480, "20 KiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        for (seconds, expected) in [
            (0, "0s"),
            (60, "1m00s"),
            (3_599, "59m59s"),
            (86_399, "23h59m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }
}
