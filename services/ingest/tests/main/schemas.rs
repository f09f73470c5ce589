//! Events against schemas: what is refused over each door, what only warns, and what a change of the folder does.

use std::path::Path;
use std::time::Duration;

use roomcast_harness::{eventually, nats::Nats};
use serde_json::{Value, json};

use crate::fixture::{BATCH, Ingest, JSON, POLICY, event};

const WITHIN: Duration = Duration::from_secs(20);

/// A schema of `booking:new`: `n` must be of this type.
fn schema(kind: &str, more: &str) -> String {
    format!(
        r#"{{"x-roomcast-type":"booking:new",{more}"type":"object","required":["n"],"properties":{{"n":{{"type":"{kind}"}}}}}}"#
    )
}

fn write(folder: &Path, name: &str, text: &str) {
    // As a whole, as a careful operator does.
    let next = folder.join(format!("{name}.next"));
    std::fs::write(&next, text).unwrap();
    std::fs::rename(next, folder.join(name)).unwrap();
}

/// An ingest with one schema of version 1.
async fn start(text: &str) -> Option<(Ingest, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "v1.json", text);
    let path = folder.path().display().to_string();
    let ingest = Ingest::start_with(POLICY, &[("ROOMCAST_SCHEMAS_DIR", &path)]).await?;
    Some((ingest, folder))
}

#[tokio::test]
async fn what_breaks_its_schema_is_refused_over_each_door_and_kept() {
    let Some((ingest, _folder)) = start(&schema("string", "")).await else {
        return;
    };
    assert_eq!(ingest.publish(&event("good")).await["status"], "stored");

    let mut bad = event("bad");
    bad["data"]["n"] = json!(7);
    let answer = ingest.post("desk", JSON, bad.to_string()).await;
    assert_eq!(answer.status, 422);
    let problem = answer.json();
    assert_eq!(
        (&problem["code"], &problem["pointer"]),
        (&json!("schema"), &json!("/data/n")),
        "{problem}"
    );
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("version 1 of the schema of booking:new"),
        "{problem}"
    );

    let letter = ingest.dead_letter("schema").await.unwrap();
    assert_eq!(letter.payload, bad.to_string());

    // Of a batch the others are stored.
    let batch = json!([event("one"), bad, event("two")]);
    let answer = ingest.post("desk", BATCH, batch.to_string()).await.json();
    assert_eq!(
        (&answer["stored"], &answer["refused"]),
        (&json!(2), &json!(1)),
        "{answer}"
    );
    assert_eq!(answer["results"][1]["pointer"], "/data/n");

    // The same over NATS.
    let nats = ingest.nats.connect("publisher").await;
    let reply = nats
        .request(
            "in.bookings.staff",
            json!({"type":"booking:new","data":{}}).to_string().into(),
        )
        .await
        .unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["code"], "schema", "{reply}");
    assert!(
        reply["message"].as_str().unwrap().contains("at /data: "),
        "{reply}"
    );
    assert!(ingest.metric("roomcast_ingest_refused_total{code=\"schema\"}") >= 3.0);

    // Who may not publish learns nothing of it.
    let answer = ingest.post("user", JSON, bad.to_string()).await;
    assert_eq!(answer.status, 403, "{:?}", answer.json());
}

#[tokio::test]
async fn a_change_counts_at_once_and_a_broken_one_never() {
    let Some((ingest, folder)) = start(&schema("string", "\"$id\":\"urn:b:1\",")).await else {
        return;
    };
    let (ingest, folder) = (&ingest, folder.path());
    let status = |data: Value, dataschema: Option<&'static str>| async move {
        let mut one = json!({ "type": "booking:new", "room": "bookings", "data": data });
        if let Some(name) = dataschema {
            one["dataschema"] = json!(name);
        }
        ingest.post("desk", JSON, one.to_string()).await.status
    };
    assert_eq!(status(json!({ "n": 7 }), None).await, 422);

    // Another version beside the first.
    write(
        folder,
        "v2.json",
        &schema("integer", "\"x-roomcast-version\":2,\"$id\":\"urn:b:2\","),
    );
    eventually("the second version is in force", WITHIN, || async {
        status(json!({ "n": 7 }), None).await == 200
    })
    .await;
    assert_eq!(status(json!({ "n": "a" }), None).await, 200);
    assert_eq!(status(json!({ "n": 7 }), Some("urn:b:1")).await, 422);
    assert_eq!(status(json!({ "n": 7 }), Some("urn:b:2")).await, 200);
    assert_eq!(status(json!({ "n": 7 }), Some("urn:b:3")).await, 422);
    assert_eq!(ingest.metric("roomcast_ingest_schemas"), 2.0);

    // A mistake in one file: all that was in force stays.
    write(folder, "v2.json", "{");
    eventually("the mistake is noticed", WITHIN, || async {
        ingest.metric("roomcast_ingest_schemas_broken") == 1.0
    })
    .await;
    assert_eq!(status(json!({ "n": 7 }), Some("urn:b:2")).await, 200);
    assert_eq!(status(json!({ "n": true }), None).await, 422);

    // Mended, and milder: what breaks it is taken and counted.
    for (name, more) in [
        ("v1.json", "\"x-roomcast-mode\":\"warn\","),
        (
            "v2.json",
            "\"x-roomcast-mode\":\"warn\",\"x-roomcast-version\":2,",
        ),
    ] {
        write(folder, name, &schema("integer", more));
    }
    eventually("the milder ones are in force", WITHIN, || async {
        status(json!({ "n": true }), None).await == 200
    })
    .await;
    assert_eq!(ingest.metric("roomcast_ingest_schemas_broken"), 0.0);
    assert!(ingest.metric("roomcast_ingest_schema_warnings_total") >= 1.0);

    // No folder any more: a mistake, not freedom.
    std::fs::remove_dir_all(folder).unwrap();
    eventually("it is noticed", WITHIN, || async {
        ingest.metric("roomcast_ingest_schemas_broken") == 1.0
    })
    .await;
    assert_eq!(ingest.metric("roomcast_ingest_schemas"), 2.0);
}

#[tokio::test]
async fn a_broken_schema_means_no_start() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let dir = crate::start::files(POLICY);
    let folder = dir.path().join("schemas");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("a.json"),
        "{\n \"x-roomcast-type\": \"t\",\n \"tpye\": \"object\"}",
    )
    .unwrap();
    let path = folder.display().to_string();
    for arguments in [&["--check-config"][..], &[]] {
        let (code, said) = crate::start::run(
            dir.path(),
            &nats.url(),
            &[("ROOMCAST_SCHEMAS_DIR", &path)],
            arguments,
        );
        assert_eq!(code, 65, "{said}");
        assert!(
            said.contains("a.json:3:10: unknown word \"tpye\"") && said.contains("did you mean \"type\""),
            "{said}"
        );
    }
}
