//! Calls that change something, and callers who do not wait for the end of it.

use std::sync::Arc;
use std::time::Duration;

use roomcast_chassis::shutdown::Stage;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

const PATH: &str = "/admin/v1/slow";

/// A call whose handler has begun, and what lets it end.
struct Slow {
    rig: Rig,
    call: JoinHandle<Answer>,
    go_on: Arc<Notify>,
}

impl Slow {
    async fn begin() -> Self {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (has_begun, may_end) = (Arc::clone(&begun), Arc::clone(&go_on));
        let handler = async move || {
            has_begun.notify_one();
            may_end.notified().await;
            (Extension(Note(json!("the end"))), "ended")
        };
        let operation = Operation::new("test", "slow", "Takes its time.");
        let rig = Rig::with(Routes::new().post(PATH, operation, handler));
        let request = Request::post(PATH)
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {}", rig.token()))
            .body(Body::empty())
            .unwrap();
        let asked = Rig::answer(rig.context.admin.router(), request);
        let call = tokio::spawn(asked);
        begun.notified().await;
        Self { rig, call, go_on }
    }

    /// Whether the end of the process waits for it.
    fn is_under_way(&self) -> bool {
        !self.rig.context.shutdown.stage(Stage::Drain).tracker().is_empty()
    }

    async fn end(&self) {
        self.go_on.notify_one();
        roomcast_harness::eventually("it has ended", Duration::from_secs(10), || async {
            !self.is_under_way()
        })
        .await;
    }

    /// Status and note of each entry of the record.
    fn entries(&self) -> Vec<(Value, Value)> {
        let entries = self.rig.audit.entries();
        let outcome = |entry: &Value| (entry["call"]["status"].clone(), entry["note"].clone());
        entries.iter().map(outcome).collect()
    }
}

#[tokio::test]
async fn who_hangs_up_does_not_stop_what_they_began() {
    let slow = Slow::begin().await;
    slow.call.abort();
    roomcast_harness::eventually("they are gone", Duration::from_secs(10), || async {
        slow.call.is_finished()
    })
    .await;
    assert!(slow.is_under_way());
    assert_eq!(slow.entries(), []);
    slow.end().await;
    assert_eq!(slow.entries(), [(json!(200), json!("the end"))]);
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_answered_and_ends_later() {
    let mut slow = Slow::begin().await;
    let answer = (&mut slow.call).await.unwrap();
    assert_eq!((answer.status, &answer.json["code"]), (504, &json!("unknown")));
    assert!(slow.is_under_way());
    slow.end().await;
    let expected = [(json!(504), Value::Null), (json!(200), json!("the end"))];
    assert_eq!(slow.entries(), expected);
    let text = String::from_utf8(slow.rig.context.metrics.encode().unwrap()).unwrap();
    let done = text
        .lines()
        .find(|line| line.contains("admin_calls_total") && line.contains("\"done\""));
    assert!(done.unwrap().ends_with(" 0"), "one call is counted once: {text}");
}
