use super::*;

fn hook(name: &str, position: u64) -> SinkJob {
    SinkJob {
        tenant: Tenant::default(),
        target: SinkTarget::Webhook(name.to_owned()),
        position,
    }
}

fn lane(name: &str) -> Lane {
    Lane::Webhook(name.to_owned())
}

fn positions(waiting: &mut Waiting, now: u64) -> Vec<u64> {
    std::iter::from_fn(|| waiting.next(now).map(|(position, _)| position)).collect()
}

#[test]
fn what_may_be_tried_for_the_longest_time_comes_first() {
    let mut waiting = Waiting::default();
    for (position, name) in [(1, "a"), (2, "b"), (3, "a")] {
        waiting.add(
            position,
            hook(name, position),
            100 - i64::try_from(position).unwrap(),
            lane(name),
            position,
        );
    }
    waiting.add(3, hook("a", 3), 0, lane("a"), 0);
    assert_eq!((waiting.len(), waiting.oldest_micros()), (3, Some(97)));
    assert_eq!(positions(&mut waiting, 0), [0; 0]);
    assert_eq!(positions(&mut waiting, 2), [1, 2]);
    waiting.again(1, 50, true);
    waiting.done(2);
    assert_eq!(positions(&mut waiting, 49), [3]);
    let (_, job) = waiting.next(50).unwrap();
    assert_eq!((job.what.position, job.attempts), (1, 2));
    // Not begun after all: that was no attempt.
    waiting.again(1, 60, false);
    assert_eq!(waiting.next(60).unwrap().1.attempts, 2);
    waiting.done(1);
    waiting.done(3);
    waiting.done(3);
    assert!(waiting.len() == 0 && waiting.lanes.is_empty() && waiting.targets.is_empty());
    assert_eq!((waiting.shared, waiting.oldest_micros()), (0, None));
}

/// Both ways in which a job has its turn say what is decided of it.
#[test]
fn what_is_decided_of_a_job_stays_with_it() {
    let mut waiting = Waiting::default();
    add(&mut waiting, "a", 1, 2);
    assert_eq!(positions(&mut waiting, 0), [1, 2]);
    let forget = Verdict::Forget {
        user: "u1".to_owned(),
        at: 7,
    };
    let dead = Verdict::Dead("last answer: refused".to_owned());
    waiting.decided(1, 50, forget.clone());
    waiting.decided(2, 50, dead.clone());
    assert_eq!(waiting.next(49), None);
    assert_eq!(waiting.overdue(2, 50).unwrap().1.verdict, Some(forget));
    for now in [50, 60] {
        let (position, job) = waiting.next(now).unwrap();
        assert_eq!((position, job.verdict.as_ref()), (2, Some(&dead)));
        waiting.again(position, 60, true);
    }
    add(&mut waiting, "a", 3, 1);
    assert_eq!(waiting.next(0).unwrap().1.verdict, None);
}

/// Adds `count` jobs of a webhook, the first at a position.
fn add(waiting: &mut Waiting, name: &str, first: u64, count: u64) {
    for position in first..first + count {
        let since = i64::try_from(position).unwrap();
        waiting.add(position, hook(name, position), since, lane(name), 0);
    }
}

#[test]
fn lanes_share_evenly_and_each_has_some_for_itself() {
    let mut waiting = Waiting::default();
    add(&mut waiting, "a", 0, 100);
    assert_eq!(positions(&mut waiting, 0).len(), LANE_ATTEMPTS_MAX);
    assert!(waiting.is_held_up(0));
    // Ten lanes take all that is shared; the eleventh has its own all the same.
    for n in 1..11_u64 {
        add(&mut waiting, &format!("b{n}"), n * 1_000, 100);
    }
    let all = 11 * LANE_OWN + SHARED_ATTEMPTS_MAX;
    assert_eq!(positions(&mut waiting, 0).len(), all - LANE_ATTEMPTS_MAX);
    assert_eq!(waiting.shared, SHARED_ATTEMPTS_MAX);
    add(&mut waiting, "late", 50_000, 100);
    assert_eq!(positions(&mut waiting, 0), [50_000, 50_001]);
    // What the first lets go is for the one that has the least.
    waiting.done(0);
    assert_eq!(positions(&mut waiting, 0), [50_002]);
    waiting.done(50_000);
    assert_eq!(positions(&mut waiting, 0), [50_003]);
}

