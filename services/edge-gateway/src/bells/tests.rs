use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use roomcast_access::{AudienceId, Policy, Principal, Rights};
use roomcast_proto::ids::Room;

use super::notes::Name;
use super::*;

const POLICY: &str = "
version: 1
roles:
  user: { permissions: [see] }
  staff: { inherits: [user] }
rooms:
  - { room: hall, subscribe: see, auto_join: true }
";

struct World {
    policy: Policy,
}

impl World {
    fn new() -> Self {
        Self {
            policy: Policy::parse(POLICY, "policy.yaml").unwrap(),
        }
    }

    fn rights(&self, user: &str, role: &str) -> Rights {
        self.policy.rights(&Principal {
            tenant: Tenant::default(),
            subject: user.into(),
            roles: vec![role.to_owned()],
            claims: serde_json::Map::new(),
            expires_at: i64::MAX,
            issued_at: None,
            token_id: None,
        })
    }

    fn entering(&self, listener: u64, user: &str, role: &str) -> Entering<u64> {
        let rights = self.rights(user, role);
        let rooms = [
            Room::parse("hall").unwrap(),
            rights.personal_room().unwrap().clone(),
        ];
        let permits = rooms.iter().map(|room| Arc::new(rights.subscribe(room).unwrap()));
        Entering {
            name: listener,
            to: listener,
            tenant: Tenant::default(),
            user: user.into(),
            permits: permits.collect(),
        }
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        self.policy.audience(name)
    }
}

fn record(version: u64, read: &[u64], preferences: Option<&str>) -> Record {
    let mut names: Vec<Name> = read.iter().map(|rev| Name::of(&format!("n{rev}"))).collect();
    names.sort_unstable();
    Record {
        at: version,
        version,
        marks: record::ReadNames(names.into()),
        preferences: preferences.map(|text| serde_json::value::RawValue::from_string(text.into()).unwrap()),
    }
}

/// Reads everything that is wanted from what is said to be there; answers how much that was.
fn read_all(
    bells: &mut Bells<u64>,
    rev: u64,
    rooms: &BTreeMap<&str, Vec<Change>>,
    record_of: &impl Fn(&str) -> Record,
) -> usize {
    let mut wants = 0;
    while let Some(want) = bells.take_want() {
        wants += 1;
        match want {
            Want::Room(of, permit) => {
                let changes = rooms.get(permit.room().as_str()).cloned().unwrap_or_default();
                bells.room_read(of, rev, changes);
            }
            Want::Record(of, _, user) => bells.record_read(of, record_of(&user)),
        }
    }
    wants
}

fn told(bells: &mut Bells<u64>) -> BTreeMap<u64, (u32, bool)> {
    let mut told = BTreeMap::new();
    bells.round(|listener, to, bell| {
        assert_eq!(listener, *to);
        told.insert(listener, (bell.counters.unread, bell.prefers_anew));
    });
    told
}

