//! Rights that change while a session is open.

use super::*;

#[test]
fn a_change_of_rights_closes_opens_and_tells() {
    let issuer = Issuer::new();
    let gate_policy = issuer.gate.rights().now().policy.clone();
    #[track_caller]
    fn check(session: &mut Session, now: &InForce, verdict: Verdict, expected: &[&str]) {
        let mut wishes = Vec::new();
        assert_eq!(session.rights_changed(now, NOW, &mut wishes), verdict);
        assert_eq!(wishes.iter().map(short).collect::<Vec<_>>(), expected);
        assert_eq!(
            session.rights_generation() == now.generation,
            verdict != Verdict::Revoked
        );
    }
    let (mut session, _) = issuer.session("user", 60);
    opened(&mut session, "hall", false);
    opened(&mut session, "user.u1", false);
    let at = |generation, entries: &[(&str, &str)]| InForce {
        policy: gate_policy.clone(),
        ..in_force(POLICY, entries, generation, None)
    };
    // Somebody else's, or nothing the policy knows.
    let others = [("user.main.u2", "{}"), ("grant.main.u1.unknown", "{}")];
    check(&mut session, &at(2, &others), Verdict::Same, &[]);
    let granted = [("grant.main.u1.staff", "{}")];
    check(
        &mut session,
        &at(3, &granted),
        Verdict::Changed,
        &["tell roles", "exchange hall,user.u1"],
    );
    opened(&mut session, "desk", true);
    check(
        &mut session,
        &at(4, &[]),
        Verdict::Changed,
        &[
            "tell roles",
            "evict desk",
            "tell unsubscribed",
            "exchange hall,user.u1",
        ],
    );
    session.rooms.retain(|open| open.room.as_str() != "desk");
    let other = POLICY.replace("hall", "lobby").replace("desk", "hall");
    check(
        &mut session,
        &in_force(&other, &[], 5, Some(&gate_policy)),
        Verdict::Changed,
        &[
            "evict hall",
            "tell unsubscribed",
            "exchange user.u1",
            "open lobby",
        ],
    );
    let revoked = [("user.main.u1", "{}")];
    check(&mut session, &at(6, &revoked), Verdict::Revoked, &["end 4501"]);
}

#[test]
fn a_revoked_token_opens_nothing_whichever_way_it_comes() {
    let issuer = Issuer::new();
    let token = issuer.token("u1", "staff", 60);
    let admitted = issuer.gate.admit(&token, NOW.unix_secs()).unwrap();
    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let revoked = in_force(POLICY, &[("user.main.u1", "{}")], 9, Some(&policy));
    assert!(admitted.clone().decide_again(&revoked, NOW.unix_secs()).is_err());
    let refused = NotAdmitted::from(revoked.decide(&admitted.principal, NOW.unix_secs()).unwrap_err());
    // The words are those for a token that never was one.
    assert_eq!(crate::gate::refusal(refused), crate::gate::no_token());
    assert_eq!(refused.close(), Close::Revoked);
    assert_eq!(refused.reason(), "revoked_user");
}

