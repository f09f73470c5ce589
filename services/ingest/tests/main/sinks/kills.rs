//! Ingest killed: what is stored is sent, and what was sent is not sent again.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::eventually;
use roomcast_harness::receiver::{Device, Receiver, Says};

use super::{Files, PATIENCE, POLICY, begun, ids, notify, registered, until_empty};
use crate::fixture::Ingest;
use crate::process::Process;

/// Killed while a receiver takes its time: what is stored is sent, and only what was being answered at that moment twice.
#[tokio::test]
async fn nothing_is_lost_and_nothing_sent_again_when_ingest_is_killed() {
    const NOTIFICATIONS: usize = 60;
    /// Attempts under way of one webhook.
    const UNDER_WAY: usize = 16;
    let receiver = Receiver::start().await;
    receiver.say("/slow", Says::After(Duration::from_millis(150)));
    let files = Files::new(&receiver, &[("slow", receiver.url("/slow"))], "");
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    // This one takes events and sends nothing.
    let more = [("ROOMCAST_SINKS_FILE", files.path())];
    let more: Vec<(&str, &str)> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let start = async || Process::start(&ingest.nats.url(), ingest.dir(), &more).await;
    let mut sending = start().await;
    begun(&ingest).await;
    for n in 0..NOTIFICATIONS {
        notify(&ingest, "notifications", "all", &format!("n{n}")).await;
    }
    eventually("it is in the midst of it", PATIENCE, || async {
        receiver.received("/slow").len() >= 20
    })
    .await;
    sending.kill().await;
    sending = start().await;
    eventually("each was sent", PATIENCE, || async {
        let mut told = ids(&receiver.received("/slow"));
        told.sort();
        told.dedup();
        told.len() == NOTIFICATIONS
    })
    .await;
    until_empty(&ingest).await;
    let requests = receiver.received("/slow");
    let again = requests.len() - NOTIFICATIONS;
    assert!(again <= UNDER_WAY, "{again} were sent again");
    let mut names: HashMap<String, String> = HashMap::new();
    for request in &requests {
        let id = ids(std::slice::from_ref(request)).remove(0);
        let name = request.headers["webhook-id"].clone();
        assert_eq!(
            *names.entry(id).or_insert_with(|| name.clone()),
            name,
            "a repeat has its name"
        );
    }
    sending.kill().await;
}

/// Killed when everything was told: what comes while nobody sends is told by the next one, and nothing is told again, to nobody.
#[tokio::test]
async fn after_a_kill_nothing_is_told_again_and_what_came_meanwhile_is_told_once() {
    let receiver = Receiver::start().await;
    let files = Files::new(&receiver, &[("pager", receiver.url("/pager"))], "");
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let path = files.path();
    let more = [("ROOMCAST_SINKS_FILE", path.as_str())];
    let start = async || Process::start(&ingest.nats.url(), ingest.dir(), &more).await;
    let mut sending = Some(start().await);
    begun(&ingest).await;
    let device = Device::new(receiver.url("/phone"));
    registered(&ingest, &device).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        // In the second round nobody sends while these come.
        for n in 0..4 {
            let id = format!("r{round}n{n}");
            notify(&ingest, "notifications", "all", &id).await;
            expected.push(id);
        }
        if sending.is_none() {
            sending = Some(start().await);
        }
        eventually("both are told", PATIENCE, || async {
            receiver.received("/pager").len() >= expected.len()
                && receiver.received("/phone").len() >= expected.len()
        })
        .await;
        until_empty(&ingest).await;
        let mut told = ids(&receiver.received("/pager"));
        told.sort();
        assert_eq!(told, expected, "the webhook, once each");
        let read = |body: &[u8]| device.read(body).unwrap()["id"].as_str().unwrap().to_owned();
        let mut told: Vec<String> = receiver
            .received("/phone")
            .iter()
            .map(|one| read(&one.body))
            .collect();
        told.sort();
        assert_eq!(told, expected, "the device, once each");
        if round == 0
            && let Some(sending) = sending.take()
        {
            sending.kill().await;
        }
    }
    if let Some(sending) = sending {
        sending.kill().await;
    }
}