#[test]
fn receivers_that_hang_hold_up_themselves_alone() {
    let mut waiting = Waiting::default();
    for n in 0..9 {
        add(&mut waiting, &format!("hangs{n}"), n * 1_000, 100);
    }
    let begun = positions(&mut waiting, 0);
    assert_eq!(waiting.shared, SHARED_ATTEMPTS_MAX);
    for position in &begun {
        waiting.heard(*position, false);
        waiting.again(*position, 1_000, true);
    }
    assert_eq!(waiting.hanging(), (9, 0));
    assert_eq!(positions(&mut waiting, 5_000).len(), 9 * LANE_OWN);
    assert_eq!(waiting.shared, 0, "all of it is for those that answer");
    add(&mut waiting, "good", 50_000, 100);
    assert_eq!(positions(&mut waiting, 5_000).len(), LANE_ATTEMPTS_MAX);
    assert!(waiting.is_held_up(5_000));
    // The first answer ends it, for this one; a silent one is remembered without any job.
    let (position, _) = waiting
        .jobs
        .iter()
        .find(|(_, job)| job.lane == lane("hangs0"))
        .unwrap();
    let position = *position;
    waiting.heard(position, true);
    assert_eq!(waiting.hanging(), (8, 0));
    assert_eq!(positions(&mut waiting, 5_000).len(), LANE_ATTEMPTS_MAX - LANE_OWN);
    let mut one = Waiting::default();
    let push = Lane::Listed(0);
    one.add(1, hook("a", 1), 0, push.clone(), 0);
    assert_eq!(positions(&mut one, 0), [1]);
    one.heard(1, false);
    one.done(1);
    assert_eq!((one.hanging(), one.len()), ((0, 1), 0));
    for position in 2..20 {
        one.add(position, hook("a", position), 0, push.clone(), 0);
    }
    assert_eq!(positions(&mut one, 0).len(), LANE_OWN);
}

#[test]
fn what_a_busy_lane_keeps_past_its_time_is_given_up() {
    let mut waiting = Waiting::default();
    let all = LANE_ATTEMPTS_MAX as u64 + 2;
    add(&mut waiting, "busy", 0, all);
    let begun = positions(&mut waiting, 0);
    // Not tried yet, however old: they have an attempt.
    assert_eq!(waiting.overdue(1_000, 1_000), None);
    for position in &begun {
        waiting.again(*position, 50, true);
    }
    assert_eq!(waiting.overdue(1_000, 49), None, "it has a time of its own");
    assert_eq!(waiting.overdue(0, 50), None, "its time is not over");
    assert_eq!(waiting.overdue(1, 50).map(|(position, _)| position), Some(0));
    assert_eq!(waiting.overdue(1, 50), None);
    // NATS did not take it away.
    waiting.again(0, 60, true);
    assert_eq!(waiting.overdue(1, 59), None);
    assert_eq!(waiting.overdue(3, 60).map(|(position, _)| position), Some(0));
    waiting.done(0);
    let tried = positions(&mut waiting, 60);
    assert_eq!(tried.len(), LANE_ATTEMPTS_MAX, "{tried:?}");
    assert!(!tried.contains(&0));
    let rest = std::iter::from_fn(|| waiting.overdue(1_000, 60)).count();
    assert_eq!(rest, 1, "one was tried and found no room again");
}

#[test]
fn what_was_never_tried_is_given_up_only_where_its_receiver_hangs() {
    let mut waiting = Waiting::default();
    add(&mut waiting, "hangs", 0, 20);
    let begun = positions(&mut waiting, 0);
    assert_eq!(waiting.overdue(1_000, 0), None);
    waiting.heard(begun[0], false);
    assert_eq!(waiting.overdue(17, 0).map(|(position, _)| position), Some(16));
    assert_eq!(waiting.overdue(17, 0), None);
    let rest = std::iter::from_fn(|| waiting.overdue(1_000, 0)).count();
    assert_eq!(rest, 3);
}

#[test]
fn a_target_has_so_much_waiting_at_most() {
    let mut waiting = Waiting::default();
    let device = SinkTarget::Device {
        user: "u1".to_owned(),
        device: "d1".to_owned(),
    };
    let main = Tenant::default();
    assert_eq!(waiting.room(&main, &device), DEVICE_JOBS_MAX);
    for position in 0..60 {
        let job = SinkJob {
            tenant: main.clone(),
            target: device.clone(),
            position,
        };
        waiting.add(position, job, 0, Lane::Listed(0), 0);
    }
    assert_eq!(waiting.room(&main, &device), 0);
    assert_eq!(waiting.room(&main, &hook("a", 0).target), WEBHOOK_JOBS_MAX);
    let keys = RandomState::new();
    let lane = Lane::of_host("a.example", &keys);
    assert_eq!(lane, Lane::of_host("a.example", &keys));
    // Where theirs is, nobody knows: of ten that are made anew not all say the same.
    let others = (0..10).map(|_| Lane::of_host("a.example", &RandomState::new()));
    assert!(others.into_iter().any(|other| other != lane));
}
