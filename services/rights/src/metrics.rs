//! What is counted about what is in force.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use roomcast_access::{InForce, acl};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::acl::Key;

/// Digits of a fingerprint that a gauge holds exactly.
const HASH_BITS: u32 = 48;

#[derive(Debug, Clone)]
pub(crate) struct RightsMetrics {
    hash: IntGauge,
    generation: IntGauge,
    entries: IntGaugeVec,
    pub(crate) broken: IntGauge,
    pub(crate) from_bucket: IntGauge,
    pub(crate) reloads: IntCounterVec,
    pub(crate) unreadable: IntCounter,
    pub(crate) unsure: Gauge,
}

impl RightsMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let made = Self {
            hash: metrics.gauge(
                "roomcast_policy_hash",
                "48 bits of the hash of the policy in force: services with equal ones agree.",
            )?,
            generation: metrics.gauge(
                "roomcast_rights_generation",
                "How often policy, grants or revocations have changed since the start.",
            )?,
            entries: metrics.gauge_vec(
                "roomcast_acl_entries",
                "Entries of the acl bucket in force, by kind: grant, revocation.",
                &["kind"],
            )?,
            broken: metrics.gauge(
                "roomcast_policy_broken",
                "1 while the newest policy has mistakes and the one before is in force.",
            )?,
            from_bucket: metrics.gauge(
                "roomcast_policy_from_cfg",
                "1 while the policy comes from the cfg bucket and not from the file.",
            )?,
            reloads: metrics.counter_vec(
                "roomcast_policy_reloads_total",
                "Policies looked at because they changed, by outcome: taken, broken (mistakes in it), unreadable (no such file, too large).",
                &["outcome"],
            )?,
            unreadable: metrics.counter(
                "roomcast_acl_unreadable_total",
                "Entries of the acl bucket that say nothing because they cannot be read.",
            )?,
            unsure: metrics.float_gauge(
                "roomcast_control_unsure_seconds",
                "Time since NATS last said that no newer policy, grant or revocation exists.",
            )?,
        };
        for outcome in ["taken", "broken", "unreadable"] {
            made.reloads.with_label_values(&[outcome]);
        }
        Ok(made)
    }

    pub(crate) fn in_force(&self, in_force: &InForce) {
        let hash = in_force.policy.fingerprint() & ((1 << HASH_BITS) - 1);
        self.hash.set(i64::try_from(hash).unwrap_or(0));
        self.generation
            .set(i64::try_from(in_force.generation).unwrap_or(i64::MAX));
        let (grants, revocations) = kinds(&in_force.acl);
        self.entries.with_label_values(&["grant"]).set(grants);
        self.entries.with_label_values(&["revocation"]).set(revocations);
    }
}

fn kinds(acl: &acl::Acl) -> (i64, i64) {
    acl.after("").fold((0, 0), |(grants, revocations), (key, _)| {
        match Key::parse(key).is_some_and(|key| key.is_revocation()) {
            true => (grants, revocations + 1),
            false => (grants + 1, revocations),
        }
    })
}
