//! Load on a running cluster: dashboards that are held, reset all at once, or partly never read, with figures every second and a page of
//! them at the end.
//!
//! Nothing is started here and nothing is measured but what clients see: how many are there, what they get, how late, and what they miss.
//! Latencies and misses are of the events that this program publishes itself; without `--publish-url` there are none.

mod page;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue};
use roomcast_chassis::fetch::{Fetcher, Limits, Url};
use roomcast_chassis::process::install_crypto;
use roomcast_harness::http::Http;
use roomcast_load::dashboard::Dashboard;
use roomcast_load::histogram::Histogram;
use roomcast_load::line::{Tls, authorities};
use roomcast_load::swarm::{Conduct, Plan, Swarm, now_micros};
use roomcast_proto::frame::Encoding;
use serde_json::{Value, json};

/// How long all clients may take to be there, beyond what their pace takes.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Quiet before and after a storm.
const CALM: Duration = Duration::from_secs(10);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Clients come at a pace and stay.
    Hold,
    /// They are reset all at once and come back at once, as often as `--rounds` says.
    Storm,
    /// A tenth of them never reads a byte; the others are measured.
    Slow,
    /// As hold, for hours: one sample in ten seconds.
    Soak,
}

/// Where, with what, for how long.
#[derive(Args, Clone, Debug)]
pub struct Against {
    /// What is done.
    #[arg(value_enum)]
    what: What,
    /// A gateway, or the balancer in front: ws://HOST:PORT, or wss://HOST[:PORT] where TLS ends before it.
    #[arg(long)]
    url: String,
    /// The authority that signed the certificates behind wss:// and https://, PEM; without it, those that this machine trusts.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Tokens, one a line; clients take them in turn. A user has as many connections as the gateway allows one.
    #[arg(long)]
    token_file: PathBuf,
    /// A room; may be given several times, clients are spread over them.
    #[arg(long = "room", required = true)]
    rooms: Vec<String>,
    /// How many clients.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// New connections a second.
    #[arg(long, default_value_t = 200)]
    pace: usize,
    /// How long it is held, seconds; 3,600 for soak.
    #[arg(long)]
    seconds: Option<u64>,
    /// Storms.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// An ingest: http://HOST:PORT or https://HOST[:PORT]. With it events are published to the rooms, whose latency is measured.
    #[arg(long, requires = "publish_token_file")]
    publish_url: Option<String>,
    /// A token that may publish to the rooms.
    #[arg(long)]
    publish_token_file: Option<PathBuf>,
    /// Events a second, over all rooms.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// The page with the results.
    #[arg(long, default_value = "roomcast-load.html")]
    out: PathBuf,
}

/// What was seen at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Seconds since the beginning.
    at: f64,
    /// Clients whose socket is open.
    open: f64,
    /// Events a second that came to all clients together.
    events: f64,
    /// Latencies of those, milliseconds; not a number when none came.
    p50: f64,
    p99: f64,
    /// Connections that ended, and that were refused or turned away, since the beginning.
    ended: f64,
    refused: f64,
}

impl Sample {
    /// Its latencies in words, where there are any.
    fn latency(&self) -> String {
        match self.p50.is_finite() {
            true => format!("  p50 {:.1} ms  p99 {:.1} ms", self.p50, self.p99),
            false => String::new(),
        }
    }
}

/// What it came to.
#[derive(Debug, Default)]
struct Results {
    samples: Vec<Sample>,
    /// How long the clients took to be there: at first, and after each storm.
    waves: Vec<Duration>,
    published: u64,
    latencies: Histogram,
    gaps: u64,
    doubles: u64,
    incomplete: u64,
    /// Clients that were refused for good.
    refused: u64,
    /// How often somebody was told to come later.
    turned_away: u64,
    /// Connections that ended though nobody here wanted it.
    ended: u64,
}

