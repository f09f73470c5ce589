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
