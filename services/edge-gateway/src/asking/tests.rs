//! Bounds of what is under way, and what ingest says.

use std::collections::HashMap;

use super::*;
use crate::limit::Limit;

fn who(user: &str) -> Who {
    Who {
        tenant: Tenant::default(),
        user: user.into(),
        roles: Arc::default(),
        claims: None,
    }
}

#[test]
fn users_and_the_gateway_have_their_bounds_and_get_them_back() {
    let limits = Limits {
        per_connection: 1,
        per_user: 2,
        per_tenant: 3,
        all: 4,
        page_bytes_max: 1,
    };
    let metrics = Metrics::new("gateway").unwrap();
    let limited = GatewayMetrics::new(&metrics).unwrap();
    let asking = Asking::new(limits, &metrics, limited).unwrap();
    let code = |user: &str| asking.enter(&who(user)).map_err(|refusal| refusal.code);
    let first = code("u1").unwrap();
    let second = code("u1").unwrap();
    assert_eq!(code("u1").unwrap_err(), Code::Rate);
    let other = code("u2").unwrap();
    assert_eq!(code("u3").unwrap_err(), Code::Rate, "the tenant's share");
    let acme = |user: &str| {
        let who = Who {
            tenant: Tenant::parse("acme").unwrap(),
            ..who(user)
        };
        asking.enter(&who).map_err(|refusal| refusal.code)
    };
    let of_acme = acme("u1").unwrap();
    assert_eq!(acme("u2").unwrap_err(), Code::Unavailable);
    // The client has been told; the backend has not answered yet.
    let slot = first.slot();
    drop(first);
    assert_eq!(code("u3").unwrap_err(), Code::Unavailable);
    drop(slot);
    drop(code("u1").unwrap());
    drop((second, other, of_acme));
    let under_way = asking.under_way();
    assert!(under_way.users.is_empty() && under_way.tenants.is_empty());
    let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
    for limit in [Limit::AsksOfUser, Limit::AsksOfTenant, Limit::Asks] {
        let label = format!("limit=\"{}\"", limit.as_str());
        let line = text.lines().find(|line| line.contains(&label)).unwrap();
        assert!(!line.ends_with(" 0"), "{line}");
    }
    assert_eq!(asking.metrics.in_flight.get(), 0);
}

#[test]
fn answers_and_refusals_of_ingest_are_told_apart() {
    let read = |text: &str| read::<HashMap<String, u32>>(text.as_bytes());
    assert_eq!(read(r#"{"n":1}"#), Ok(HashMap::from([("n".to_owned(), 1)])));
    let refused = read(r#"{"code":"conflict","message":"no","temporary":false}"#).unwrap_err();
    assert_eq!((refused.code, refused.detail.as_str()), (Code::Conflict, "no"));
    let refused =
        read(r#"{"code":"unavailable","message":"no","temporary":true,"retryAfterMs":7}"#).unwrap_err();
    assert_eq!(refused.retry_after_ms, Some(7));
    for strange in ["", "[]", r#"{"code":"nothing","message":""}"#] {
        assert_eq!(read(strange).unwrap_err().code, Code::Internal, "{strange}");
    }
    // What is absent and what is not yours are one answer, also after a journey.
    assert_eq!(
        read(&Refusal::forbidden().error_json()).unwrap_err(),
        Refusal::forbidden()
    );
}
