//! Input that cannot be counted, and files that are none: each refused with its reason, and nothing else touched.

use serde_json::json;

use crate::world;
use crate::world::{METRICS, now};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_folded_is_counted_and_told() {
    let Some(world) = world().await else { return };
    let a = world.start("a", METRICS);
    a.ready().await;
    let hour = 3_600_000_000;
    for (id, (data, shift)) in [
        (json!({ "amount": 1, "kind": "car" }), 0),
        (json!({ "amount": null, "kind": "car" }), 0),
        (json!({ "amount": "much", "kind": "car" }), 0),
        (json!({ "amount": 1e20, "kind": "car" }), 0),
        (json!({ "amount": 1, "kind": "car" }), hour),
        (json!({ "amount": 1, "kind": "car" }), -hour),
        (json!({ "amount": 1, "kind": [] }), 0),
    ]
    .into_iter()
    .enumerate()
    {
        world.event(id as u64 + 1, "done", &data, now() + shift).await;
    }
    let values = world
        .eventually("all reasons", |values| {
            values
                .get("status/by_kind")
                .is_some_and(|status| status["skipped"]["not_a_scalar"] == 1)
        })
        .await;
    let skipped = &values["status/by_kind"]["skipped"];
    for (reason, count) in [
        ("late", 1),
        ("future", 1),
        ("missing", 1),
        ("not_a_number", 1),
        ("out_of_range", 1),
        ("overflow", 0),
    ] {
        assert_eq!(skipped[reason], count, "{reason}");
    }
    world
        .eventually("the sum is untouched", |values| {
            values["by_kind/car"]["value"] == "1"
        })
        .await;
}
