//! Answers in gzip: for whoever takes them, with the same content, and only where it is worth it.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::Full;
use roomcast_harness::eventually;
use roomcast_harness::http::{Answer, Http};
use serde_json::json;

use super::Gateway;

const SOON: Duration = Duration::from_secs(20);

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_gzip_gets_the_same_answers_in_fewer_bytes() {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/scenarios/bookings/page.json"
    );
    let Some(gateway) = Gateway::start(&[("ROOMCAST_PAGE_CONFIG_FILE", page)]).await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    for n in 0..200 {
        let data = json!({ "data": { "guest": "Ada Lovelace", "title": "two nights by the sea", "n": n } });
        gateway.event("bookings", "all", &format!("e{n}"), data).await;
    }
    let get = async |path: &str, headers: &[(&str, &str)]| -> Answer {
        let mut request = http::Request::get(format!("{}{path}", gateway.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default()).unwrap();
        http.send(request).await.unwrap()
    };
    let authorization = format!("Bearer {token}");
    let signed = ("authorization", &*authorization);
    let packing = ("accept-encoding", "br, gzip");
    let path = "/v1/rooms/bookings/snapshot?events=200";
    eventually("all are there", SOON, async || {
        let events = get(path, &[signed]).await.json()["events"].clone();
        events.as_array().is_some_and(|events| events.len() == 200)
    })
    .await;
    for path in [path, "/v1/rooms/bookings/events?limit=200"] {
        let (plain, packed) = (get(path, &[signed]).await, get(path, &[signed, packing]).await);
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
        let mut varies = packed.headers.get_all("vary").iter();
        assert!(varies.any(|value| value == "accept-encoding"), "{path}");
        assert_eq!(unpacked(&packed.body), &*plain.body, "{path}");
        let (packed, plain) = (packed.body.len(), plain.body.len());
        assert!(packed * 5 < plain, "{path}: {packed} of {plain}");
    }
    // How long it would be in gzip nobody knows before it is.
    for (headers, length) in [(&[signed][..], true), (&[signed, packing], false)] {
        let mut request = http::Request::head(format!("{}{path}", gateway.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = http
            .send(request.body(Full::<Bytes>::default()).unwrap())
            .await
            .unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length").is_some(), length, "{headers:?}");
        assert_eq!(head.header("content-encoding").is_none(), length, "{headers:?}");
    }
    // A tag of what is packed is good for the next question.
    let polled = get("/v1/poll?room=bookings&cursor=x&wait=0", &[signed, packing]).await;
    let tag = polled.header("etag").unwrap().to_owned();
    let cursor = tag.trim_start_matches("W/").trim_matches('"');
    let again = format!("/v1/poll?room=bookings&wait=0&cursor={cursor}");
    let same = get(&again, &[signed, packing, ("if-none-match", &tag)]).await;
    assert_eq!((same.status, same.body.len()), (304, 0));

    let configuration = get("/page.json", &[signed, packing]).await;
    assert_eq!(configuration.header("content-encoding"), Some("gzip"));
    // What is short, refused, or asked by nobody is not packed.
    for (path, headers) in [
        ("/v1/state?room=bookings", &[signed, packing][..]),
        ("/v1/state?room=money", &[signed, packing][..]),
        ("/openapi.json", &[packing][..]),
        ("/page.json", &[packing][..]),
        (path, &[packing][..]),
        (path, &[signed, ("accept-encoding", "br, gzip;q=0")][..]),
    ] {
        let answer = get(path, headers).await;
        assert_eq!(answer.header("content-encoding"), None, "{path} {headers:?}");
    }
    // The page's files are, for everybody, and are not sent again.
    let page = get("/", &[]).await;
    let script = page
        .text()
        .split('"')
        .find(|part| part.ends_with(".js"))
        .map(str::to_owned);
    // Where the page was not built there are none.
    if let Some(script) = script {
        let path = format!("/{}", script.trim_start_matches(['.', '/']));
        for _ in 0..2 {
            let (plain, packed) = (get(&path, &[]).await, get(&path, &[packing]).await);
            assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
            assert_eq!(unpacked(&packed.body), &*plain.body, "{path}");
            let tag = packed.header("etag").unwrap().to_owned();
            let same = get(&path, &[packing, ("if-none-match", &tag)]).await;
            assert_eq!(same.status, 304, "{path}");
        }
    }
}
