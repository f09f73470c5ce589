//! Publishers that do as the documentation says, alone and in batches, and remember what they were told.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roomcast_harness::http::Http;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Events of each publisher's requests.
const PUBLISHERS: [usize; 6] = [1, 1, 1, 20, 20, 20];
/// Pause after an attempt that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// Pause between requests: thousands of events a run are enough, and the machine has other work.
const PACE: Duration = Duration::from_millis(5);
/// The last request of each publisher must be answered within this.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// What publishers were told, and what they sent.
#[derive(Debug, Default)]
pub struct Told {
    /// Acknowledged ids with the publisher's number, in the order of the acknowledgements.
    pub acknowledged: Vec<(usize, String)>,
    /// Everything that was ever sent.
    pub sent: HashSet<String>,
    /// Refusals that no repetition mends; there must be none.
    pub refused: Vec<Value>,
    /// Longest time without an acknowledgement.
    pub silence: Duration,
    last: Option<Instant>,
}

/// Publishers at work; they end with the value.
pub struct Traffic {
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn locked(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Traffic {
    /// Starts them. Ids are `<run>-<publisher>-<n>`.
    #[must_use]
    pub fn start(run: &str, url: &str, token: &str) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Told>>::default());
        let tasks = PUBLISHERS.iter().enumerate().map(|(publisher, size)| {
            let publisher = Publisher {
                run: run.to_owned(),
                publisher,
                size: *size,
                url: url.to_owned(),
                token: token.to_owned(),
                stop: Arc::clone(&stop),
                told: Arc::clone(&told),
                http: Http::default(),
            };
            tokio::spawn(publisher.run())
        });
        Self {
            tasks: tasks.collect(),
            stop,
            told,
        }
    }

    /// How many events are acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        locked(&self.told).acknowledged.len()
    }

    /// Waits until so many more are acknowledged.
    ///
    /// # Panics
    /// When that takes longer than [`ENDS_WITHIN`].
    pub async fn more(&self, events: usize) {
        let goal = self.acknowledged() + events;
        roomcast_harness::eventually("publishers are answered", ENDS_WITHIN, || async {
            self.acknowledged() >= goal
        })
        .await;
    }

    /// Lets every publisher finish the request it is at.
    ///
    /// # Errors
    /// When one is not answered within [`ENDS_WITHIN`].
    pub async fn finish(mut self) -> anyhow::Result<Told> {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            tokio::time::timeout(ENDS_WITHIN, task).await??;
        }
        Ok(std::mem::take(&mut *locked(&self.told)))
    }

    /// Stops publishers where they stand, mid-request: the power is gone for them too. What was not answered may be stored or not.
    #[must_use]
    pub fn cut(mut self) -> Told {
        self.tasks.drain(..).for_each(|task| task.abort());
        std::mem::take(&mut *locked(&self.told))
    }
}

struct Publisher {
    run: String,
    publisher: usize,
    size: usize,
    url: String,
    token: String,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    http: Http,
}

impl Publisher {
    async fn run(self) {
        let mut next = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let ids: Vec<String> = (next..next + self.size)
                .map(|n| format!("{}-{}-{n}", self.run, self.publisher))
                .collect();
            next += self.size;
            locked(&self.told).sent.extend(ids.iter().cloned());
            self.publish(ids).await;
            tokio::time::sleep(PACE).await;
        }
    }

    /// Repeats with the same ids until each is acknowledged.
    async fn publish(&self, mut ids: Vec<String>) {
        loop {
            let results = self.attempt(&ids).await.unwrap_or_default();
            ids = self.note(ids, &results);
            if ids.is_empty() {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn attempt(&self, ids: &[String]) -> anyhow::Result<Vec<Value>> {
        let event = |id: &String| json!({ "type": "booking:new", "room": "bookings", "id": id, "data": { "amount": 1 } });
        let body: Vec<Value> = ids.iter().map(event).collect();
        let body = Value::from(body).to_string();
        let answer = self
            .http
            .post(&self.url, &self.token, "application/json", body)
            .await?;
        Ok(answer.json()["results"].as_array().cloned().unwrap_or_default())
    }

    /// Notes the answers, one per id or none at all; gives the ids to be sent again.
    fn note(&self, ids: Vec<String>, results: &[Value]) -> Vec<String> {
        let mut told = locked(&self.told);
        let mut again = Vec::new();
        for (index, id) in ids.into_iter().enumerate() {
            let result = results.get(index).unwrap_or(&Value::Null);
            if result["status"] == "stored" || result["status"] == "duplicate" {
                let now = Instant::now();
                let silence = told.last.map_or(Duration::ZERO, |last| now - last);
                (told.silence, told.last) = (silence.max(told.silence), Some(now));
                told.acknowledged.push((self.publisher, id));
            } else if result["status"] == "refused" && result["temporary"] != true {
                told.refused.push(result.clone());
            } else {
                again.push(id);
            }
        }
        again
    }
}