/// Behind rooms that are being opened anything may wait for seconds.
#[test]
fn what_was_asked_under_other_rights_is_not_carried_out() {
    let issuer = Issuer::new();
    let policy = issuer.gate.rights().now().policy.clone();
    let at = |generation, entries: &[(&str, &str)]| InForce {
        policy: policy.clone(),
        ..in_force(POLICY, entries, generation, None)
    };
    let (mut session, _) = issuer.session("user", 60);
    let mut rest = Vec::new();
    let granted = at(2, &[("grant.main.u1.staff", "{}")]);
    session.rights_changed(&granted, NOW, &mut rest);
    let mut wishes = Vec::new();
    for message in [
        json!({ "id": 1, "command": { "name": "a.b", "key": "k" } }),
        json!({ "id": 2, "publish": { "room": "desk", "type": "t", "data": 1 } }),
        json!({ "id": 3, "activity": { "kind": "views" } }),
        json!({ "id": 4, "feed": {} }),
        json!({ "id": 5, "mark": { "as": "read", "ids": ["n1"] } }),
        json!({ "id": 6, "preferences": {} }),
    ] {
        let frame = ClientFrame::from_json(&message.to_string());
        session.message(frame, &issuer.gate, NOW, &mut wishes);
    }
    let asked: Vec<&Ask> = wishes
        .iter()
        .filter_map(|wish| match wish {
            Wish::Ask(ask) => Some(&**ask),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 6, "{wishes:?}");
    // Somebody else's right.
    let others = [("grant.main.u1.staff", "{}"), ("grant.main.u2.staff", "{}")];
    session.rights_changed(&at(3, &others), NOW, &mut rest);
    assert!(asked.iter().all(|ask| session.may_still_ask(ask)));
    session.rights_changed(&at(4, &[]), NOW, &mut rest);
    assert!(!asked.iter().any(|ask| session.may_still_ask(ask)));
}

#[test]
fn a_token_that_only_ends_later_changes_nothing_for_what_waits() {
    let issuer = Issuer::new();
    let (mut session, _) = issuer.session("staff", 60);
    let mut wishes = Vec::new();
    let ask = ClientFrame::from_json(&json!({ "id": 1, "feed": {} }).to_string());
    session.message(ask, &issuer.gate, NOW, &mut wishes);
    let Some(Wish::Ask(ask)) = wishes.pop() else {
        panic!("an ask");
    };
    for (role, may) in [("staff", true), ("user", false)] {
        let token = issuer.token("u1", role, 600);
        let refresh = ClientFrame::from_json(&json!({ "id": 2, "refresh": { "token": token } }).to_string());
        session.message(refresh, &issuer.gate, NOW, &mut wishes);
        assert_eq!(session.may_still_ask(&ask), may, "{role}");
    }
}

/// Between its request and its shard a stream may wait for others who come.
#[test]
fn a_stream_has_the_rights_of_the_moment_it_begins() {
    let issuer = Issuer::new();
    let policy = issuer.gate.rights().now().policy.clone();
    let admitted = |seconds| {
        let token = issuer.token("u1", "user", seconds);
        issuer.gate.admit(&token, NOW.unix_secs()).unwrap()
    };
    let at = |entries: &[(&str, &str)]| {
        issuer.under(InForce {
            policy: policy.clone(),
            ..in_force(POLICY, entries, 9, None)
        })
    };
    let request = StreamRequest {
        rooms: vec![("desk".to_owned(), None)],
        ..StreamRequest::default()
    };
    let later = Now {
        unix_millis: NOW.unix_millis + 100_000,
        ..NOW
    };
    let nobody = Handshake::default();
    assert_eq!(
        nobody.stream(&request, &issuer.gate, LIMITS, NOW).unwrap_err(),
        Close::BadToken
    );
    for (entries, now, expected) in [
        (&[][..], NOW, Ok(false)),
        (&[("grant.main.u1.staff", "{}")], NOW, Ok(true)),
        (&[("user.main.u1", "{}")], NOW, Err(Close::Revoked)),
        (&[], later, Err(Close::Expired)),
    ] {
        let handshake = Handshake {
            admitted: Some(admitted(60)),
        };
        let begun = handshake.stream(&request, &at(entries), LIMITS, now);
        let has_desk = begun.map(|(session, opening)| {
            assert_eq!(session.rights_generation(), 9);
            opening
                .rooms
                .iter()
                .any(|asked| asked.name == "desk" && asked.permit.is_ok())
        });
        assert_eq!(has_desk, expected, "{entries:?}");
    }
}

/// What a change of rights opens waits behind the rooms of the connection, which may be the same.
#[test]
fn a_room_that_opened_meanwhile_is_not_opened_again() {
    let issuer = Issuer::new();
    let (mut session, connected) = issuer.session("user", 60);
    let other = POLICY.replace(
        "auto_join: true }",
        "auto_join: true, redact: [{ unless: work, remove: [/a] }] }",
    );
    let mut wishes = Vec::new();
    // Its rooms are still being read.
    session.rights_changed(&in_force(&other, &[], 2, None), NOW, &mut wishes);
    let gained = wishes.into_iter().find_map(|wish| match wish {
        Wish::Open(opening) => Some(opening),
        _ => None,
    });
    let mut gained = gained.expect("rooms that are not open yet");
    assert_eq!(names(&gained), names(&connected));
    opened(&mut session, "hall", false);
    session.decide_opening(&mut gained);
    assert_eq!(names(&gained), ["user.u1"]);
}

/// Rooms and permits of a client, as the shard keeps them.
fn carry_out(open: &mut BTreeMap<String, Subscribe>, wishes: Vec<Wish>) {
    for wish in wishes {
        match wish {
            Wish::Evict(room) => drop(open.remove(room.as_str())),
            Wish::Exchange(permits) => {
                for permit in permits {
                    let held = open.get_mut(permit.room().as_str()).expect("open");
                    *held = (*permit).clone();
                }
            }
            Wish::Open(opening) => {
                for asked in opening.rooms {
                    if let Ok(permit) = asked.permit {
                        open.insert(asked.name, (*permit).clone());
                    }
                }
            }
            _ => {}
        }
    }
}

/// From any policy to any other one: what is open afterwards is what a new connection that asks for the same would have open, under
/// the same permits.
#[test]
fn after_a_change_everything_is_as_if_the_client_had_just_come() {
    let issuer = Issuer::new();
    let hidden = "subscribe: see, auto_join: true, redact: [{ unless: work, remove: [/price] }] }";
    let policies = [
        POLICY.to_owned(),
        POLICY.replace("subscribe: see, auto_join: true }", hidden),
        POLICY.replace("inherits: [user], permissions: [work]", "permissions: [work]"),
        POLICY.replace("subscribe: work }", "subscribe: see, auto_join: true }"),
        POLICY.replace(
            "user:  { permissions: [see] }",
            "user:  { permissions: [see, work] }",
        ),
        POLICY.replace("hall", "lobby"),
    ];
    let entries: [&[(&str, &str)]; 4] = [
        &[],
        &[("grant.main.u1.staff", "{}")],
        &[("grant.main.u1.user", "{}"), ("user.main.u2", "{}")],
        &[("user.main.u1", "{}")],
    ];
    let names = ["hall", "desk", "lobby", "user.u1"];
    let mut changes = 0;
    for role in ["user", "staff", "nobody"] {
        let token = issuer.token("u1", role, 60);
        let fresh = issuer.gate.admit(&token, NOW.unix_secs()).unwrap();
        for (old, old_entries) in policies
            .iter()
            .flat_map(|old| entries.map(|entries| (old, entries)))
        {
            let before = in_force(old, old_entries, 2, None);
            let mut admitted = fresh.clone();
            if admitted.decide_again(&before, NOW.unix_secs()).is_err() {
                continue;
            }
            for (new, new_entries) in policies
                .iter()
                .flat_map(|new| entries.map(|entries| (new, entries)))
            {
                let handshake = Handshake {
                    admitted: Some(admitted.clone()),
                };
                let rooms: Vec<Value> = names.iter().map(|room| json!({ "room": room })).collect();
                let connect = json!({ "id": 1, "connect": { "client": "t", "rooms": rooms } });
                let limits = Limits {
                    subscriptions_max: 9,
                    ..LIMITS
                };
                let frame = ClientFrame::from_json(&connect.to_string());
                let gate = issuer.under(before.clone());
                let (mut session, opening) = handshake.accept(frame, &gate, limits, NOW).unwrap();
                let mut open = BTreeMap::new();
                carry_out(&mut open, vec![Wish::Open(opening)]);
                for room in open.keys() {
                    opened(&mut session, room, true);
                }
                let after = in_force(new, new_entries, 3, Some(&before.policy));
                let mut wishes = Vec::new();
                let verdict = session.rights_changed(&after, NOW, &mut wishes);
                let afresh = after.decide(&admitted.principal, NOW.unix_secs());
                changes += 1;
                let Ok(afresh) = afresh else {
                    assert_eq!(verdict, Verdict::Revoked);
                    continue;
                };
                carry_out(&mut open, wishes);
                for name in names {
                    let room = Room::parse(name).unwrap();
                    let expected = afresh.rights.subscribe(&room).ok();
                    let joins = afresh.rights.auto_join().contains(&room) || room.is_personal();
                    match open.get(name) {
                        Some(held) => assert_eq!(Some(held), expected.as_ref(), "{role} {old} {new} {name}"),
                        // Not asked for again by itself, unless the policy joins it.
                        None => assert!(!(joins && expected.is_some()), "{role} {old} {new} {name}"),
                    }
                }
            }
        }
    }
    assert!(changes > 1_000, "{changes}");
}
