//! Where traces go in tests: a collector that others made, which hands on to an end of ours that keeps every step for the test to look at.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Largest request taken.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One step, as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `service.name` of who told it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Its trace, hexadecimal.
    pub trace: String,
    /// Itself.
    pub id: String,
    /// What it follows from; empty: it is the first.
    pub parent: String,
    /// Whether it went wrong.
    pub failed: bool,
    /// The steps it is linked to.
    pub links: Vec<String>,
    /// What it says of itself.
    pub attributes: BTreeMap<String, String>,
}

/// The collector. Gone when dropped.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens: `http://…`.
    pub url: String,
    /// The one between the services and us, and its folder.
    between: Option<(Child, TempDir)>,
    told: Arc<Mutex<Vec<Told>>>,
    task: AbortHandle,
}

impl Collector {
    /// Opens it on loopback, behind rotel where `make tools` has fetched that.
    ///
    /// # Panics
    /// When loopback has no port, or rotel does not listen within 30 s; in CI when it is not there.
    pub async fn start() -> Self {
        let mut end = Self::end().await;
        let agent = crate::repository().join(".tools/collector/rotel/rotel-agent");
        if !agent.exists() {
            crate::skip("rotel, the collector between", "make tools");
            return end;
        }
        let folder = crate::folder();
        let (http, grpc) = (local(crate::free_port()), local(crate::free_port()));
        let child = Command::new(agent)
            .arg("start")
            .args(["--otlp-http-endpoint", &http, "--otlp-grpc-endpoint", &grpc])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", &end.url])
            .arg("--pid-file")
            .arg(folder.path().join("pid"))
            .arg("--log-file")
            .arg(folder.path().join("log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rotel starts");
        end.between = Some((child, folder));
        crate::eventually("rotel listens", Duration::from_secs(30), || async {
            TcpStream::connect(&http).await.is_ok()
        })
        .await;
        end.url = format!("http://{http}");
        end
    }

    async fn end() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    if let Err(error) = take(socket, &kept).await {
                        eprintln!("the collector cannot read a request: {error:#}");
                    }
                });
            }
        });
        Self {
            url,
            between: None,
            told,
            task: task.abort_handle(),
        }
    }

    /// The steps of a trace so far, in the order in which they were told.
    #[must_use]
    pub fn of(&self, trace: &str) -> Vec<Told> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|told| told.trace == trace).cloned().collect()
    }

    /// All steps so far.
    #[must_use]
    pub fn all(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
        if let Some((child, _)) = &mut self.between {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

async fn take(mut socket: TcpStream, kept: &Mutex<Vec<Told>>) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let (gzip, body) = loop {
        anyhow::ensure!(bytes.len() < REQUEST_BYTES_MAX, "too large");
        anyhow::ensure!(socket.read_buf(&mut bytes).await? > 0, "it ended early");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        anyhow::ensure!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        anyhow::ensure!(head.contains("content-type: application/x-protobuf"), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no length")?.parse()?;
        if bytes.len() >= end + 4 + length {
            let gzip = head.contains("content-encoding: gzip");
            break (gzip, bytes.split_off(end + 4));
        }
    };
    let body = match gzip {
        false => body,
        true => {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut plain)?;
            plain
        }
    };
    keep(ExportTraceServiceRequest::decode(&body[..])?, kept);
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    Ok(socket.write_all(answer.as_bytes()).await?)
}

fn keep(request: ExportTraceServiceRequest, kept: &Mutex<Vec<Told>>) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = read(resource.attributes)
            .remove("service.name")
            .unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            kept.push(Told {
                service: service.clone(),
                kind: span.kind(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                failed: span.status.is_some_and(|status| status.code == 2),
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                attributes: read(span.attributes),
            });
        }
    }
}

fn read(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