/// Does it, and writes the page.
///
/// # Errors
/// When a file cannot be read or written, an address not be found, or the clients do not come.
pub async fn run(against: Against) -> anyhow::Result<bool> {
    install_crypto();
    let server = Server::parse(&against.url)?;
    let address = server.address()?;
    let tls = match server.tls {
        true => Some(Tls::new(&server.host, authorities(against.ca_file.as_deref())?)?),
        false => None,
    };
    let tokens = lines(&against.token_file)?;
    let never = match against.what {
        What::Slow => against.connections.div_ceil(10),
        _ => 0,
    };
    let dashboards = |from: usize, to: usize| {
        let client = |n: usize| {
            let room = against.rooms[n % against.rooms.len()].clone();
            Dashboard::new(tokens[n % tokens.len()].clone(), [room])
        };
        (from..to).map(client).collect()
    };
    let plan = |dashboards, conduct| Plan {
        address,
        host: Some(server.named()),
        tls: tls.clone(),
        dashboards,
        rate: Some(against.pace),
        encoding: Encoding::Json,
        conduct,
        // A storm resets them itself and says when; those who never read do not hear that they have ended.
        returns: against.what != What::Storm && conduct == Conduct::Reads,
    };
    let slow = (never > 0).then(|| Swarm::start(plan(dashboards(0, never), Conduct::NeverReads)));
    let swarm = Swarm::start(plan(dashboards(never, against.connections), Conduct::Reads));
    let publishing = Publishing::begin(&against)?;
    let mut watch = Watch::new(&swarm, against.what);
    watch
        .wave(READY_WITHIN + Duration::from_secs((against.connections / against.pace.max(1)) as u64))
        .await?;
    let usual = if against.what == What::Soak { 3_600 } else { 60 };
    let held = Duration::from_secs(against.seconds.unwrap_or(usual));
    if against.what == What::Storm {
        for round in 1..=against.rounds {
            watch.hold(CALM).await;
            println!("storm {round} of {}", against.rounds);
            swarm.reset()?;
            watch.meant += swarm.clients();
            swarm.come_back()?;
            watch.wave(READY_WITHIN).await?;
        }
        watch.hold(CALM).await;
    } else {
        watch.hold(held).await;
    }
    let published = publishing.end().await?;
    // What is under way arrives.
    watch.hold(Duration::from_secs(2)).await;
    let results = watch.end(published);
    drop(slow);
    let page = page::page(&against, &results);
    std::fs::write(&against.out, page).with_context(|| format!("{}", against.out.display()))?;
    for line in page::figures(&against, &results) {
        println!("{}: {}", line.0, line.1);
    }
    println!("{}", against.out.display());
    Ok(results.gaps + results.doubles + results.incomplete == 0)
}

/// Looks at a swarm from time to time.
struct Watch<'a> {
    swarm: &'a Swarm,
    every: Duration,
    begun: Instant,
    last: (Instant, u64),
    /// Connections that were reset by us.
    meant: u64,
    results: Results,
}

impl<'a> Watch<'a> {
    fn new(swarm: &'a Swarm, what: What) -> Self {
        let now = Instant::now();
        Self {
            swarm,
            every: Duration::from_secs(if what == What::Soak { 10 } else { 1 }),
            begun: now,
            last: (now, 0),
            meant: 0,
            results: Results::default(),
        }
    }

    /// Waits for all clients, and looks meanwhile.
    async fn wave(&mut self, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        loop {
            self.sleep().await;
            match self.swarm.ready(Duration::ZERO) {
                Ok(took) => {
                    println!(
                        "all {} clients are there after {:.2} s",
                        self.swarm.clients(),
                        took.as_secs_f64()
                    );
                    self.results.waves.push(took);
                    return Ok(());
                }
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn hold(&mut self, long: Duration) {
        let until = Instant::now() + long;
        while Instant::now() < until {
            self.sleep().await;
        }
    }

    async fn sleep(&mut self) {
        tokio::time::sleep(self.every).await;
        let tally = &self.swarm.tally;
        let said = |count: &AtomicU64| count.load(Relaxed);
        let (now, events, latencies) = (Instant::now(), said(&tally.events), tally.latencies());
        let over = now.duration_since(self.last.0).as_secs_f64();
        let sample = Sample {
            at: now.duration_since(self.begun).as_secs_f64(),
            open: said(&tally.open).saturating_sub(said(&tally.ended)) as f64,
            events: (events - self.last.1) as f64 / over,
            p50: latencies.millis(0.5),
            p99: latencies.millis(0.99),
            ended: said(&tally.ended) as f64,
            refused: (said(&tally.refused) + said(&tally.turned_away)) as f64,
        };
        self.last = (now, events);
        self.results.latencies.merge(&latencies);
        self.results.samples.push(sample);
        println!(
            "{:7.1} s  {} open  {:.0} events/s  {} ended  {} refused{}",
            sample.at,
            sample.open,
            sample.events,
            sample.ended,
            sample.refused,
            sample.latency()
        );
    }

    fn end(self, published: u64) -> Results {
        let tally = &self.swarm.tally;
        let said = |count: &AtomicU64| count.load(Relaxed);
        Results {
            published,
            gaps: said(&tally.gaps),
            doubles: said(&tally.doubles),
            incomplete: said(&tally.incomplete),
            refused: said(&tally.refused),
            turned_away: said(&tally.turned_away),
            ended: said(&tally.ended).saturating_sub(self.meant),
            ..self.results
        }
    }
}

/// Events at a rate, until it is enough.
struct Publishing {
    enough: Arc<AtomicBool>,
    task: Option<tokio::task::JoinHandle<anyhow::Result<u64>>>,
}

impl Publishing {
    fn begin(against: &Against) -> anyhow::Result<Self> {
        let enough = Arc::new(AtomicBool::new(false));
        let (Some(url), Some(file)) = (&against.publish_url, &against.publish_token_file) else {
            return Ok(Self { enough, task: None });
        };
        let token = lines(file)?.swap_remove(0);
        let url = format!("{}/v1/events", url.trim_end_matches('/'));
        let publisher = Publisher::new(&url, against.ca_file.as_deref())?;
        let (rooms, rate, stop) = (against.rooms.clone(), against.rate.max(1), Arc::clone(&enough));
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let mut sent = 0_u64;
            while !stop.load(Relaxed) {
                let due = begun + Duration::from_secs_f64(sent as f64 / f64::from(rate));
                tokio::time::sleep_until(due.into()).await;
                let (room, number) = (sent % rooms.len() as u64, sent / rooms.len() as u64 + 1);
                let event = event(&rooms[room as usize], number, now_micros());
                publisher.post(&url, &token, event.to_string()).await?;
                sent += 1;
            }
            Ok(sent)
        });
        let task = Some(task);
        Ok(Self { enough, task })
    }

    async fn end(self) -> anyhow::Result<u64> {
        self.enough.store(true, Relaxed);
        match self.task {
            Some(task) => task.await?,
            None => Ok(0),
        }
    }
}

/// The clients find `n` and `sent` at the end, where they look for them.
fn event(room: &str, number: u64, sent: u64) -> Value {
    json!({ "type": "load", "room": room, "data": { "fill": "x".repeat(120), "n": number, "sent": sent } })
}

fn lines(file: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let lines: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    anyhow::ensure!(!lines.is_empty(), "{} has no token", file.display());
    Ok(lines)
}

/// How events go to ingest.
enum Publisher {
    Plain(Http),
    Tls(Fetcher, Url),
}

impl Publisher {
    fn new(url: &str, authority: Option<&Path>) -> anyhow::Result<Self> {
        if !url.starts_with("https://") {
            return Ok(Self::Plain(Http::default()));
        }
        let limits = Limits {
            within: Duration::from_secs(10),
            bytes_max: 64 * 1024,
        };
        let url = Url::parse(url).map_err(|wrong| anyhow::anyhow!("{url}: {wrong}"))?;
        Ok(Self::Tls(
            Fetcher::trusting(limits, authorities(authority)?)?,
            url,
        ))
    }

