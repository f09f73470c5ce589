//! Publishers that do as the documentation says: one event after the other, the same id again until it is acknowledged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::http::Http;

/// An answer must come within this; else the event is sent again.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Pause after a failed attempt: long enough not to be a busy loop, short against any restart.
const AGAIN_AFTER: Duration = Duration::from_millis(40);

/// How a publisher reaches ingest.
#[derive(Clone)]
pub enum Way {
    /// `POST /v1/events` at one of these addresses, with this token.
    Http {
        /// Addresses of ingests, tried in turn.
        ingests: Vec<String>,
        /// A service's token.
        token: String,
    },
    /// A request on `in.<room>.<audience>`.
    Nats(async_nats::Client),
}

/// What publishers were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Acknowledged ids with the publisher's number, in the order of the acknowledgements.
    pub acknowledged: Vec<(usize, String)>,
    /// When each was first sent, and when it was acknowledged.
    pub times: HashMap<String, (Instant, Instant)>,
    /// Attempts beyond the first.
    pub repeats: u64,
    /// Answers `duplicate`: the first attempt was stored and its answer lost.
    pub duplicates: u64,
    /// Answers that must not come: a refusal that no repetition mends.
    pub refused: Vec<Value>,
}

/// Makes event `n` of publisher `p`; the id is put in afterwards.
pub type Maker = Arc<dyn Fn(usize, u64) -> Value + Send + Sync>;

/// Publishers at work.
pub struct Traffic {
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    acknowledged: Arc<AtomicU64>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Traffic {
    /// Starts one publisher per way. Ids are `<name>-<publisher>-<n>`; each publisher sends an event every `pace`, and not before
    /// the one before is acknowledged.
    #[must_use]
    pub fn start(name: &str, ways: Vec<Way>, pace: Duration, make: &Maker) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Mutex::new(Told::default()));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let tasks = ways.into_iter().enumerate().map(|(publisher, way)| {
            let work = Work {
                name: name.to_owned(),
                publisher,
                way,
                make: Arc::clone(make),
                stop: Arc::clone(&stop),
                told: Arc::clone(&told),
                acknowledged: Arc::clone(&acknowledged),
                http: Http::default(),
            };
            tokio::spawn(work.run(pace))
        });
        Self {
            tasks: tasks.collect(),
            stop,
            told,
            acknowledged,
        }
    }

    /// How many events are acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Lets every publisher finish the event it is at, and answers what they were told.
    ///
    /// # Panics
    /// When that takes longer than 30 s: an event is never acknowledged.
    pub async fn finish(mut self) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            let ended = tokio::time::timeout(Duration::from_secs(30), task).await;
            ended
                .expect("the last event is acknowledged within 30 s")
                .expect("a publisher does not panic");
        }
        std::mem::take(&mut *self.told.lock().expect("no publisher panics"))
    }
}

struct Work {
    name: String,
    publisher: usize,
    way: Way,
    make: Maker,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    acknowledged: Arc<AtomicU64>,
    http: Http,
}

impl Work {
    async fn run(self, pace: Duration) {
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut n = 0;
        while !self.stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            let mut event = (self.make)(self.publisher, n);
            let id = format!("{}-{}-{n}", self.name, self.publisher);
            event["id"] = json!(id);
            self.publish(&id, &event).await;
            n += 1;
        }
    }

    /// Until it is acknowledged or refused for good.
    async fn publish(&self, id: &str, event: &Value) {
        let first = Instant::now();
        for attempt in 0_usize.. {
            let answer = tokio::time::timeout(ANSWER_WITHIN, self.attempt(event, attempt)).await;
            let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")));
            if self.note(id, first, answer) {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Notes an answer; whether it is final.
    fn note(&self, id: &str, first: Instant, answer: anyhow::Result<Value>) -> bool {
        let mut told = self.told.lock().expect("no publisher panics");
        match answer {
            Ok(answer) if answer["status"] == "stored" || answer["status"] == "duplicate" => {
                told.duplicates += u64::from(answer["status"] == "duplicate");
                told.acknowledged.push((self.publisher, id.to_owned()));
                told.times.insert(id.to_owned(), (first, Instant::now()));
                self.acknowledged.fetch_add(1, Ordering::SeqCst);
                true
            }
            Ok(answer) if !is_temporary(&answer) => {
                told.refused.push(answer);
                true
            }
            _ => {
                told.repeats += 1;
                false
            }
        }
    }

    async fn attempt(&self, event: &Value, attempt: usize) -> anyhow::Result<Value> {
        match &self.way {
            Way::Http { ingests, token } => {
                let url = format!("{}/v1/events", ingests[attempt % ingests.len()]);
                let answer = self
                    .http
                    .post(&url, token, "application/json", event.to_string())
                    .await?;
                anyhow::ensure!(answer.status < 500, "{}: {}", answer.status, answer.text());
                Ok(answer.json())
            }
            Way::Nats(client) => {
                let text = |name: &str| event[name].as_str().unwrap_or("all").to_owned();
                let subject = format!("in.{}.{}", text("room"), text("audience"));
                let answer = client.request(subject, event.to_string().into()).await?;
                Ok(serde_json::from_slice(&answer.payload)?)
            }
        }
    }
}

/// Whether the same event may be stored later. Answers of HTTP have no such member; their status has been looked at.
fn is_temporary(answer: &Value) -> bool {
    answer["temporary"] == true || answer["status"] == 429
}
