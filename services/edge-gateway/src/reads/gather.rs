//! Which rooms' state is read with one request: those that wait when it may begin.

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::hub::Read;
use crate::place::Place;

/// The rooms whose state is wanted, one at least and `limit` at most: those that wait, and those that come before `next`. What else is
/// to be read is passed on, with them at the latest. `None`: nobody will want anything any more.
///
/// Nobody is woken for each of those who come: where users connect one after the other, that was a write and two changes of thread each.
///
/// # Cancel safety
/// Dropped, what was taken from the queue is lost.
pub(super) async fn gather(
    wanted: &mut mpsc::Receiver<Read>,
    (limit, next): (usize, Instant),
    mut pass_on: impl FnMut(Read),
) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let mut take = |places: &mut Vec<Place>, read| match read {
        Read::State(place) => places.push(place),
        other => pass_on(other),
    };
    while places.is_empty() {
        take(&mut places, wanted.recv().await?);
    }
    if wanted.len() < limit {
        tokio::time::sleep_until(next).await;
    }
    while places.len() < limit
        && let Ok(read) = wanted.try_recv()
    {
        take(&mut places, read);
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roomcast_proto::ids::{Room, Tenant};

    use super::*;
    use crate::place;

    fn state(n: usize) -> Read {
        let room = Room::parse(&format!("user.u{n}")).unwrap();
        Read::State(Place {
            key: place::key("main", room.as_str()).into(),
            tenant: Tenant::default(),
            room,
        })
    }

    /// How many rooms wait, how many come 2 ms after each other, how long the request may wait for them, how many it may name; how many
    /// it names.
    #[tokio::test(start_paused = true)]
    async fn a_request_names_those_who_wait_and_those_who_come_in_time() {
        let rows = [
            ("alone, after a rest", 1, 0, 0, 128, 1),
            ("nobody waits for what may come", 1, 5, 0, 128, 1),
            ("all who wait", 7, 5, 0, 128, 7),
            ("and who comes in time", 1, 20, 9, 128, 5),
            ("no more than may be", 3, 20, 9, 5, 5),
            ("not those who wait either", 9, 0, 0, 5, 5),
        ];
        for (what, waiting, coming, wait_millis, limit, named) in rows {
            let (sender, mut wanted) = mpsc::channel(64);
            for n in 0..waiting {
                sender.send(state(n)).await.unwrap();
            }
            let later = sender.clone();
            let rest = tokio::spawn(async move {
                for n in 0..coming {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let _ = later.send(state(100 + n)).await;
                }
            });
            let next = Instant::now() + Duration::from_millis(wait_millis);
            let places = gather(&mut wanted, (limit, next), |_| unreachable!()).await;
            assert_eq!(places.unwrap().len(), named, "{what}");
            rest.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_state_is_passed_on_and_waits_for_nobody() {
        let (sender, mut wanted) = mpsc::channel(64);
        sender.send(Read::Time(1)).await.unwrap();
        sender.send(Read::Time(2)).await.unwrap();
        let mut passed = Vec::new();
        let far = Instant::now() + Duration::from_secs(3_600);
        let gathering = gather(&mut wanted, (128, far), |read| passed.push(read));
        let gathered = tokio::time::timeout(Duration::from_secs(1), gathering).await;
        assert!(gathered.is_err(), "no room was wanted");
        assert!(matches!(passed[..], [Read::Time(1), Read::Time(2)]), "{passed:?}");
        drop(sender);
        let gathered = gather(&mut wanted, (128, far), |_| unreachable!()).await;
        assert_eq!(gathered.map(|places| places.len()), None);
    }
}
