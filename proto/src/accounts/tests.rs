use super::*;

fn login(name: &str) -> User {
    User {
        name: name.to_owned(),
        password: format!("{name}-password"),
    }
}

fn config() -> ServerConfig {
    ServerConfig {
        server_name: "n1".into(),
        listen: "127.0.0.1:4222".into(),
        monitor: None,
        store_dir: "store".into(),
        max_file_bytes: 1 << 30,
        admin: login("admin"),
        ingest: login("ingest"),
        aggregator: login("agg"),
        gateway: login("gw"),
        reader: Some(login("reader")),
        system: login("sys"),
        tenants: vec![TenantAccount {
            tenant: Tenant::default(),
            publishers: vec![
                Publisher {
                    user: login("publisher"),
                    rooms: None,
                },
                Publisher {
                    user: login("erp"),
                    rooms: Some(vec![Room::parse("bookings").unwrap()]),
                },
            ],
            backends: vec![
                Backend {
                    user: login("backend"),
                    commands: None,
                },
                Backend {
                    user: login("fleet"),
                    commands: Some(vec!["delivery/x.update".into()]),
                },
            ],
        }],
        cluster: None,
        security: Security::default(),
    }
}

/// The block of one user, from its name to the end of its permissions.
fn block<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text.find(&format!("user: \"{name}\"")).unwrap();
    let end = text[start..].find("} }\n").unwrap();
    &text[start..start + end]
}

#[test]
fn nobody_but_ingest_writes_events_and_nobody_writes_live() {
    let text = config().render();
    for name in ["agg", "gw", "reader", "publisher", "erp"] {
        assert!(!block(&text, name).contains("\"evt.>\""), "{name}");
        let publishes = block(&text, name).split("subscribe:").next().unwrap();
        assert!(!publishes.contains("live.>"), "{name}");
        assert!(!publishes.contains("$JS"), "{name}");
    }
    assert!(block(&text, "ingest").contains("\"evt.>\""));
    assert!(block(&text, "erp").contains("\"in.bookings.*\", \"in.bookings.>\""));
    assert!(!block(&text, "erp").contains("\"in.>\""));
    assert!(block(&text, "erp").contains("\"inq.erp.>\""));
    let purges: Vec<&str> = text.matches("STREAM.PURGE.").collect();
    assert_eq!(purges.len(), 2, "ingest empties queues, nobody anything else");
    assert!(block(&text, "ingest").contains("\"$JS.API.STREAM.PURGE.INQ_main_erp\""));
    assert!(text.contains("sync_interval: always"));
}

#[test]
fn backends_hear_their_commands_as_one_of_a_queue_and_publish_only_answers() {
    let text = config().render();
    assert!(block(&text, "backend").contains("allow: [ \"cmd.> backends\", \"_INBOX_backend.>\" ]"));
    let fleet = block(&text, "fleet");
    assert!(fleet.contains("\"cmd.delivery=2Fx.update backends\", \"cmd.delivery=2Fx.update.> backends\""));
    for name in ["backend", "fleet"] {
        let block = block(&text, name);
        assert!(block.contains("publish:   { deny: [ \">\" ] }"), "{block}");
        assert!(block.contains("allow_responses: { max: 1"), "{block}");
    }
}

#[test]
fn every_inbox_is_the_users_own() {
    let text = config().render();
    for name in ["ingest", "agg", "gw", "reader", "publisher", "erp"] {
        assert!(block(&text, name).contains(&format!("_INBOX_{name}.>")), "{name}");
        assert!(!block(&text, name).contains("\"_INBOX.>\""), "{name}");
    }
}

#[test]
fn a_key_replaces_the_password_and_nothing_else() {
    let (with, without) = (
        ServerConfig {
            security: Security {
                nkeys: [("erp".to_owned(), "UKEY".to_owned())].into(),
                ..Security::default()
            },
            ..config()
        },
        config(),
    );
    let expected = without
        .render()
        .replace("user: \"erp\", password: \"erp-password\"", "nkey: \"UKEY\"")
        // The policy names it by its key, and so does its queue.
        .replace("inq.erp.>", "inq.UKEY.>")
        .replace("INQ_main_erp", "INQ_main_UKEY");
    assert_eq!(with.render(), expected);
    assert_ne!(with.render(), without.render());
}

#[test]
fn tls_is_on_every_listener_that_others_reach() {
    let blocks = |verify: bool, cluster: bool| {
        let mut config = config();
        config.security.tls = Some(Tls {
            cert: "c.pem".into(),
            key: "k.pem".into(),
            ca: verify.then(|| "ca.pem".into()),
            verify,
        });
        config.cluster = cluster.then(|| Cluster {
            listen: "127.0.0.1:6222".into(),
            routes: Vec::new(),
            user: login("route"),
        });
        let text = config.render();
        let count = |what: &str| text.matches(what).count();
        (
            count("tls {"),
            count("verify: true"),
            count("ca_file: \"ca.pem\""),
        )
    };
    assert_eq!(blocks(false, false), (1, 0, 0));
    assert_eq!(blocks(true, false), (1, 1, 1));
    // Nodes verify each other whatever is said.
    assert_eq!(blocks(true, true), (2, 1, 2));
    assert!(!config().render().contains("tls"));
}

#[test]
fn passwords_are_not_shown_by_debug() {
    assert!(!format!("{:?}", config()).contains("-password"));
}
