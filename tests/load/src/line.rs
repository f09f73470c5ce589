//! One client's way to the server: TCP, or TLS over it, without ever waiting.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// TLS to one name.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// To `host`, whose certificate an authority of `authorities` must have signed.
    ///
    /// # Errors
    /// When `host` is no name, or there is no authority.
    pub fn new(host: &str, authorities: Vec<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        anyhow::ensure!(
            !roots.is_empty(),
            "no authority to trust; name a file with --ca-file"
        );
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name =
            ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no name for TLS"))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// Authorities: those of a PEM file, or the system's where there is none.
///
/// # Errors
/// When the file cannot be read.
pub fn authorities(file: Option<&Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let Some(file) = file else {
        return Ok(rustls_native_certs::load_native_certs().certs);
    };
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("{}: certificates as PEM", file.display()))
}

/// The way to the server. Reads until nothing is there, writes what the system takes.
pub struct Line {
    /// The socket, for registering and closing.
    pub tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Line {
    /// Over a socket that may still be connecting.
    ///
    /// # Errors
    /// When TLS cannot begin, which is a mistake in its settings.
    pub fn new(tcp: TcpStream, tls: Option<&Tls>) -> anyhow::Result<Self> {
        let begun = |tls: &Tls| ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        let tls = tls.map(begun).transpose()?.map(Box::new);
        Ok(Self { tcp, tls })
    }

    /// Whether TLS is not agreed upon yet.
    #[must_use]
    pub fn is_agreeing(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Agrees upon TLS as far as what has come allows, and reads nothing else.
    ///
    /// # Errors
    /// `WouldBlock` until more has come; any other is the end.
    pub fn agree(&mut self) -> std::io::Result<()> {
        while self.is_agreeing() {
            self.take_in()?;
        }
        self.send_out()
    }

    /// What has come over the wire goes into TLS; what that has to answer goes out.
    fn take_in(&mut self) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if tls.read_tls(&mut self.tcp)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let judged = tls.process_new_packets().map_err(std::io::Error::other);
        // The other side is told what is wrong, too.
        self.send_out()?;
        judged.map(|_| ())
    }

    fn send_out(&mut self) -> std::io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                // The rest goes with the next bytes that come or go.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match &mut self.tls {
                None => return self.tcp.read(buffer),
                Some(tls) => match tls.reader().read(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    read => return read,
                },
            }
            self.take_in()?;
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.tcp.write(bytes);
        };
        let written = tls.writer().write(bytes)?;
        self.send_out()?;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.send_out()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use roomcast_harness::{eventually, free_port, secured};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::swarm::{Conduct, Plan, Swarm};

    const CLIENTS: usize = 40;

    /// The floor, which writes ten messages a second to everybody, behind something that ends TLS before it.
    async fn behind_tls() -> SocketAddr {
        let floor = SocketAddr::from(([127, 0, 0, 1], free_port()));
        std::thread::spawn(move || crate::floor::run(floor, 10, 500));
        let [certificate, key]: [PathBuf; 2] = secured::certificate();
        let chain = authorities(Some(&certificate)).unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (acceptor, listener) = (
            TlsAcceptor::from(Arc::new(config)),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut outside = acceptor.accept(socket).await.ok()?;
                    let mut inside = TcpStream::connect(floor).await.ok()?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside)
                        .await
                        .ok()
                });
            }
        });
        address
    }

    fn plan(address: SocketAddr, tls: Tls, conduct: Conduct) -> Plan {
        Plan {
            tls: Some(tls),
            host: Some("localhost".to_owned()),
            conduct,
            ..Plan::floor(address, CLIENTS, 1_000)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_come_over_tls_where_the_authority_is_trusted() {
        roomcast_chassis::process::install_crypto();
        let address = behind_tls().await;
        let trusted = || Tls::new("localhost", authorities(Some(&secured::authority())).unwrap()).unwrap();
        for conduct in [Conduct::Silent, Conduct::NeverReads] {
            let swarm = Swarm::start(plan(address, trusted(), conduct));
            tokio::task::block_in_place(|| swarm.ready(Duration::from_secs(60))).unwrap();
            if conduct == Conduct::Silent {
                eventually("everybody has read", Duration::from_secs(60), || async {
                    swarm.tally.reads.load(Relaxed) >= CLIENTS as u64
                })
                .await;
            }
            assert_eq!(swarm.tally.ended.load(Relaxed), 0, "{conduct:?}");
        }
        // Another name, or nobody's word for it: nobody is there.
        let other = Tls::new("example.com", authorities(Some(&secured::authority())).unwrap()).unwrap();
        let swarm = Swarm::start(plan(address, other, Conduct::Silent));
        eventually("they are turned away", Duration::from_secs(60), || async {
            swarm.tally.turned_away.load(Relaxed) >= CLIENTS as u64
        })
        .await;
        assert_eq!(swarm.tally.open.load(Relaxed), 0);
        assert!(Tls::new("localhost", Vec::new()).is_err());
        assert!(authorities(Some(Path::new("/nowhere"))).is_err());
    }
}
