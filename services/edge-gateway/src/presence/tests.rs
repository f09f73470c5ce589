use proptest::prelude::*;

use super::*;

fn place(name: &str) -> Place {
    (Tenant::default(), Room::parse(name).unwrap())
}

fn user(name: &str) -> Arc<str> {
    name.into()
}

fn roles() -> Arc<[String]> {
    vec!["staff".to_owned()].into()
}

fn seen(presence: &Presence, room: &str) -> Vec<(String, u32, i64)> {
    let (users, _) = presence.room(&place(room), usize::MAX, |_| true);
    let plain = |present: Present| {
        (
            present.user.to_string(),
            present.connections,
            present.since_millis,
        )
    };
    users.into_iter().map(plain).collect()
}

/// Delivers everything both sides say, in order, until neither has more to say at this instant.
fn settle(gateways: &mut [Presence], now: u64) {
    for _ in 0..4 {
        for from in 0..gateways.len() {
            for said in gateways[from].tick(now) {
                for (to, other) in gateways.iter_mut().enumerate() {
                    if to != from {
                        other.hear(said.clone(), now);
                    }
                }
            }
        }
    }
}

#[test]
fn a_user_is_one_however_many_tabs_and_gateways() {
    let mut gateways = [Presence::new("a".into()), Presence::new("b".into())];
    let (lobby, ada) = (place("lobby"), user("ada"));
    gateways[0].enter(&lobby, &ada, &roles(), 100);
    settle(&mut gateways, 1_000);
    gateways[1].enter(&lobby, &ada, &roles(), 200);
    gateways[1].enter(&lobby, &ada, &roles(), 300);
    settle(&mut gateways, 1_100);
    for gateway in &gateways {
        assert_eq!(seen(gateway, "lobby"), [("ada".to_owned(), 3, 100)]);
    }
    // Away for less than the grace: the same user since the same time.
    gateways[0].leave(&lobby, &ada, 1_200);
    gateways[1].leave(&lobby, &ada, 1_200);
    gateways[1].leave(&lobby, &ada, 1_200);
    settle(&mut gateways, 1_300);
    assert_eq!(seen(&gateways[0], "lobby"), [("ada".to_owned(), 0, 100)]);
    settle(&mut gateways, 1_200 + GRACE_MILLIS - 1);
    gateways[1].enter(&lobby, &ada, &roles(), 9_000);
    settle(&mut gateways, 1_200 + GRACE_MILLIS);
    for gateway in &gateways {
        assert_eq!(seen(gateway, "lobby"), [("ada".to_owned(), 1, 100)]);
    }
    gateways[1].leave(&lobby, &ada, 20_000);
    for second in 20..31 {
        settle(&mut gateways, second * 1_000);
    }
    for gateway in &gateways {
        assert_eq!(seen(gateway, "lobby"), []);
        assert!(gateway.rooms.is_empty());
    }
}

#[test]
fn who_polls_is_there_as_one_connection_until_a_while_after_the_last_poll() {
    let mut presence = Presence::new("a".into());
    let (lobby, ada) = (place("lobby"), user("ada"));
    let between = polls::BETWEEN_MILLIS;
    // Two tabs: one held for 25 s, one answered at once, again and again.
    presence.polled(&lobby, &ada, &roles(), 100, (1_000, 25_000));
    for now in [1_500, 7_500, 13_500] {
        presence.tick(now);
        presence.polled(&lobby, &ada, &roles(), 200, (now, 0));
        assert_eq!(seen(&presence, "lobby"), [("ada".to_owned(), 1, 100)]);
    }
    // A socket beside it counts by itself.
    presence.enter(&lobby, &ada, &roles(), 300);
    assert_eq!(seen(&presence, "lobby"), [("ada".to_owned(), 2, 100)]);
    presence.leave(&lobby, &ada, 20_000);
    presence.take_changed();
    presence.tick(26_000 + between - 1);
    assert_eq!(seen(&presence, "lobby"), [("ada".to_owned(), 1, 100)]);
    assert!(
        presence.take_changed().is_empty(),
        "a poll changes nothing that is seen"
    );
    presence.tick(26_000 + between);
    assert_eq!(seen(&presence, "lobby"), [("ada".to_owned(), 0, 100)], "away");
    // Back within the grace: the same user since the same time.
    presence.polled(&lobby, &ada, &roles(), 400, (40_000, 0));
    presence.tick(40_000 + between - 1);
    assert_eq!(seen(&presence, "lobby"), [("ada".to_owned(), 1, 100)]);
    presence.tick(40_000 + between);
    presence.tick(40_000 + between + GRACE_MILLIS);
    assert!(presence.rooms.is_empty() && presence.polling() == 0);
    // Who is not counted in is not held either.
    for n in 0..ROOM_USERS_MAX + 5 {
        presence.polled(&lobby, &user(&n.to_string()), &roles(), 0, (90_000, 0));
    }
    assert_eq!((presence.polling(), presence.take_cut()), (ROOM_USERS_MAX, 5));
}

