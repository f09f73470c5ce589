//! An ingest that hears what rules say: it answers late, not at all, or only after it has stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use roomcast_proto::event::StateEvent;
use roomcast_proto::ids::Audience;
use roomcast_proto::subject::{header, parse_inbound, state};
use serde_json::{Value, json};

use crate::world::World;

#[derive(Default)]
struct Heard {
    /// Every request by id.
    bodies: BTreeMap<String, Vec<Value>>,
    /// What each line says.
    lines: BTreeMap<String, String>,
}

pub struct Ears(Arc<Mutex<Heard>>);

impl Ears {
    pub async fn listen(world: &World) -> Self {
        let client = world.nats.connect("admin").await;
        let mut requests = client.subscribe("in.AGG.>").await.unwrap();
        client.flush().await.unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (memory, jetstream, tenant) = (Arc::clone(&heard), world.jetstream.clone(), world.tenant.clone());
        tokio::spawn(async move {
            let mut count = 0_u32;
            while let Some(message) = requests.next().await {
                count += 1;
                let body: Value = serde_json::from_slice(&message.payload).unwrap();
                let (id, dedup) = (text(&body["id"]), text(&body["dedupkey"]));
                let known = memory.lock().unwrap().bodies.contains_key(&id);
                memory
                    .lock()
                    .unwrap()
                    .bodies
                    .entry(id.clone())
                    .or_default()
                    .push(body.clone());
                if count.is_multiple_of(5) {
                    let refusal = json!({ "code": "unavailable", "message": "not now", "temporary": true });
                    answer(&client, message.reply, refusal).await;
                    continue;
                }
                if !known
                    || memory
                        .lock()
                        .unwrap()
                        .lines
                        .get(&dedup)
                        .is_none_or(|state| *state != text(&body["data"]["state"]))
                {
                    let to = parse_inbound(&message.subject).unwrap();
                    let key = format!("notification/{dedup}");
                    let event = StateEvent {
                        id: &id,
                        source: body["source"].as_str().unwrap(),
                        kind: body["type"].as_str().unwrap(),
                        time_micros: 0,
                        room: &to.room,
                        audience: &Audience::parse("staff").unwrap(),
                        statekey: &key,
                        expires_micros: None,
                        data: Some(&body["data"].to_string()),
                    };
                    let mut headers = HeaderMap::new();
                    headers.insert(header::KEY, format!("{key:?}").as_str());
                    let subject = state(&tenant, &to.room, &to.audience, &key);
                    let stored = jetstream
                        .publish(subject, headers, event.to_json(), Duration::from_secs(2))
                        .await;
                    stored.unwrap();
                    memory
                        .lock()
                        .unwrap()
                        .lines
                        .insert(dedup, text(&body["data"]["state"]));
                }
                // Once the answer is lost; sometimes ingest itself does not know.
                let said = match count {
                    7 => continue,
                    _ if count.is_multiple_of(4) => {
                        json!({ "code": "unknown", "message": "perhaps", "temporary": true })
                    }
                    _ => json!({ "status": "stored", "id": id }),
                };
                answer(&client, message.reply, said).await;
            }
        });
        Self(heard)
    }

    pub fn heard(&self) -> BTreeMap<String, Vec<Value>> {
        self.0.lock().unwrap().bodies.clone()
    }

    pub async fn eventually(&self, holds: impl Fn(&BTreeMap<String, String>) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let lines = self.0.lock().unwrap().lines.clone();
            if holds(&lines) {
                return;
            }
            assert!(Instant::now() < until, "{lines:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn answer(client: &async_nats::Client, reply: Option<async_nats::Subject>, body: Value) {
    if let Some(reply) = reply {
        client.publish(reply, body.to_string().into()).await.unwrap();
    }
}
