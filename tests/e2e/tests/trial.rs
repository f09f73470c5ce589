//! One trial: clients and publishers while something is done to the system, then the verdict on everything they saw.
//!
//! Publishers repeat an event with its id until it is acknowledged; clients come back with their cursors on either gateway. The
//! judge is `roomcast_harness::account`, which has its own tests; the numbers are those of `oracle`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use roomcast_harness::account::{Row, audit, judge};
use roomcast_harness::eventually;
use roomcast_harness::follower::Follower;
use roomcast_harness::stack::Stack;
use roomcast_harness::traffic::Traffic;

use crate::world::{bookings, follower, follower_from, numbers_are_exact, say, stored, ways};

/// Events acknowledged between two faults, and again after the last: the fault falls into traffic, and traffic goes on.
pub const BETWEEN: u64 = 60;
/// A part that was killed is back, and publishers are heard again, within this.
pub const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Lines of the table, printed as tests end.
static TABLE: LazyLock<Mutex<Vec<Row>>> = LazyLock::new(Mutex::default);

/// What the clients of a trial are.
struct Crowd {
    followers: Vec<(&'static str, Follower)>,
    /// Where all of them began.
    beginning: HashMap<String, String>,
}

impl Crowd {
    /// Two roles, each beginning at each of the gateways.
    async fn gather(stack: &Stack) -> Self {
        let mut followers = Vec::new();
        for (index, role) in ["staff", "admin", "staff", "admin"].into_iter().enumerate() {
            followers.push((
                role,
                follower(stack, index / 2, role, &["bookings", "os_dashboard"]).await,
            ));
        }
        let at = followers[0].1.look().cursors["bookings"].clone();
        let beginning = [("bookings".to_owned(), at)].into();
        Self { followers, beginning }
    }

    /// Waits until each has seen as many events as are stored.
    async fn have_seen(&self, events: usize) {
        for (index, (role, follower)) in self.followers.iter().enumerate() {
            // Too few shows in the verdict, which says which; waiting ends either way.
            let what = format!("client {index} ({role}) has {events} events");
            let waited = async {
                eventually(&what, BACK_WITHIN, || async {
                    follower.count("bookings") >= events
                })
                .await
            };
            let _ = tokio::time::timeout(BACK_WITHIN / 2, waited).await;
        }
    }
}

/// Clients and publishers at work.
pub struct Trial<'a> {
    stack: &'a Stack,
    name: &'static str,
    fault: &'static str,
    crowd: Crowd,
    traffic: Traffic,
}

impl<'a> Trial<'a> {
    /// Begins with four clients and four publishers. `name` begins the ids of the events, `fault` the line of the table.
    pub async fn begin(stack: &'a Stack, name: &'static str, fault: &'static str) -> Self {
        let crowd = Crowd::gather(stack).await;
        let traffic = Traffic::start(name, ways(stack).await, Duration::from_millis(12), &bookings());
        Self {
            stack,
            name,
            fault,
            crowd,
            traffic,
        }
    }

    /// Waits until so many more events are acknowledged.
    pub async fn more(&self, events: u64) {
        let goal = self.traffic.acknowledged() + events;
        eventually("events are acknowledged", BACK_WITHIN, || async {
            self.traffic.acknowledged() >= goal
        })
        .await;
    }

    /// How often the client that came back most did so.
    pub fn returns(&self) -> usize {
        let of = |(_, follower): &(_, Follower)| follower.look().connections.saturating_sub(1);
        self.crowd.followers.iter().map(of).max().unwrap_or_default()
    }

    /// Ends the traffic, compares what publishers were told, what is stored, what clients saw and what the numbers are.
    pub async fn end(self) -> anyhow::Result<()> {
        let Self {
            stack,
            name,
            fault,
            crowd,
            traffic,
        } = self;
        let told = traffic.finish().await;
        assert!(told.refused.is_empty(), "refused: {:?}", told.refused);

        let prefix = format!("{name}-");
        let all = stored(stack, "bookings").await?;
        let ids: Vec<String> = all
            .iter()
            .filter_map(|event| event["id"].as_str())
            .filter(|id| id.starts_with(&prefix))
            .map(str::to_owned)
            .collect();
        crowd.have_seen(ids.len()).await;
        let mut row = Row {
            fault: fault.to_owned(),
            acknowledged: told.acknowledged.len(),
            repeats: told.repeats,
            stored: ids.len(),
            ..Row::default()
        };
        let ledger = audit(&ids, &told.acknowledged);
        row.ledger(&ledger);
        let mut verdicts = Vec::new();
        for (role, follower) in &crowd.followers {
            let sighting = follower.look();
            let verdict = judge(&ids, &sighting.seen["bookings"]);
            row.client(
                sighting.seen["bookings"].len(),
                sighting.connections - 1,
                &verdict,
            );
            row.away_millis = row.away_millis.max(sighting.longest_away.as_millis());
            assert_eq!(
                sighting.incomplete,
                Vec::<serde_json::Value>::new(),
                "{role}: every return is complete"
            );
            assert_eq!(
                sighting.went_back,
                Vec::<String>::new(),
                "{role}: no number goes back"
            );
            verdicts.push(verdict);
        }
        // One who was away all the time and comes back now gets the same from either gateway.
        for (index, gateway) in stack.gateways().into_iter().enumerate() {
            let late = follower_from(
                stack,
                vec![gateway],
                index,
                "staff",
                &["bookings"],
                crowd.beginning.clone(),
            )
            .await;
            let _ = tokio::time::timeout(BACK_WITHIN, async {
                eventually("caught up", BACK_WITHIN, || async {
                    late.count("bookings") >= ids.len()
                })
                .await
            })
            .await;
            let sighting = late.look();
            assert_eq!(
                sighting.incomplete,
                Vec::<serde_json::Value>::new(),
                "the late one at gateway {index}"
            );
            let verdict = judge(&ids, &sighting.seen["bookings"]);
            row.client(sighting.seen["bookings"].len(), 1, &verdict);
            verdicts.push(verdict);
        }
        print(&row);
        assert!(row.is_clean(), "{row}\nstream: {ledger:?}\nclients: {verdicts:?}");
        assert_eq!(
            row.stored, row.acknowledged,
            "every attempt was acknowledged in the end, so nothing else is stored"
        );
        let values = numbers_are_exact(stack, BACK_WITHIN).await?;
        say(&format!(
            "    {values} numbers at two gateways equal a recomputation over {} stored events",
            all.len()
        ));
        Ok(())
    }
}

fn print(row: &Row) {
    let mut table = TABLE.lock().expect("nobody panics with it");
    if table.is_empty() {
        say(&format!("\n    {}", Row::HEAD));
    }
    say(&format!("    {row}"));
    table.push(row.clone());
}