#[test]
fn a_gateway_that_falls_silent_takes_its_users_with_it_after_the_grace() {
    let mut gateways = [Presence::new("a".into()), Presence::new("b".into())];
    let (lobby, ada) = (place("lobby"), user("ada"));
    gateways[0].enter(&lobby, &ada, &roles(), 100);
    settle(&mut gateways, 1_000);
    let b = &mut gateways[1];
    b.tick(1_000 + LOST_MILLIS - 1);
    assert_eq!(
        seen(b, "lobby"),
        [("ada".to_owned(), 1, 100)],
        "a beat may be late"
    );
    b.take_changed();
    b.tick(1_000 + LOST_MILLIS);
    assert_eq!(seen(b, "lobby"), [("ada".to_owned(), 0, 100)], "away");
    assert!(b.take_changed().contains(&lobby));
    // She comes to this gateway: she never was gone.
    b.enter(&lobby, &ada, &roles(), 5_000);
    b.tick(1_000 + LOST_MILLIS + GRACE_MILLIS);
    assert_eq!(seen(b, "lobby"), [("ada".to_owned(), 1, 100)]);
    assert_eq!(b.gateways(), 0);
}

#[test]
fn rooms_and_gateways_are_bounded() {
    let mut presence = Presence::new("a".into());
    let lobby = place("lobby");
    for n in 0..ROOM_USERS_MAX + 5 {
        let counted = presence.enter(&lobby, &user(&n.to_string()), &roles(), n as i64);
        assert_eq!(counted, n < ROOM_USERS_MAX, "{n}");
    }
    assert_eq!(presence.take_cut(), 5);
    let (users, total) = presence.room(&lobby, 500, |_| true);
    assert_eq!((users.len(), total), (500, ROOM_USERS_MAX));
    assert_eq!(&*users[0].user, "0", "those longest there are named");
    // Rooms of others are as large.
    let here = |n: usize| Here {
        tenant: lobby.0.clone(),
        room: lobby.1.clone(),
        user: user(&n.to_string()),
        is: Some(Is {
            roles: roles(),
            connections: 1,
            since_millis: 1,
        }),
    };
    for n in 0..ROOM_USERS_MAX + 7 {
        let changes = What::Changes(vec![here(n)]);
        let version = n as u64 + 1;
        if n == 0 {
            presence.hear(
                Said {
                    gateway: "b".into(),
                    version: 0,
                    what: What::Beat,
                },
                10,
            );
        }
        presence.hear(
            Said {
                gateway: "b".into(),
                version,
                what: changes,
            },
            10,
        );
    }
    assert_eq!(presence.take_cut(), 7);
    assert_eq!(presence.room(&lobby, 0, |_| true).1, ROOM_USERS_MAX);
    assert_eq!(presence.size(&lobby), 2 * ROOM_USERS_MAX);
    for n in 0..2 * GATEWAYS_MAX {
        let said = Said {
            gateway: format!("g{n}"),
            version: 0,
            what: What::Beat,
        };
        presence.hear(said, 10);
    }
    assert_eq!(presence.gateways(), GATEWAYS_MAX);
    // Parts that cannot be are not collected.
    let all = |part, of| Said {
        gateway: "g1".into(),
        version: 9,
        what: What::All {
            part,
            of,
            users: Vec::new(),
        },
    };
    presence.hear(all(5, 5), 10);
    presence.hear(all(0, u32::MAX), 10);
    assert!(!presence.others["g1"].collects());
}