#[test]
fn all_listeners_of_a_user_are_told_once_what_changes_and_late_ones_at_once() {
    let world = World::new();
    let mut bells = Bells::default();
    assert_eq!(bells.enter(world.entering(1, "ada", "user"), 0), None);
    assert_eq!(bells.enter(world.entering(2, "ada", "user"), 0), None);
    assert_eq!(bells.enter(world.entering(3, "bob", "user"), 0), None);
    assert!(told(&mut bells).is_empty(), "nothing is known yet");
    let hall = Change::made(5, "k", world.audience("all"), false);
    let rooms = BTreeMap::from([("hall", vec![hall])]);
    let nothing = |_: &str| record(0, &[], None);
    assert_eq!(
        read_all(&mut bells, 7, &rooms, &nothing),
        5,
        "a room is read once, whoever counts it"
    );
    assert_eq!(
        told(&mut bells),
        BTreeMap::from([(1, (1, false)), (2, (1, false)), (3, (1, false))])
    );
    assert!(told(&mut bells).is_empty());

    // A tab that comes later is told at once, and reads nothing.
    let bell = bells.enter(world.entering(4, "ada", "user"), 0).unwrap();
    assert_eq!(
        (bell.counters.unread, bell.counters.version, bell.prefers_anew),
        (1, 7, false)
    );
    assert!(bells.take_want().is_none());

    // Something that makes no difference is not said: a notification for others, and what was in the room when it was read.
    bells.changed("main.hall", Change::made(8, "k2", world.audience("staff"), false));
    bells.changed("main.hall", Change::made(7, "k3", world.audience("all"), false));
    assert!(told(&mut bells).is_empty());
    bells.changed(
        "main.user.ada",
        Change::made(9, "k", world.audience("all"), false),
    );
    bells.passed(9);
    assert_eq!(
        told(&mut bells).keys().copied().collect::<Vec<_>>(),
        [1, 2, 4],
        "it is hers alone"
    );

    // A mark on one device: her record is read once, and all her tabs hear.
    bells.record_changed(&read_state_key(&Tenant::default(), "ada"));
    bells.record_changed(&read_state_key(&Tenant::default(), "ada"));
    let marked = |_: &str| record(1, &[5], None);
    assert_eq!(
        read_all(&mut bells, 9, &rooms, &marked),
        2,
        "what changes while it is read is read once more"
    );
    assert_eq!(
        told(&mut bells),
        BTreeMap::from([(1, (1, false)), (2, (1, false)), (4, (1, false))])
    );

    // Preferences are news once, for all; what is taken back is said too.
    for (version, preferences) in [(2, Some(r#"{"sounds":false}"#)), (3, None)] {
        bells.record_changed(&read_state_key(&Tenant::default(), "ada"));
        read_all(&mut bells, 9, &rooms, &|_| record(version, &[5], preferences));
        assert_eq!(
            told(&mut bells).values().copied().collect::<Vec<_>>(),
            [(1, true); 3]
        );
    }
    // An older answer of another ingest changes nothing.
    bells.record_changed(&read_state_key(&Tenant::default(), "ada"));
    read_all(&mut bells, 9, &rooms, &nothing);
    assert!(told(&mut bells).is_empty());
}

#[test]
fn other_rights_are_counted_apart_and_who_is_gone_is_forgotten_after_a_while() {
    let world = World::new();
    let mut bells = Bells::default();
    let rooms = BTreeMap::from([(
        "hall",
        vec![
            Change::made(1, "a", world.audience("all"), false),
            Change::made(2, "b", world.audience("staff"), false),
        ],
    )]);
    let nothing = |_: &str| record(0, &[], None);
    bells.enter(world.entering(1, "ada", "user"), 0);
    bells.enter(world.entering(2, "ada", "staff"), 0);
    read_all(&mut bells, 2, &rooms, &nothing);
    assert_eq!(
        told(&mut bells),
        BTreeMap::from([(1, (1, false)), (2, (2, false))])
    );
    // The first one gets the role: it is counted with the other from now on.
    let bell = bells.enter(world.entering(1, "ada", "staff"), 10).unwrap();
    assert_eq!(bell.counters.unread, 2);
    assert_eq!(bells.sizes(), (2, 2, 2));
    bells.sweep(10 + LINGER_MILLIS - 1);
    assert_eq!(bells.sizes().0, 2);
    bells.sweep(10 + LINGER_MILLIS);
    assert_eq!(bells.sizes(), (1, 2, 2));
    bells.leave(1, 100);
    bells.leave(2, 100);
    bells.leave(2, 100);
    // Back in time: nothing is read again.
    assert!(bells.enter(world.entering(5, "ada", "staff"), 200).is_some());
    bells.sweep(100 + LINGER_MILLIS);
    assert_eq!(bells.sizes(), (1, 1, 2));
    bells.leave(5, 300);
    bells.sweep(300 + LINGER_MILLIS);
    assert_eq!(bells.sizes(), (0, 0, 0));
    assert!(bells.places.is_empty() && bells.records.is_empty() && bells.idle.is_empty());
    // What was still being read for somebody who is gone is nobody's.
    bells.enter(world.entering(6, "ada", "user"), 0);
    let wants: Vec<Want> = std::iter::from_fn(|| bells.take_want()).collect();
    bells.leave(6, 0);
    bells.sweep(LINGER_MILLIS);
    bells.enter(world.entering(7, "bob", "user"), LINGER_MILLIS);
    for want in wants {
        match want {
            Want::Room(of, _) => bells.room_read(of, 9, rooms["hall"].clone()),
            Want::Record(of, ..) => bells.record_read(of, record(9, &[1, 2], None)),
        }
    }
    assert!(told(&mut bells).is_empty());
    assert_eq!(bells.sizes().2, 0);
}

#[test]
fn more_than_a_number_that_nobody_listens_to_are_not_kept() {
    let world = World::new();
    let mut bells = Bells::default();
    for n in 0..IDLE_MAX as u64 + 10 {
        bells.enter(world.entering(n, &format!("u{n}"), "user"), 0);
        bells.leave(n, 0);
    }
    bells.sweep(1);
    assert_eq!(bells.sizes().0, IDLE_MAX);
}

/// What happens, in any order.
#[derive(Debug, Clone)]
enum Step {
    /// A value of one of a few keys in the hall or in the user's own room, for all or for staff, or its end.
    Change(bool, u8, bool, bool),
    /// The user reads the notification that was made so many steps ago.
    Read(usize),
    /// An operator takes the user's record away.
    Purge,
    /// Something that is wanted is read: the first, or the last.
    Load,
    /// Messages were lost.
    Lost(bool),
    Round,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0_u8..6, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(own, key, staff, gone)| Step::Change(own, key, staff, gone)),
        3 => (0_usize..20).prop_map(Step::Read),
        1 => Just(Step::Purge),
        4 => Just(Step::Load),
        1 => any::<bool>().prop_map(Step::Lost),
        2 => Just(Step::Round),
    ]
}

