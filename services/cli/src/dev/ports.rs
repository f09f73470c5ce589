//! Which ports the processes listen on, and who sits on one that is taken.

use std::net::{Ipv4Addr, TcpListener};

use roomcast_chassis::process::Failure;

/// Default client port of NATS.
const NATS: u16 = 4222;
/// Default ports of the first gateway, ingest and aggregator: public and admin.
const GATEWAY: (u16, u16) = (8080, 9080);
const INGEST: (u16, u16) = (8081, 9081);
const AGGREGATOR_ADMIN: u16 = 9082;

/// Where ports come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// 4222, 8080, 8081, 9080 to 9082, and free ones for further instances.
    Default,
    /// Any that are free.
    Free,
}

/// How many of each there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// 0: an existing server is used.
    pub(crate) nats: u32,
    pub(crate) gateways: u32,
    pub(crate) ingests: u32,
    pub(crate) aggregators: u32,
    /// Whether there is a database.
    pub(crate) database: bool,
}

/// The ports of a system, all on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ports {
    /// Client port and route port of each node.
    pub(crate) nats: Vec<(u16, u16)>,
    /// Public and admin port of each.
    pub(crate) gateways: Vec<(u16, u16)>,
    pub(crate) ingests: Vec<(u16, u16)>,
    /// Admin port of each.
    pub(crate) aggregators: Vec<u16>,
    /// Of the database; 0 where there is none.
    pub(crate) database: u16,
}

/// Listens on ports until all have been chosen, so that none is chosen twice.
struct Chooser {
    free: bool,
    held: Vec<TcpListener>,
}

impl Chooser {
    /// The default for the first instance, a free port for the others.
    fn port(&mut self, default: u16, index: u32) -> Result<u16, Failure> {
        let wanted = if self.free || index > 0 { 0 } else { default };
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).map_err(|error| taken(wanted, &error))?;
        let port = listener
            .local_addr()
            .map_err(|error| taken(wanted, &error))?
            .port();
        self.held.push(listener);
        Ok(port)
    }

    fn pairs(&mut self, defaults: (u16, u16), count: u32) -> Result<Vec<(u16, u16)>, Failure> {
        (0..count)
            .map(|index| Ok((self.port(defaults.0, index)?, self.port(defaults.1, index)?)))
            .collect()
    }
}

/// Chooses all ports. They are free when this returns; somebody else may still be faster, which the start then says.
///
/// # Errors
/// 69: a default port is taken, with its holder.
pub(crate) fn choose(choice: Choice, counts: Counts) -> Result<Ports, Failure> {
    let mut chooser = Chooser {
        free: choice == Choice::Free,
        held: Vec::new(),
    };
    let mut nats = Vec::new();
    for index in 0..counts.nats {
        let client = chooser.port(NATS, index)?;
        // Routes have no default: nobody but the nodes themselves speaks to them. A single node has none.
        nats.push((client, if counts.nats > 1 { chooser.port(0, 1)? } else { 0 }));
    }
    Ok(Ports {
        nats,
        gateways: chooser.pairs(GATEWAY, counts.gateways)?,
        ingests: chooser.pairs(INGEST, counts.ingests)?,
        aggregators: (0..counts.aggregators)
            .map(|index| chooser.port(AGGREGATOR_ADMIN, index))
            .collect::<Result<_, _>>()?,
        // Its usual one is often taken, by a PostgreSQL of the machine's own.
        database: if counts.database { chooser.port(0, 1)? } else { 0 },
    })
}

fn taken(port: u16, error: &std::io::Error) -> Failure {
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Failure::unavailable(format!("cannot listen on 127.0.0.1:{port}: {error}"));
    }
    let who = holder(port).map_or_else(
        || "another process (of another user)".to_owned(),
        |(pid, name)| format!("pid {pid} ({name})"),
    );
    Failure::unavailable(format!(
        "port {port} is taken by {who}; end it, or use --ports free"
    ))
}

/// Who listens on a port: process id and name. `None` where the system does not say (another user's process, or no /proc).
fn holder(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let mut targets = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok());
        if targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str())) {
            // The name alone: a command line may hold secrets.
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// The inodes of the sockets that listen on a port, from the kernel's table.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    /// TCP_LISTEN, in hexadecimal as the table has it.
    const LISTEN: &str = "0A";
    let ending = format!(":{port:04X}");
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&ending)) && row.get(3) == Some(&LISTEN))
        .filter_map(|row| row.get(9).map(|inode| (*inode).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_all_different() {
        let ports = choose(
            Choice::Free,
            Counts {
                nats: 3,
                gateways: 2,
                ingests: 2,
                aggregators: 2,
                database: true,
            },
        )
        .unwrap();
        let pairs = ports.nats.iter().chain(&ports.gateways).chain(&ports.ingests);
        let mut all: Vec<u16> = pairs
            .flat_map(|(a, b)| [*a, *b])
            .chain(ports.aggregators)
            .chain([ports.database])
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), count), (17, 17));
        assert!(all.iter().all(|port| *port > 0));
    }

    #[test]
    fn a_holder_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pid, name) = holder(port).unwrap();
        assert_eq!(pid, std::process::id());
        let failure = taken(port, &std::io::Error::from(std::io::ErrorKind::AddrInUse));
        assert!(
            failure
                .message
                .contains(&format!("port {port} is taken by pid {pid} ({name})")),
            "{failure}"
        );
        drop(listener);
        assert_eq!(holder(port), None);
    }

    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0\n   \
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0 100 0 0 10 0\n";
        assert_eq!(listening_inodes(table, 8080), ["12345"]);
        assert!(listening_inodes(table, 80).is_empty());
    }
}