#[test]
fn whoever_is_cut_off_knows_it() {
    let mut gateways = [Presence::new("a".into()), Presence::new("b".into())];
    let lobby = place("lobby");
    gateways[0].enter(&lobby, &user("ada"), &roles(), 100);
    let mut now = 1_000;
    let mut pass = |gateways: &mut [Presence], millis: u64, connected: bool| {
        for _ in 0..millis / 100 {
            now += 100;
            for from in 0..2 {
                for said in gateways[from].tick(now) {
                    // What `a` says and hears is lost while it is cut off.
                    if connected || from == 1 {
                        gateways[1].hear(said.clone(), now);
                    }
                    if connected {
                        gateways[0].hear(said, now);
                    }
                }
            }
        }
        (gateways[0].is_current(now), gateways[1].is_current(now))
    };
    assert_eq!(
        pass(&mut gateways, 1_000, true),
        (false, false),
        "others may not have spoken yet"
    );
    assert_eq!(pass(&mut gateways, 1_000, true), (true, true));
    assert!(
        gateways[0].take_changed().contains(&lobby),
        "whoever waited is told"
    );
    assert_eq!(pass(&mut gateways, 4_500, false), (false, true));
    gateways[0].take_changed();
    assert_eq!(pass(&mut gateways, 1_000, true), (false, true));
    assert_eq!(pass(&mut gateways, 1_500, true), (true, true));
    assert!(gateways[0].take_changed().contains(&lobby));
    for gateway in &gateways {
        assert_eq!(seen(gateway, "lobby"), [("ada".to_owned(), 1, 100)]);
    }
}

#[test]
fn roles_are_those_of_all_connections() {
    let named = |names: &[&str]| -> Arc<[String]> { names.iter().map(|name| (*name).to_owned()).collect() };
    let mut gateways = [Presence::new("a".into()), Presence::new("b".into())];
    let (lobby, ada) = (place("lobby"), user("ada"));
    let known = |gateways: &[Presence]| -> Vec<Vec<String>> {
        let of = |gateway: &Presence| gateway.room(&lobby, 1, |_| true).0[0].roles.to_vec();
        gateways.iter().map(of).collect()
    };
    gateways[0].enter(&lobby, &ada, &named(&["staff"]), 100);
    gateways[1].enter(&lobby, &ada, &named(&["guest", "staff"]), 100);
    settle(&mut gateways, 1_000);
    assert_eq!(known(&gateways), [["guest", "staff"], ["guest", "staff"]]);
    gateways[1].roles_changed(&lobby, &ada, &named(&["guest"]));
    gateways[0].roles_changed(&lobby, &ada, &named(&["guest"]));
    // Who is not there has no roles.
    gateways[0].roles_changed(&lobby, &user("bob"), &named(&["staff"]));
    settle(&mut gateways, 1_100);
    assert_eq!(known(&gateways), [["guest"], ["guest"]]);
    gateways[0].take_changed();
    gateways[0].roles_changed(&lobby, &ada, &named(&["guest"]));
    assert!(gateways[0].take_changed().is_empty(), "nothing has changed");
}

#[test]
fn five_thousand_who_come_back_cost_few_messages_and_are_never_gone() {
    let mut gateways = [Presence::new("a".into()), Presence::new("b".into())];
    let places: Vec<Place> = (0..10).map(|n| place(&format!("room-{n}"))).collect();
    let users: Vec<Arc<str>> = (0..5_000).map(|n| user(&format!("user-{n}"))).collect();
    let enter = |gateway: &mut Presence, from: usize| {
        for (n, user) in users.iter().enumerate().skip(from).step_by(2) {
            gateway.enter(&places[n % places.len()], user, &roles(), 100);
        }
    };
    enter(&mut gateways[0], 0);
    enter(&mut gateways[1], 1);
    settle(&mut gateways, 1_000);
    // All sockets are reset and come back within a second, to the other gateway.
    for (n, user) in users.iter().enumerate() {
        gateways[n % 2].leave(&places[n % places.len()], user, 1_050);
    }
    enter(&mut gateways[0], 1);
    enter(&mut gateways[1], 0);
    let (mut messages, mut longest) = (0, 0);
    for step in 0..150 {
        let now = 1_100 + step * 100;
        let said: Vec<Said> = gateways
            .iter_mut()
            .flat_map(|gateway| gateway.tick(now))
            .collect();
        for said in said {
            let is_beat = said.what == What::Beat;
            messages += usize::from(!is_beat);
            longest = longest.max(serde_json::to_string(&said).unwrap().len());
            gateways
                .iter_mut()
                .for_each(|gateway| gateway.hear(said.clone(), now));
        }
        for gateway in &gateways {
            for place in &places {
                let (shown, total) = gateway.room(place, usize::MAX, |_| true);
                assert_eq!(total, 500);
                assert!(step == 0 || shown.iter().all(|present| present.connections == 1));
            }
        }
    }
    // Each user is said three times: left there, came here, and gone from there when the grace is over.
    assert!(messages <= 3 * 5_000 / CHANGES_MAX + 4, "{messages} messages");
    assert!(longest < 64 * 1024, "{longest} bytes");
}

