//! Thousands of dashboards in one thread: sockets that open at a pace or all at once, are reset and come back, or never read.

mod run;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roomcast_proto::frame::Encoding;

use self::run::Run;
use crate::dashboard::{Dashboard, Tally};
use crate::elsewhere;
use crate::line::Tls;

/// What the clients of a swarm do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// They say hello and read all they are sent.
    Reads,
    /// They say hello and never read a byte, not even the answer to their upgrade.
    NeverReads,
    /// They say nothing after the upgrade (clients of the floor).
    Silent,
}

/// What to open.
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// What it is called there; `None`: by its address.
    pub host: Option<String>,
    /// TLS to it, if any.
    pub tls: Option<Tls>,
    /// The clients.
    pub dashboards: Vec<Dashboard>,
    /// New sockets a second; `None`: all at once.
    pub rate: Option<usize>,
    /// How messages are written.
    pub encoding: Encoding,
    /// What they do.
    pub conduct: Conduct,
    /// Whether a client whose connection the server ends comes again with its cursors, as ours do.
    pub returns: bool,
}

impl Plan {
    /// Clients for the floor: they open and read.
    #[must_use]
    pub fn floor(address: SocketAddr, sockets: usize, rate: usize) -> Self {
        Self {
            address,
            host: None,
            tls: None,
            dashboards: (0..sockets).map(|_| Dashboard::default()).collect(),
            rate: Some(rate),
            encoding: Encoding::Json,
            conduct: Conduct::Silent,
            returns: false,
        }
    }
}

enum Order {
    Reset,
    /// All at once, to where they were.
    Return,
    /// Each after a time of its own, to another server.
    ReturnTo(SocketAddr),
}

/// A running swarm; ends when dropped.
pub struct Swarm {
    /// What it has seen.
    pub tally: Arc<Tally>,
    clients: u64,
    conduct: Conduct,
    wave: Arc<Wave>,
    orders: Sender<Order>,
    /// The thread's number, by which the system knows it.
    number: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
}

/// When the present wave of clients began, and when the last of them was there; microseconds since the swarm began.
#[derive(Debug, Default)]
struct Wave {
    began: AtomicU64,
    ended: AtomicU64,
}

impl Swarm {
    /// Starts opening sockets; [`Swarm::ready`] waits for all of them.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let (orders, taken) = channel();
        let (tally, wave) = (Arc::new(Tally::default()), Arc::new(Wave::default()));
        let (clients, conduct) = (plan.dashboards.len() as u64, plan.conduct);
        let shared = (Arc::clone(&tally), Arc::clone(&wave));
        let number = Arc::new(OnceLock::new());
        let own = Arc::clone(&number);
        let thread = std::thread::spawn(move || {
            let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
            let _ = own.set(
                link.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
            let run = Run::new(plan, shared.0, shared.1).and_then(|run| run.run(&taken));
            if let Err(error) = run {
                eprintln!("swarm: {error}");
            }
        });
        Self {
            tally,
            clients,
            conduct,
            wave,
            orders,
            number,
            thread: Some(thread),
        }
    }

    /// Lets everything else on this machine go first ([`elsewhere`]): where the clients' own work is not what is measured.
    ///
    /// # Errors
    /// When there is no `chrt`.
    pub fn give_way(&self) -> anyhow::Result<()> {
        elsewhere::thread(self.number.wait())
    }

    /// How many clients it has.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.clients
    }

    fn there(&self) -> u64 {
        match self.conduct {
            Conduct::Reads => self.tally.back.load(Relaxed),
            Conduct::Silent | Conduct::NeverReads => self.tally.open.load(Relaxed),
        }
    }

    /// Waits until every client is there: has heard `caughtUp` from all its rooms, or, where it says or reads nothing, is open.
    /// Returns how long the wave took, from its first socket to its last client.
    ///
    /// # Errors
    /// After `within`, with what was reached.
    pub fn ready(&self, within: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let there = self.there();
            if there >= self.clients {
                let [began, ended] = [&self.wave.began, &self.wave.ended].map(|at| at.load(Relaxed));
                return Ok(Duration::from_micros(ended.saturating_sub(began)));
            }
            let said = |count: &AtomicU64| count.load(Relaxed);
            anyhow::ensure!(
                start.elapsed() < within && self.alive(),
                "{there} of {} clients are there after {within:?}; {} open, {} connected, {} refused, {} turned away, {} ended",
                self.clients,
                said(&self.tally.open),
                said(&self.tally.connected),
                said(&self.tally.refused),
                said(&self.tally.turned_away),
                said(&self.tally.ended)
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends every socket with a reset, as a process that is killed behind a balancer does, and waits until that is done.
    ///
    /// # Errors
    /// When the swarm's thread does not do it within 10 s.
    pub fn reset(&self) -> anyhow::Result<()> {
        self.order(Order::Reset)?;
        let start = Instant::now();
        while self.tally.open.load(Relaxed) > 0 {
            anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "the swarm hangs");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets all come back at once, each with its cursors; [`Swarm::ready`] waits for them.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub fn come_back(&self) -> anyhow::Result<()> {
        self.tally.back.store(0, Relaxed);
        self.order(Order::Return)
    }

    /// Waits until the server's death has reached every client.
    ///
    /// # Errors
    /// When it has not within `within`.
    pub fn lost(&self, within: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.tally.ended.load(Relaxed) < self.clients {
            anyhow::ensure!(
                start.elapsed() < within,
                "{} of {} sockets ended",
                self.tally.ended.load(Relaxed),
                self.clients
            );
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets all whose server is gone come to another one, each with its cursors, and each after a random time, as our clients do.
    ///
    /// # Errors
    /// When the swarm has ended.
    pub fn come_to(&self, server: SocketAddr) -> anyhow::Result<()> {
        for count in [&self.tally.back, &self.tally.open, &self.tally.ended] {
            count.store(0, Relaxed);
        }
        self.order(Order::ReturnTo(server))
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        self.orders
            .send(order)
            .map_err(|_| anyhow::anyhow!("the swarm has ended"))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // The end of the orders is the order to end.
        self.orders = channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Unix time in microseconds.
#[must_use]
pub fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
