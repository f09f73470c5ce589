//! Events whose numbers are known.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::world::{World, now};

/// Publishes events and knows what every number must be then.
#[derive(Default)]
pub struct Truth {
    pub events: u64,
    pub cents: u64,
    by_kind: BTreeMap<&'static str, u64>,
    customers: BTreeSet<String>,
    pub new: u64,
    done: u64,
}

impl Truth {
    pub async fn publish(&mut self, world: &World, count: u64) {
        for _ in 0..count {
            self.events += 1;
            let i = self.events;
            let kind = ["car", "tour", "property"][usize::try_from(i / 3 % 3).unwrap()];
            let customer = format!("c{}", i * 7 % 53);
            if i.is_multiple_of(3) {
                let cents = i * 37 % 1000;
                self.cents += cents;
                *self.by_kind.entry(kind).or_default() += cents;
                self.done += 1;
                let amount = format!("{}.{:02}", cents / 100, cents % 100);
                world
                    .event(i, "done", &json!({ "kind": kind, "amount": amount }), now())
                    .await;
            } else {
                self.customers.insert(customer.clone());
                self.new += 1;
                world
                    .event(i, "new", &json!({ "customer": customer }), now())
                    .await;
            }
        }
    }

    /// Whether what is published is what must be.
    pub fn holds(&self, values: &BTreeMap<String, Value>) -> bool {
        let money = |cents: u64| {
            let text = format!("{}.{:02}", cents / 100, cents % 100);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let ratio = (self.done * 20_000 / self.new).div_ceil(2);
        let ratio = format!("{}.{:04}", ratio / 10_000, ratio % 10_000);
        let value = |key: &str| values.get(key).map(|data| data["value"].clone());
        value("revenue") == Some(json!(money(self.cents)))
            && value("customers") == Some(json!(self.customers.len().to_string()))
            && value("conversion") == Some(json!(ratio.trim_end_matches('0').trim_end_matches('.')))
            && self
                .by_kind
                .iter()
                .all(|(kind, cents)| value(&format!("by_kind/{kind}")) == Some(json!(money(*cents))))
    }
}
