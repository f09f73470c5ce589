use std::path::Path;

use roomcast_access::Policy;
use roomcast_proto::device::Devices;
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::subject::{header, state};
use serde_json::json;

use super::*;
use crate::sinks::roster::tests::device;
use crate::sinks::waiting::{Lane, WEBHOOK_JOBS_MAX};

const POLICY: &str = r#"
version: 1
roles:
  staff: { permissions: [news.view] }
rooms:
  - { room: notifications, subscribe: news.view, auto_join: true }
"#;

fn message(sequence: u64, room: &str) -> StoredMessage {
    let id = format!("n{sequence}");
    let key = format!("notification/{id}");
    let event = json!({
        "specversion": "1.0", "id": id, "source": "s", "type": "notification.late", "room": room, "audience": "all",
        "statekey": key, "data": { "title": "Late" },
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::KEY, format!("{key:?}").as_str());
    StoredMessage {
        sequence,
        subject: state(
            &Tenant::default(),
            &Room::parse(room).unwrap(),
            &Audience::all(),
            &key,
        ),
        time_micros: i64::try_from(sequence).unwrap() * 10,
        headers,
        payload: event.to_string().into(),
    }
}

fn traced(mut message: StoredMessage) -> StoredMessage {
    message.headers.insert(TRACE_PARENT, "00-9-1-01");
    message
}

fn number(sequence: u64) -> StoredMessage {
    let mut headers = HeaderMap::new();
    headers.insert(header::KEY, r#""revenue""#);
    StoredMessage {
        headers,
        ..message(sequence, "notifications")
    }
}

fn config(webhooks: &[&str]) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let pem = include_bytes!("../../../../sinks/tests/vapid.pem");
    std::fs::write(dir.path().join("vapid.pem"), pem).unwrap();
    std::fs::write(
        dir.path().join("secret"),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    .unwrap();
    let mut text = "push: { key_file: vapid.pem, contact: \"mailto:a@b\" }\n".to_owned();
    if !webhooks.is_empty() {
        text.push_str("webhooks:\n");
    }
    for name in webhooks {
        text.push_str(&format!(
            "  - {{ name: {name}, url: \"https://x/\", secret_file: secret, rooms: [notifications] }}\n"
        ));
    }
    let path = dir.path().join("sinks.yaml");
    std::fs::write(&path, text).unwrap();
    Config::load(Path::new(&path)).unwrap()
}

fn roster(users: usize) -> Roster {
    let mut roster = Roster::default();
    for n in 0..users {
        // Names of which one begins with another.
        let user = format!("u{}", "-a".repeat(n % 3)) + &n.to_string();
        let devices = vec![device(&format!("d{n}"), &user, 0, i64::MAX)];
        roster.put(
            (Tenant::default(), user),
            Devices {
                devices,
                gone: Vec::new(),
            },
        );
    }
    roster
}

struct Desk {
    config: Config,
    roster: Roster,
    waiting: Waiting,
    in_force: InForce,
}

impl Desk {
    fn new(webhooks: &[&str], users: usize) -> Self {
        Self {
            config: config(webhooks),
            roster: roster(users),
            waiting: Waiting::default(),
            in_force: InForce::of(Policy::parse(POLICY, "policy.yaml").unwrap()),
        }
    }

    fn plan(&self, messages: &[StoredMessage], from: &Position) -> Plan {
        let known = Known {
            config: &self.config,
            roster: &self.roster,
            waiting: &self.waiting,
            in_force: &self.in_force,
            now_millis: 0,
        };
        plan(messages.to_vec(), from, known)
    }
}

fn from(next: u64) -> Position {
    Position {
        life: "l1".to_owned(),
        next,
        ..Position::default()
    }
}

fn subjects(plan: &Plan) -> Vec<String> {
    plan.jobs.iter().map(|one| one.job.subject()).collect()
}

#[test]
fn each_target_gets_each_notification_and_the_position_is_behind_all() {
    let desk = Desk::new(&["a", "b"], 1);
    let messages = [
        number(5),
        message(6, "notifications"),
        number(8),
        traced(message(9, "user.u0")),
    ];
    let plan = desk.plan(&messages, &from(5));
    let expected = [
        "$KV.sinks.job.main.hook.a.6",
        "$KV.sinks.job.main.hook.b.6",
        "$KV.sinks.job.main.push.u0.d0.6",
        "$KV.sinks.job.main.push.u0.d0.9",
    ];
    assert_eq!(subjects(&plan), expected);
    assert_eq!(plan.jobs[0].payload, messages[1].payload);
    assert_eq!(plan.jobs[2].payload, "l1");
    // Whoever sends it goes on with its trace.
    let traced: Vec<Option<&str>> = plan
        .jobs
        .iter()
        .map(|one| one.headers.get_last(TRACE_PARENT).map(|value| value.as_str()))
        .collect();
    assert_eq!(traced, [None, None, None, Some("00-9-1-01")]);
    let position = Position {
        next: 10,
        read_micros: 90,
        ..from(5)
    };
    assert_eq!((plan.position, plan.full), (position, vec![]));
    assert_eq!(desk.plan(&[], &from(5)).position, from(5));
}

#[test]
fn a_notification_for_many_is_planned_in_parts_and_for_each_of_them_once() {
    let desk = Desk::new(&["a"], 1_234);
    let messages = [message(6, "notifications"), message(7, "notifications")];
    let (mut position, mut all, mut rounds) = (from(6), Vec::new(), 0);
    while position.next < 8 {
        let rest: Vec<StoredMessage> = messages
            .iter()
            .filter(|message| message.sequence >= position.next)
            .cloned()
            .collect();
        let plan = desk.plan(&rest, &position);
        assert!(plan.jobs.len() <= JOBS_MAX && !plan.jobs.is_empty());
        all.extend(subjects(&plan));
        position = serde_json::from_str(&serde_json::to_string(&plan.position).unwrap()).unwrap();
        rounds += 1;
    }
    assert_eq!((all.len(), rounds), (2 * 1_235, 5));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2 * 1_235, "each once");
    // A newer one took the place of the one that was planned in part: it is for everybody.
    let half = Position {
        after: Some(("u-a1".to_owned(), "d1".to_owned())),
        ..from(6)
    };
    assert_eq!(
        desk.plan(&messages[1..], &half).jobs[0].job.subject(),
        "$KV.sinks.job.main.hook.a.7"
    );
}

#[test]
fn what_was_read_in_another_life_of_the_stream_is_passed_over() {
    let desk = Desk::new(&["a"], 0);
    let again = Position {
        since_micros: 60,
        ..from(1)
    };
    let plan = desk.plan(
        &[message(6, "notifications"), message(7, "notifications")],
        &again,
    );
    assert_eq!(subjects(&plan), ["$KV.sinks.job.main.hook.a.7"]);
}

#[test]
fn what_a_target_has_no_room_for_is_a_dead_letter() {
    let mut desk = Desk::new(&["a"], 0);
    for position in 0..WEBHOOK_JOBS_MAX - 1 {
        let position = u64::try_from(position).unwrap();
        let job = SinkJob {
            tenant: Tenant::default(),
            target: SinkTarget::Webhook("a".to_owned()),
            position,
        };
        desk.waiting
            .add(position, job, 0, Lane::Webhook("a".to_owned()), 0);
    }
    let messages = [message(60_001, "notifications"), message(60_002, "notifications")];
    let plan = desk.plan(&messages, &from(60_001));
    assert_eq!(subjects(&plan), ["$KV.sinks.job.main.hook.a.60001"]);
    assert_eq!(plan.full.len(), 1);
    assert_eq!(plan.position.next, 60_003);
}
