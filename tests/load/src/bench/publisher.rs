//! One publisher: posts what is due in one batch after another, so that the numbers it gives a room's events are stored in order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use roomcast_harness::http::Http;
use roomcast_load::histogram::Histogram;
use roomcast_load::swarm::now_micros;
use roomcast_load::tokens::Algorithm;
use serde_json::Value;

use super::system::System;

/// Events of one POST.
const BATCH: usize = 500;
/// What ingest fills in: id, source, time and so on.
const FILLED_IN_BYTES: usize = 190;

/// A publisher over HTTP.
pub struct Publisher {
    http: Http,
    url: String,
    token: String,
    bytes: usize,
    numbers: HashMap<usize, u64>,
    /// How many of its events are stored.
    pub stored: u64,
}

impl Publisher {
    /// One that may publish to rooms 0 up to `rooms`, events of `bytes`.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn new(system: &System, rooms: usize, bytes: usize) -> anyhow::Result<Self> {
        let names: Vec<String> = (0..rooms).map(|n| n.to_string()).collect();
        let ingests = system.stack.ingests();
        let ingest = ingests.first().ok_or_else(|| anyhow::anyhow!("no ingest"))?;
        Ok(Self {
            http: system.stack.http.clone(),
            url: format!("{ingest}/v1/events"),
            token: system
                .issuer
                .token(Algorithm::Eddsa, "loader", "loader", &names)?,
            bytes,
            numbers: HashMap::new(),
            stored: 0,
        })
    }

    fn event(&mut self, room: usize, sent: u64) -> String {
        let number = self.numbers.entry(room).or_default();
        *number += 1;
        event(room, self.bytes, Some(*number), sent)
    }

    /// Posts events and waits until they are stored.
    async fn post(&mut self, events: Vec<String>) -> anyhow::Result<()> {
        let (count, body) = (events.len(), format!("[{}]", events.join(",")));
        let answer = self
            .http
            .post(&self.url, &self.token, "application/json", body)
            .await?;
        let said: Value = answer.json();
        anyhow::ensure!(said["stored"] == count, "{} {}", answer.status, answer.text());
        self.stored += count as u64;
        Ok(())
    }

    /// Publishes `each` events to every one of `rooms`, in turn, as fast as they are taken.
    ///
    /// # Errors
    /// When one is not stored.
    pub async fn at_once(&mut self, rooms: std::ops::Range<usize>, each: usize) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..each {
            for room in rooms.clone() {
                batch.push(self.event(room, now_micros()));
                if batch.len() == BATCH {
                    self.post(std::mem::take(&mut batch)).await?;
                }
            }
        }
        if !batch.is_empty() {
            self.post(batch).await?;
        }
        Ok(())
    }

    /// Publishes at a rate until `until` says that it is enough, in turn to `rooms`. Each event is stamped with the moment it is due,
    /// and its latency counted from there, so that a pause of the server is not left out. Returns the latencies of the answers.
    ///
    /// # Errors
    /// When one is not stored.
    pub async fn steady(
        &mut self,
        rooms: std::ops::Range<usize>,
        rate: u32,
        until: impl Fn(u64) -> bool,
    ) -> anyhow::Result<Histogram> {
        let (start, start_micros) = (Instant::now(), now_micros());
        let due_at = |n: u64| Duration::from_secs_f64(n as f64 / f64::from(rate));
        let stamp = |n: u64| start_micros + u64::try_from(due_at(n).as_micros()).unwrap_or(0);
        let (mut sent, mut answered) = (0_u64, Histogram::default());
        while !until(sent) {
            let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64 + 1;
            if due <= sent {
                tokio::time::sleep_until((start + due_at(sent)).into()).await;
                continue;
            }
            let batch = sent..due.min(sent + BATCH as u64);
            let room = |n: u64| rooms.start + (n as usize) % rooms.len();
            let events = batch.clone().map(|n| self.event(room(n), stamp(n))).collect();
            self.post(events).await?;
            let now = now_micros();
            for n in batch.clone() {
                answered.record(now.saturating_sub(stamp(n)));
            }
            sent = batch.end;
        }
        Ok(answered)
    }
}

/// An event in the short form that will be stored with about `bytes`. What the swarm reads stands last, where it is found fastest.
#[must_use]
pub fn event(room: usize, bytes: usize, number: Option<u64>, sent: u64) -> String {
    let number = number.map_or(String::new(), |n| format!(",\"n\":{n}"));
    let head = format!(
        "{{\"type\":\"load\",\"room\":\"load.{room}\",\"data\":{{\"amount\":\"12.50\",\"group\":\"g{}\"",
        room % 1_000
    );
    let tail = format!("{number},\"sent\":{sent}}}}}");
    let fill = bytes.saturating_sub(FILLED_IN_BYTES + head.len() + tail.len() + 10);
    format!("{head},\"fill\":\"{}\"{tail}", "x".repeat(fill))
}
