//! Receivers that hang beside receivers that are good.

use roomcast_harness::eventually;
use roomcast_harness::receiver::{Receiver, Says};

use super::{Files, PATIENCE, ids, notify, until_ended};

/// What a receiver has under way for itself alone.
const OWN: usize = 2;

/// Five webhooks hang, and each has more to hear than it may have under way: together they would fill all that is shared, again and again.
#[tokio::test]
async fn several_receivers_that_hang_leave_the_good_ones_their_way() {
    const HANG: usize = 5;
    const NOISE: usize = 30;
    const GOOD: usize = 40;
    let receiver = Receiver::start().await;
    let hook = |name: &str, room: &str| {
        let url = receiver.url(&format!("/{name}"));
        format!("  - {{ name: {name}, url: \"{url}\", secret_file: secret, rooms: [{room}] }}\n")
    };
    let names: Vec<String> = (0..HANG).map(|n| format!("hangs{n}")).collect();
    let mut more = "webhooks:\n".to_owned() + &hook("good", "notifications");
    for name in &names {
        more.push_str(&hook(name, "noise"));
        receiver.say(&format!("/{name}"), Says::Silence);
    }
    let files = Files::new(&receiver, &[], &more);
    let Some(ingest) = files.start().await else {
        return;
    };
    let gauge = |name: &str| ingest.metric(&format!(r#"{name}{{sink="webhook"}}"#));
    let begun = || -> usize {
        let begun = names
            .iter()
            .map(|name| receiver.received(&format!("/{name}")).len());
        begun.sum()
    };
    for n in 0..NOISE {
        notify(&ingest, "noise", "all", &format!("noise{n}")).await;
    }
    eventually("all of them are known to hang", PATIENCE, || async {
        gauge("roomcast_ingest_sink_hanging") == HANG as f64
    })
    .await;
    let before = begun();
    for n in 0..GOOD {
        notify(&ingest, "notifications", "all", &format!("good{n}")).await;
    }
    until_ended(&ingest, "webhook", "sent", GOOD as f64).await;
    // A round of theirs takes 5 s and is of two attempts each. Were it more, those 150 that wait for longer would have their turn first.
    let meanwhile = begun() - before;
    assert!(
        meanwhile <= 6 * HANG * OWN,
        "{meanwhile} attempts at those that hang"
    );
    let mut told = ids(&receiver.received("/good"));
    told.sort();
    told.dedup();
    assert_eq!(told.len(), GOOD, "each of them, and nobody gave anything up");
    assert!(gauge("roomcast_ingest_sink_waiting") >= (HANG * NOISE) as f64);
    assert!(ingest.metric(r#"roomcast_ingest_sink_pauses_total{reason="busy"}"#) >= 1.0);
    // One that answers again is told of everything.
    receiver.say("/hangs0", Says::Status(200, ""));
    eventually("it is told of everything", PATIENCE, || async {
        let mut told = ids(&receiver.received("/hangs0"));
        told.sort();
        told.dedup();
        told.len() == NOISE
    })
    .await;
    eventually("it does not hang any more", PATIENCE, || async {
        gauge("roomcast_ingest_sink_hanging") == HANG as f64 - 1.0
    })
    .await;
}
