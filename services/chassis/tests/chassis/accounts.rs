//! The same calls from an account that owns nothing and imports what it may use.

use std::time::Duration;

use async_nats::{ConnectOptions, HeaderMap};
use roomcast_chassis::jetstream::{At, JetStream, LastMessages, Publisher, code};

use crate::jetstream::{outgoing, stream};
use crate::server::Server;

const ACCOUNTS: &str = r#"
accounts {
  CORE {
    jetstream: enabled
    users: [ { user: admin, password: a } ]
    exports: [
      { service: "t.>", accounts: [ AGG ], response_type: Singleton }
      { service: "$JS.API.INFO", accounts: [ AGG ], response_type: Singleton }
      { service: "$JS.API.STREAM.INFO.T", accounts: [ AGG ], response_type: Singleton }
      { service: "$JS.API.STREAM.MSG.GET.T", accounts: [ AGG ], response_type: Singleton }
      { service: "$JS.API.DIRECT.GET.>", accounts: [ AGG ], response_type: Stream }
    ]
  }
  AGG {
    users: [ { user: agg, password: b, permissions: { subscribe: [ "_INBOX_agg.>" ] } } ]
    imports: [
      { service: { account: CORE, subject: "t.>" } }
      { service: { account: CORE, subject: "$JS.API.INFO" }, to: "core.JS.API.INFO" }
      { service: { account: CORE, subject: "$JS.API.STREAM.INFO.T" }, to: "core.JS.API.STREAM.INFO.T" }
      { service: { account: CORE, subject: "$JS.API.STREAM.MSG.GET.T" }, to: "core.JS.API.STREAM.MSG.GET.T" }
      { service: { account: CORE, subject: "$JS.API.DIRECT.GET.>" }, to: "core.JS.API.DIRECT.GET.>" }
    ]
  }
}
"#;

#[tokio::test]
async fn reads_publishes_and_atomic_batches_work_through_imports() {
    let Some(server) = Server::start(ACCOUNTS) else {
        return;
    };
    let login = |user: &str, password: &str| {
        ConnectOptions::with_user_and_password(user.into(), password.into())
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .connect(server.url())
    };
    let owner = JetStream::new(login("admin", "a").await.unwrap(), "$JS.API");
    owner.create_stream(&stream("T", "t.>")).await.unwrap();
    let client = login("agg", "b").await.unwrap();
    let jetstream = JetStream::new(client.clone(), "core.JS.API");
    let compare = |expected: &str| {
        outgoing(
            "t.head",
            &[("Nats-Expected-Last-Subject-Sequence", expected)],
            "head",
        )
    };
    let batch = |expected: &str| {
        vec![
            outgoing("t.1", &[], "1"),
            outgoing("t.2", &[], "2"),
            compare(expected),
        ]
    };
    let ack = jetstream.publish_batch(batch("0")).await.unwrap();
    assert_eq!((ack.seq, ack.batch_count), (3, 3));
    let zombie = jetstream.publish_batch(batch("0")).await.unwrap_err();
    assert_eq!(zombie.err_code(), Some(code::WRONG_LAST_SEQUENCE), "{zombie}");
    let ack = jetstream
        .publish("t.3", HeaderMap::new(), "3".into(), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(ack.seq, 4);
    let publisher = Publisher::start(&client, 8, None).await.unwrap();
    assert_eq!(
        publisher
            .publish("t.4", HeaderMap::new(), "4".into())
            .await
            .unwrap()
            .seq,
        5
    );
    assert_eq!(
        jetstream.stream_info("T").await.unwrap().unwrap().state.last_seq,
        5
    );
    assert_eq!(
        jetstream
            .message("T", At::Last("t.head"))
            .await
            .unwrap()
            .unwrap()
            .sequence,
        3
    );
    assert_eq!(
        jetstream.direct_last("T", "t.4").await.unwrap().unwrap().payload,
        "4"
    );
    let read = jetstream.direct_batch("T", 2, 3, None).await.unwrap();
    assert_eq!((read.messages.len(), read.pending), (3, 1));
    match jetstream.multi_last("T", &["t.*"], None).await.unwrap() {
        LastMessages::Messages { messages, up_to } => assert_eq!((messages.len(), up_to), (5, Some(5))),
        LastMessages::TooMany => panic!("five are not too many"),
    }
    // What is not imported answers at once, and is not taken for an empty result.
    assert!(jetstream.create_stream(&stream("U", "u.>")).await.is_err());
    assert!(jetstream.stream_info("OTHER").await.is_err());
}
