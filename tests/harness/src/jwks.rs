//! An issuer's address for keys, as others run it: good, wrong, slow or away, changed while it runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// What the address answers.
#[derive(Debug, Clone)]
pub enum Says {
    /// 200 with this body.
    Body(String),
    /// A status without a body; 302 points to another address.
    Status(u16),
    /// Nothing, for ever.
    Silence,
    /// 200 with as many bytes.
    Bytes(usize),
}

/// The address. Gone when dropped.
#[derive(Debug)]
pub struct Jwks {
    /// Where keys are.
    pub url: String,
    says: Arc<Mutex<Says>>,
    fetches: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Jwks {
    /// Opens it on loopback.
    ///
    /// # Panics
    /// When loopback has no port.
    pub async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks", listener.local_addr().expect("an address"));
        let (says, fetches) = (Arc::new(Mutex::new(says)), Arc::new(AtomicUsize::new(0)));
        let (answers, counted) = (Arc::clone(&says), Arc::clone(&fetches));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(answer_with(socket, answer));
            }
        });
        Self {
            url,
            says,
            fetches,
            task: task.abort_handle(),
        }
    }

    /// Changes what it answers from now on.
    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// How often it was asked.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_with(mut socket: TcpStream, says: Says) {
    let mut head = [0; 2048];
    if socket.read(&mut head).await.is_err() {
        return;
    }
    let ok = |body: String| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = match says {
        Says::Body(body) => ok(body),
        Says::Bytes(bytes) => ok("k".repeat(bytes)),
        Says::Status(status) => {
            format!("HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        }
        Says::Silence => return std::future::pending().await,
    };
    // A client that has heard enough goes away in the middle.
    drop(socket.write_all(answer.as_bytes()).await);
}
