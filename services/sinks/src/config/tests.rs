//! Files that say where and what, and files with mistakes.

use serde_json::json;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";

fn open(name: &str) -> Result<Vec<u8>, String> {
    match name {
        "vapid.pem" => Ok(include_bytes!("../../tests/vapid.pem").to_vec()),
        "pager.secret" => Ok(SECRET.into()),
        "empty" => Ok(Vec::new()),
        _ => Err("not there".to_owned()),
    }
}

fn read(text: &str) -> Result<Config, Vec<String>> {
    super::read::parse(text, "sinks.yaml", &open)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

const WHOLE: &str = r#"
push:
  key_file: vapid.pem
  contact: mailto:ops@desk.example
  hosts: [fcm.googleapis.com, "*.push.services.mozilla.com", "localhost:8443"]
  days: 7
webhooks:
  - name: pager
    url: https://pager.example/roomcast
    secret_file: pager.secret
    rooms: [notifications, "property.*"]
    types: [notification.alert]
    priorities: [critical, high]
  - { name: personal, url: "https://pager.example:8443/", secret_file: pager.secret, rooms: ["user.*"], tenant: acme }
private: [10.1.0.0/16]
give_up_seconds: 300
"#;

#[test]
fn a_file_says_where_and_what() {
    let config = read(WHOLE).unwrap();
    assert_eq!(
        (config.give_up, config.private.len()),
        (Duration::from_secs(300), 1)
    );
    let push = config.push.unwrap();
    assert_eq!(push.days, 7);
    let rows = [
        ("https://fcm.googleapis.com/x", true),
        ("https://FCM.googleapis.com/x", true),
        ("https://fcm.googleapis.com:8443/x", false),
        ("https://fcm.googleapis.com.evil.example/x", false),
        ("https://updates.push.services.mozilla.com/x", true),
        ("https://push.services.mozilla.com/x", false),
        ("https://evilpush.services.mozilla.com/x", false),
        ("https://localhost:8443/x", true),
        ("http://localhost:8443/x", false),
    ];
    for (url, may) in rows {
        assert_eq!(push.may(&Url::parse(url).unwrap()), may, "{url}");
    }
    let listed = |url: &str| push.listed(&Url::parse(url).unwrap());
    assert_eq!(listed("https://fcm.googleapis.com/x"), Some(0));
    assert_eq!(listed("https://updates.push.services.mozilla.com/x"), Some(1));
    assert_eq!(listed("https://fcm.googleapis.com.evil.example/x"), None);
    let any = PushConfig { hosts: None, ..push };
    for (url, may) in [
        ("https://anything.example/x", true),
        ("https://anything.example:22/x", false),
        ("http://localhost/x", false),
    ] {
        assert_eq!(any.may(&Url::parse(url).unwrap()), may, "{url}");
    }
    let notice = |kind: &str, room: &str, priority: &str| {
        let event = json!({ "id": "1", "source": "s", "type": kind, "room": room, "priority": priority, "statekey": "k" });
        Notice::read(event.to_string().as_bytes()).unwrap()
    };
    let [pager, personal] = &config.webhooks[..] else {
        unreachable!("two webhooks")
    };
    let (main, acme) = (Tenant::default(), Tenant::parse("acme").unwrap());
    let rows = [
        (
            pager,
            &main,
            notice("notification.alert", "notifications", "critical"),
            true,
        ),
        (
            pager,
            &main,
            notice("notification.alert", "property.42", "high"),
            true,
        ),
        (
            pager,
            &main,
            notice("notification.alert", "property", "high"),
            false,
        ),
        (
            pager,
            &main,
            notice("notification.alert", "property.42.door", "high"),
            false,
        ),
        (
            pager,
            &main,
            notice("notification.alert", "notifications", "medium"),
            false,
        ),
        (
            pager,
            &main,
            notice("notification.late", "notifications", "high"),
            false,
        ),
        (
            pager,
            &acme,
            notice("notification.alert", "notifications", "high"),
            false,
        ),
        (
            personal,
            &acme,
            notice("notification.late", "user.u=2F1", "low"),
            true,
        ),
        (
            personal,
            &main,
            notice("notification.late", "user.u1", "low"),
            false,
        ),
    ];
    for (webhook, tenant, notice, takes) in rows {
        assert_eq!(webhook.filter.takes(tenant, &notice), takes, "{notice:?}");
    }
}

#[test]
fn mistakes_are_all_named_with_their_places() {
    let rows: [(&str, &[&str]); 9] = [
        ("", &["sinks.yaml:1:1: expected the file as a map, found nothing"]),
        (
            "private: [10.1.0.0/16]",
            &["sinks.yaml:1:1: nothing is sent; the file needs `push` or `webhooks`"],
        ),
        (
            "push: { contact: me }",
            &[
                "sinks.yaml:1:7: `push` needs `key_file`",
                "sinks.yaml:1:18: expected mailto:… or https://…, whom push services write to, found \"me\"",
            ],
        ),
        (
            "push: { key_file: empty, contact: \"mailto:a@b\" }",
            &[
                "sinks.yaml:1:19: the file is no P-256 key in PEM (`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one)",
            ],
        ),
        (
            "push: { key_file: nowhere.pem, contact: \"mailto:a@b\", hosts: [], days: 0 }",
            &[
                "sinks.yaml:1:19: \"nowhere.pem\": not there",
                "sinks.yaml:1:62: expected a list of 1 to 64 entries",
                "sinks.yaml:1:72: expected a whole number from 1 to 90",
            ],
        ),
        (
            "webhook: []",
            &[
                "sinks.yaml:1:1: unknown key \"webhook\" in the file; did you mean \"webhooks\"?",
                "sinks.yaml:1:1: nothing is sent; the file needs `push` or `webhooks`",
            ],
        ),
        (
            "webhooks: [{ name: a.b, url: \"http://localhost/\", secret_file: vapid.pem, rooms: [\"a..b\"] }]",
            &[
                "sinks.yaml:1:20: expected a name of letters, digits, _ and -, found \"a.b\"",
                "sinks.yaml:1:30: expected an address that begins with https://, found \"http://localhost/\"",
                "sinks.yaml:1:64: the file is not one or two lines of whsec_ and base64 of 24 to 64 bytes (`echo whsec_$(openssl rand -base64 32)` makes one)",
                "sinks.yaml:1:83: expected a room, with * for one part of its name, found \"a..b\"",
            ],
        ),
        (
            "webhooks: [{ name: a, url: \"https://x/\", secret_file: pager.secret, rooms: [a], types: [booking], priorities: [loud], tenant: GW }]",
            &[
                "sinks.yaml:1:89: expected a type that begins with notification., found \"booking\"",
                "sinks.yaml:1:112: expected critical, high, medium or low, found \"loud\"",
                "sinks.yaml:1:127: expected a tenant, found \"GW\"",
            ],
        ),
        (
            "webhooks: [{ name: a, url: \"https://x/\", secret_file: pager.secret, rooms: [a] }]\nprivate: [10.0.0.1/8, all]\ngive_up_seconds: never",
            &[
                "sinks.yaml:2:11: expected a range like 10.1.0.0/16, found \"10.0.0.1/8\"",
                "sinks.yaml:2:23: expected a range like 10.1.0.0/16, found \"all\"",
                "sinks.yaml:3:18: expected a whole number from 1 to 86400",
            ],
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(read(text).err().unwrap_or_default(), expected, "{text}");
    }
    let twice = WHOLE.replace("name: personal", "name: pager");
    assert_eq!(read(&twice).unwrap_err().len(), 1);
}
