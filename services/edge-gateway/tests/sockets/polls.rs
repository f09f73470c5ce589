//! Polls: held until there is something, answered at once without, and nothing of it left behind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use roomcast_harness::http::{Answer, Http};
use roomcast_harness::stream::path;
use roomcast_harness::token::now;
use serde_json::json;

use super::Gateway;

struct Poller {
    http: Http,
    url: String,
    token: String,
}

impl Poller {
    fn new(gateway: &Gateway, user: &str, roles: &[&str]) -> Self {
        Self {
            http: Http::default(),
            url: gateway.url.clone(),
            token: gateway.signer.token(user, roles),
        }
    }

    async fn ask(&self, rooms: &[&str], cursors: &[&str], wait: &str, tag: Option<&str>) -> Answer {
        let url = format!("{}{}{wait}", self.url, path("poll", rooms, cursors));
        let mut request = http::Request::get(url).header("authorization", format!("Bearer {}", self.token));
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        self.http
            .send(request.body(Full::<Bytes>::default()).unwrap())
            .await
            .unwrap()
    }
}

fn ids(answer: &Answer) -> Vec<String> {
    let answer = answer.json();
    let frames = answer["frames"].as_array().unwrap();
    let ids = frames
        .iter()
        .filter_map(|frame| frame["event"]["event"]["id"].as_str());
    ids.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_held_until_there_is_something_for_this_client() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let poller = Poller::new(&gateway, "u1", &["staff"]);
    gateway.state("bookings", "all", "k", json!(1)).await;
    gateway.state("bookings", "admin", "canary", json!(1)).await;
    let rooms = ["bookings", "absent"];
    let first = poller.ask(&rooms, &[], "", None).await;
    let body = first.json();
    let names: Vec<_> = body["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["room"].clone())
        .collect();
    assert_eq!(names, ["bookings", "absent", "notifications", "user.u1"]);
    assert_eq!(
        (&body["rooms"][0]["recovery"], &body["rooms"][1]["error"]["code"]),
        (&json!("fresh"), &json!("forbidden"))
    );
    assert_eq!(
        (ids(&first), &body["more"]),
        (vec!["k-1".to_owned()], &json!(false))
    );
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let cursor = body["cursor"].as_str().unwrap();
    assert_eq!(first.header("etag"), Some(&*format!("\"{cursor}\"")));

    let (begun, cursors) = (Instant::now(), [cursor]);
    let (held, ()) = tokio::join!(poller.ask(&rooms, &cursors, "&wait=20", None), async {
        while gateway.metric("roomcast_gateway_polls_held") < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.event("money", "all", "canary-room", json!({})).await;
        gateway
            .event("bookings", "admin", "canary-event", json!({}))
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        gateway.event("notifications", "all", "news", json!({})).await;
    });
    assert_eq!(ids(&held), ["news"]);
    assert!(
        (300..10_000).contains(&begun.elapsed().as_millis()),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        !format!("{}{}", first.text(), held.text()).contains("canary"),
        "{}",
        held.text()
    );
    let body = held.json();
    assert!(
        body["rooms"]
            .as_array()
            .unwrap()
            .iter()
            .all(|room| room["recovery"] == "complete" || room["error"].is_object())
    );

    // Nothing new: an empty answer with a cursor that is newer all the same.
    let begun = Instant::now();
    let quiet = poller
        .ask(&rooms, &[body["cursor"].as_str().unwrap()], "&wait=1", None)
        .await;
    assert!(begun.elapsed() >= Duration::from_secs(1) && ids(&quiet).is_empty());
    let at_once = poller
        .ask(&rooms, &[body["cursor"].as_str().unwrap()], "&wait=0", None)
        .await;
    assert_eq!((at_once.status, ids(&at_once).len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_poll_ends_with_its_token() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let mut poller = Poller::new(&gateway, "u1", &["staff"]);
    let cursor = poller.ask(&["bookings"], &[], "&wait=0", None).await.json()["cursor"].clone();
    // It has passed its end, and two thirds of the leeway.
    let claims = json!({ "iat": now() - 100 });
    poller.token = gateway.signer.token_with("u1", &["staff"], -20, &claims);
    let begun = Instant::now();
    let answer = poller
        .ask(&["bookings"], &[cursor.as_str().unwrap()], "&wait=25", None)
        .await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (401, &json!("expired")),
        "{}",
        answer.text()
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(gateway.metric("roomcast_gateway_polls_held"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_follow_each_other_and_tags_say_that_nothing_is_new() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_RECOVERY_PAGE_EVENTS", "4")]).await else {
        return;
    };
    let poller = Poller::new(&gateway, "u1", &["staff"]);
    let rooms = ["bookings", "notifications"];
    let first = poller.ask(&rooms, &[], "&wait=0", None).await;
    let mut cursor = first.json()["cursor"].as_str().unwrap().to_owned();
    for n in 0..10 {
        gateway
            .event(rooms[n % 2], "all", &format!("p{n}"), json!({}))
            .await;
    }
    gateway.state("bookings", "all", "k", json!(1)).await;
    gateway.event("bookings", "all", "p10", json!({})).await;
    let (mut seen, mut pages) = (Vec::new(), 0);
    while !seen.contains(&"k-1".to_owned()) {
        let page = poller.ask(&rooms, &[&cursor], "&wait=5", None).await;
        seen.extend(ids(&page));
        page.json()["cursor"].as_str().unwrap().clone_into(&mut cursor);
        pages += 1;
        assert!(pages < 20, "{seen:?}");
    }
    let events: Vec<&String> = seen.iter().filter(|id| id.starts_with('p')).collect();
    assert_eq!(
        events,
        (0..11)
            .map(|n| format!("p{n}"))
            .collect::<Vec<_>>()
            .iter()
            .collect::<Vec<_>>()
    );
    assert!(pages >= 3, "{pages}");

    // With a cursor: the tag of the answer that had it.
    let tag = format!("\"{cursor}\"");
    let same = poller.ask(&rooms, &[&cursor], "&wait=0", Some(&tag)).await;
    assert_eq!(
        (same.status, same.header("etag"), same.body.len()),
        (304, Some(&*tag), 0)
    );
    // Without one: a plain address that is asked again and again, as a script does.
    let whole = poller.ask(&rooms, &[], "&wait=0", None).await;
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(poller.ask(&rooms, &[], "&wait=0", Some(&tag)).await.status, 304);
    assert_eq!(
        poller.ask(&rooms, &[], "&wait=0", Some("\"other\"")).await.status,
        200
    );
    gateway.state("bookings", "all", "k", json!(2)).await;
    let mut changed = poller.ask(&rooms, &[], "&wait=0", Some(&tag)).await;
    for _ in 0..100 {
        if changed.status == 200 {
            break;
        }
        changed = poller.ask(&rooms, &[], "&wait=0", Some(&tag)).await;
    }
    assert_eq!(ids(&changed), ["k-2"], "all state again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_polls_are_bounded_and_go_with_their_clients() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_POLLS_HELD_MAX", "2")]).await else {
        return;
    };
    let held = || gateway.metric("roomcast_gateway_polls_held");
    let settled = async |count: f64| {
        for _ in 0..500 {
            if held() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} polls are held, not {count}", held());
    };
    let poller = Poller::new(&gateway, "u1", &["staff"]);
    let cursor = poller.ask(&["bookings"], &[], "&wait=0", None).await.json()["cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (poller, cursor) = (Poller::new(&gateway, "u1", &["staff"]), cursor.clone());
        waiting.push(tokio::spawn(async move {
            poller.ask(&["bookings"], &[&cursor], "", None).await
        }));
    }
    settled(2.0).await;
    let refused = poller.ask(&["bookings"], &[&cursor], "", None).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("5")),
        "{}",
        refused.text()
    );
    assert_eq!(
        poller
            .ask(&["bookings"], &[&cursor], "&wait=0", None)
            .await
            .status,
        200
    );
    // A client that goes away takes its poll with it.
    waiting.pop().unwrap().abort();
    settled(1.0).await;
    gateway.event("bookings", "all", "news", json!({})).await;
    assert_eq!(ids(&waiting.pop().unwrap().await.unwrap()), ["news"]);
    settled(0.0).await;
}
