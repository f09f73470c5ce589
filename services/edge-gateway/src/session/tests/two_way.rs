//! What a session decides before anybody is asked: commands, events of its own, activity, notifications.

use super::*;

#[test]
fn commands_publishes_and_activity_are_decided_before_anybody_is_asked() {
    let issuer = Issuer::new();
    let long = "k".repeat(129);
    let rows = [
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "k" } }),
            vec!["command a.b 10000 ms"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "k", "timeoutMs": 5 } }),
            vec!["command a.b 5 ms"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "k", "timeoutMs": 3_600_000 } }),
            vec!["command a.b 30000 ms"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "" } }),
            vec!["count command bad_request", "refuse bad_request"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": long } }),
            vec!["count command bad_request", "refuse bad_request"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.c", "key": "k" } }),
            vec!["count command forbidden", "forbade command", "refuse forbidden"],
        ),
        (
            "user",
            json!({ "command": { "name": "a.b", "key": "k" } }),
            vec!["count command forbidden", "forbade command", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "desk", "type": "t", "data": 1 } }),
            vec!["publish desk all"],
        ),
        (
            "user",
            json!({ "publish": { "room": "desk", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "hall", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "user.u1", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "a b", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "desk", "type": "user.activity", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "user",
            json!({ "activity": { "kind": "page", "detail": "x" } }),
            vec!["activity hall staff"],
        ),
        (
            "staff",
            json!({ "presence": { "room": "hall" } }),
            vec!["presence hall"],
        ),
        (
            "staff",
            json!({ "subscribe": { "room": "hall", "presence": true } }),
            vec!["open hall", "watch hall"],
        ),
        (
            "user",
            json!({ "subscribe": { "room": "hall", "presence": true } }),
            vec!["open hall"],
        ),
        (
            "user",
            json!({ "presence": { "room": "hall" } }),
            vec!["forbade presence", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "presence": { "room": "desk" } }),
            vec!["forbade presence", "refuse forbidden"],
        ),
        (
            "user",
            json!({ "feed": { "limit": 5 } }),
            vec!["feed hall user.u1"],
        ),
        (
            "user",
            json!({ "mark": { "ids": ["a"], "as": "read" } }),
            vec!["feed hall user.u1"],
        ),
        (
            "user",
            json!({ "mark": { "ids": ["a"], "as": "unread" } }),
            vec!["count mark bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "feed": { "filter": { "colour": 1 } } }),
            vec!["count feed bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "feed": { "before": "garbage" } }),
            vec!["count feed bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "activity": { "kind": "", "detail": "x" } }),
            vec!["count activity bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "activity": { "kind": "page", "detail": "x".repeat(257) } }),
            vec!["count activity bad_request", "refuse bad_request"],
        ),
    ];
    for (role, mut message, expected) in rows {
        message["id"] = json!(7);
        let (mut session, _) = issuer.session(role, 3_600);
        assert_eq!(
            issuer.say(&mut session, NOW, &message),
            expected,
            "{role} {message:.120}"
        );
    }
    // More activity than is taken is dropped and counted; after a rest there is room again.
    let (mut session, _) = issuer.session("user", 3_600);
    let doing = json!({ "activity": { "kind": "page", "detail": "x" } });
    let taken = (0..8)
        .filter(|_| issuer.say(&mut session, NOW, &doing) == ["activity hall staff"])
        .count();
    assert_eq!(taken, 5);
    assert_eq!(
        issuer.say(&mut session, NOW, &doing),
        ["count activity rate", "met activity"]
    );
    let later = Now {
        millis: NOW.millis + 1_000,
        ..NOW
    };
    assert_eq!(issuer.say(&mut session, later, &doing), ["activity hall staff"]);
}