    async fn post(&self, url: &str, token: &str, event: String) -> anyhow::Result<()> {
        match self {
            Self::Plain(http) => {
                let answer = http.post(url, token, "application/json", event).await?;
                anyhow::ensure!(
                    answer.status == 200,
                    "ingest answers {}: {}",
                    answer.status,
                    answer.text()
                );
            }
            Self::Tls(fetcher, url) => {
                let headers = [
                    ("authorization", format!("Bearer {token}")),
                    ("content-type", "application/json".to_owned()),
                ];
                let headers = headers.into_iter().map(|(name, value)| {
                    anyhow::Ok((HeaderName::from_static(name), HeaderValue::try_from(value)?))
                });
                let headers = headers.collect::<anyhow::Result<HeaderMap>>()?;
                let answer = fetcher.post(url, headers, event.into()).await;
                answer.map_err(|error| anyhow::anyhow!("ingest {error}"))?;
            }
        }
        Ok(())
    }
}

/// Where clients go.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    tls: bool,
    host: String,
    port: u16,
}

impl Server {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let (tls, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => anyhow::bail!("{url}: an address begins with ws:// or wss://"),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (rest, tls.then_some(443)),
        };
        let port = port.filter(|_| !host.is_empty() && !host.contains('/'));
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.with_context(|| format!("{url}: a host and a port"))?,
        })
    }

    /// As requests name it.
    fn named(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        let named = self.named();
        let mut found = named
            .to_socket_addrs()
            .with_context(|| format!("{named} cannot be found"))?;
        found.next().with_context(|| format!("{named} has no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_a_host_and_a_port() {
        for (url, expected) in [
            ("ws://127.0.0.1:8080", "plain 127.0.0.1:8080"),
            ("ws://127.0.0.1:8080/", "plain 127.0.0.1:8080"),
            ("wss://gateway.example", "TLS gateway.example:443"),
            ("wss://[::1]:8443", "TLS [::1]:8443"),
            ("127.0.0.1:8080", ""),
            ("https://127.0.0.1:8080", ""),
            ("ws://127.0.0.1", ""),
            ("ws://127.0.0.1:8080/v1/ws", ""),
            ("wss://:443", ""),
        ] {
            let said = Server::parse(url).map_or_else(
                |_| String::new(),
                |server| format!("{} {}", if server.tls { "TLS" } else { "plain" }, server.named()),
            );
            assert_eq!(said, expected, "{url}");
        }
    }

    #[test]
    fn what_is_published_is_what_the_clients_read() {
        let text = event("a", 41, 1_700_000_000_000_000).to_string();
        let frame = format!("{{\"event\":{{\"room\":\"a\",\"cursor\":\"c\",\"event\":{text}}}}}");
        let heard = roomcast_load::heard::hear(Encoding::Json, frame.as_bytes());
        let roomcast_load::heard::Heard::Event { number, sent, .. } = heard else {
            panic!("{heard:?}");
        };
        assert_eq!((number, sent), (Some(41), Some(1_700_000_000_000_000)));
    }
}