#[test]
fn however_many_ask_everything_is_told_once_a_second() {
    let mut presence = Presence::new("a".into());
    presence.enter(&place("lobby"), &user("ada"), &roles(), 100);
    let mut told = 0;
    for step in 0..30_u64 {
        let now = 1_000 + step * 100;
        for asker in 0..50 {
            let what = What::TellAll("a".into());
            presence.hear(
                Said {
                    gateway: format!("g{asker}"),
                    version: 0,
                    what,
                },
                now,
            );
        }
        let said = presence.tick(now);
        told += said
            .iter()
            .filter(|said| matches!(said.what, What::All { .. }))
            .count();
    }
    assert_eq!(told, 3);
}

/// What happens in a run: to the users, and to the messages.
#[derive(Clone, Debug)]
enum Step {
    Enter(usize, usize, usize),
    Leave(usize, usize, usize),
    Pass(u64),
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize, 0..2_usize, 0..4_usize).prop_map(|(g, r, u)| Step::Enter(g, r, u)),
        3 => (0..3_usize, 0..2_usize, 0..4_usize).prop_map(|(g, r, u)| Step::Leave(g, r, u)),
        3 => (1..1_500_u64).prop_map(Step::Pass),
        1 => (0..3_usize).prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Messages are dropped, doubled and reordered while users come and go and gateways die; once messages arrive again, all
    /// gateways say the same, and it is the truth.
    #[test]
    fn gateways_agree_on_the_truth_once_messages_arrive(steps in steps(), fates in prop::collection::vec(0..10_u8, 1..400)) {
        let rooms = [place("a"), place("b")];
        let users: Vec<Arc<str>> = (0..4).map(|n| user(&format!("u{n}"))).collect();
        let mut lives = 3;
        let mut gateways: Vec<Presence> = (0..3).map(|n| Presence::new(format!("g{n}"))).collect();
        let mut truth: HashMap<(usize, usize, usize), u32> = HashMap::new();
        let mut fates = fates.into_iter().cycle();
        let mut late: Vec<(usize, Said)> = Vec::new();
        let mut now = 1_000;
        for step in steps {
            match step {
                Step::Enter(g, r, u) => {
                    *truth.entry((g, r, u)).or_default() += 1;
                    gateways[g].enter(&rooms[r], &users[u], &roles(), i64::try_from(now).unwrap());
                }
                Step::Leave(g, r, u) => {
                    let count = truth.entry((g, r, u)).or_default();
                    if *count > 0 {
                        *count -= 1;
                        gateways[g].leave(&rooms[r], &users[u], now);
                    }
                }
                Step::Pass(millis) => now += millis,
                Step::Restart(g) => {
                    gateways[g] = Presence::new(format!("g{lives}"));
                    lives += 1;
                    truth.retain(|(gateway, _, _), _| *gateway != g);
                }
            }
            for from in 0..3 {
                for said in gateways[from].tick(now) {
                    for to in (0..3).filter(|to| *to != from) {
                        match fates.next() {
                            Some(0..=3) => {}
                            Some(4) => late.push((to, said.clone())),
                            Some(5) => {
                                gateways[to].hear(said.clone(), now);
                                gateways[to].hear(said.clone(), now);
                            }
                            _ => gateways[to].hear(said.clone(), now),
                        }
                    }
                }
            }
            if late.len() > 3 {
                // The last of them first.
                for (to, said) in late.drain(..).rev() {
                    gateways[to].hear(said, now);
                }
            }
        }
        // From here on everything arrives; the grace of whoever left or died passes.
        for _ in 0..200 {
            now += 100;
            settle(&mut gateways, now);
        }
        for room in &rooms {
            let known: Vec<_> = gateways.iter().map(|gateway| gateway.room(room, usize::MAX, |_| true)).collect();
            prop_assert!(known.iter().all(|one| *one == known[0]), "since and roles are the same, too: {:?}", known);
        }
        for (r, room) in rooms.iter().enumerate() {
            let mut expected: BTreeMap<String, u32> = BTreeMap::new();
            for ((_, _, u), count) in truth.iter().filter(|((_, at, _), count)| *at == r && **count > 0) {
                *expected.entry(format!("u{u}")).or_default() += count;
            }
            for gateway in &gateways {
                let (users, _) = gateway.room(room, usize::MAX, |_| true);
                let found: BTreeMap<String, u32> =
                    users.into_iter().map(|present| (present.user.to_string(), present.connections)).collect();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