/// What is true, kept in the simplest way.
#[derive(Default)]
struct Truth {
    rev: u64,
    /// By room, key and audience.
    values: BTreeMap<(bool, u8, bool), Change>,
    made: Vec<u64>,
    read: BTreeSet<u64>,
    version: u64,
    /// Of the bucket.
    position: u64,
    purged: bool,
}

impl Truth {
    fn room(&self, own: bool) -> Vec<Change> {
        let mut all: Vec<Change> = self
            .values
            .iter()
            .filter(|((of, ..), _)| *of == own)
            .map(|(_, change)| *change)
            .collect();
        all.sort_by_key(Change::rev);
        all
    }

    /// The newest value of each key that this role sees, unread.
    fn unread(&self, staff: bool) -> u32 {
        let mut newest: BTreeMap<(bool, u8), u64> = BTreeMap::new();
        for ((own, key, of_staff), change) in &self.values {
            if staff || !of_staff {
                let held = newest.entry((*own, *key)).or_default();
                *held = (*held).max(change.rev());
            }
        }
        let unread = newest.values().filter(|rev| !self.read.contains(rev)).count();
        u32::try_from(unread).unwrap()
    }
}

proptest! {
    /// Whatever comes in whatever order, and whatever is read late: who listens knows in the end what is true, versions never go back unless
    /// an operator took the record away, and two who see the same are told the same.
    #[test]
    fn in_the_end_the_counters_are_true(steps in prop::collection::vec(step(), 0..120)) {
        let world = World::new();
        let mut bells = Bells::default();
        let mut truth = Truth::default();
        for (listener, role) in [(1, "user"), (2, "user"), (3, "staff")] {
            bells.enter(world.entering(listener, "ada", role), 0);
        }
        let mut known: BTreeMap<u64, Counters> = BTreeMap::new();
        let round = |bells: &mut Bells<u64>, truth: &Truth, known: &mut BTreeMap<u64, Counters>| {
            bells.round(|listener, _, bell| {
                let before = known.insert(listener, bell.counters);
                assert!(truth.purged || before.is_none_or(|before| before.version <= bell.counters.version));
            });
        };
        let load = |bells: &mut Bells<u64>, truth: &Truth| {
            let Some(want) = bells.take_want() else { return false };
            match want {
                Want::Room(of, permit) => bells.room_read(of, truth.rev, truth.room(permit.room().is_personal())),
                Want::Record(of, ..) => {
                    let read: Vec<u64> = truth.read.iter().copied().collect();
                    bells.record_read(of, Record { at: truth.position, ..record(truth.version, &read, None) });
                }
            }
            true
        };
        for step in steps {
            match step {
                Step::Change(own, key, staff, gone) => {
                    truth.rev += 1;
                    let audience = world.audience(if staff { "staff" } else { "all" });
                    let change = Change::made(truth.rev, &key.to_string(), audience, gone);
                    if gone {
                        truth.values.remove(&(own, key, staff));
                    } else {
                        truth.values.insert((own, key, staff), change);
                        truth.made.push(truth.rev);
                    }
                    bells.changed(if own { "main.user.ada" } else { "main.hall" }, change);
                    bells.passed(truth.rev);
                }
                Step::Read(ago) => {
                    let at = truth.made.len().checked_sub(ago + 1);
                    if let Some(rev) = at.and_then(|at| truth.made.get(at)) && truth.read.insert(*rev) {
                        truth.version += 1;
                        truth.position += 1;
                        bells.record_changed(&read_state_key(&Tenant::default(), "ada"));
                    }
                }
                Step::Purge => {
                    truth.read.clear();
                    (truth.version, truth.purged) = (0, true);
                    truth.position += 1;
                    bells.record_changed(&read_state_key(&Tenant::default(), "ada"));
                }
                Step::Load => drop(load(&mut bells, &truth)),
                Step::Lost(true) => bells.rooms_changed(),
                Step::Lost(false) => bells.records_changed(),
                Step::Round => round(&mut bells, &truth, &mut known),
            }
        }
        while load(&mut bells, &truth) {}
        round(&mut bells, &truth, &mut known);
        prop_assert_eq!(known[&1], known[&2]);
        prop_assert_eq!((known[&1].unread, known[&3].unread), (truth.unread(false), truth.unread(true)));
    }
}
