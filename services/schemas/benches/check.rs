//! What checking one event costs: a booking of 300 bytes against a schema as people write them.

use criterion::{Criterion, criterion_group, criterion_main};
use roomcast_schemas::{Catalog, Data, Schema};
use std::hint::black_box;

const SCHEMA: &str = include_str!("../../../deploy/scenarios/bookings/schemas/booking-new.json");
const DATA: &str = r#"{"id":"bk-000123","customer":"Elif Kaya","country":"TR","category":"tour","title":"Bosphorus cruise at sunset","duration":"3 hours","amount":4250.50,"currency":"TRY"}"#;

fn bench(criterion: &mut Criterion) {
    let Ok(schema) = Schema::parse("booking-new.json", SCHEMA) else {
        return;
    };
    let Ok(catalog) = Catalog::new(vec![schema]) else {
        return;
    };
    let mut group = criterion.benchmark_group("check");
    group.bench_function("a good event", |bench| {
        bench.iter(|| {
            catalog
                .check(black_box("booking:new"), None, Data::Json(black_box(DATA)))
                .is_ok()
        });
    });
    let bad = DATA.replace("4250.50", "\"4250.50\"");
    group.bench_function("a bad event", |bench| {
        bench.iter(|| {
            catalog
                .check(black_box("booking:new"), None, Data::Json(black_box(&bad)))
                .is_ok()
        });
    });
    group.bench_function("a type without a schema", |bench| {
        bench.iter(|| {
            catalog
                .check(black_box("other"), None, Data::Json(black_box(DATA)))
                .is_ok()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
