//! Brings the keys that issuers publish: one small task per address, which asks when to fetch and tells what came.

use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use roomcast_access::jwks::Fetched;
use roomcast_access::{Endpoint, Verifier};
use roomcast_chassis::fetch::{FetchError, Fetcher, Limits, Url};
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::readiness::Latch;
use roomcast_chassis::shutdown::Stage;
use tokio_util::sync::CancellationToken;

use crate::settings::Trusted;

/// Bounds of one fetch: an issuer that needs longer is as good as away, and no JWKS is larger.
const LIMITS: Limits = Limits {
    within: Duration::from_secs(3),
    bytes_max: roomcast_access::keys::FILE_BYTES_MAX,
};
/// How often an endpoint is asked whether a fetch is due. Tokens that wait for one are told to come back in a second.
const LOOK: Duration = Duration::from_millis(250);

/// An issuer that publishes its keys.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) issuer: String,
    pub(crate) url: Url,
    pub(crate) endpoint: Endpoint,
}

/// Fetches one issuer's keys for as long as the process lives.
#[derive(Debug)]
pub struct Fetching {
    published: Published,
    verifier: Verifier,
    fetcher: Fetcher,
    fetches: IntCounterVec,
    latch: Latch,
    /// Whether the last fetch failed: said once, not every interval.
    failing: bool,
}

impl Trusted {
    /// Starts fetching, on the stage that finishes last but one; the process is ready when there is a key to check a token
    /// with, and degraded while an issuer's keys cannot be fetched.
    ///
    /// # Errors
    /// No certificates to trust (69); a metric that cannot be declared (70).
    pub fn keep_fetching(self, context: &Context) -> Result<(), Failure> {
        let fetches = context.metrics.counter_vec(
            "roomcast_issuer_fetches_total",
            "Fetches of token issuers' keys, by what came of them.",
            &["outcome"],
        )?;
        let tls = self.published.iter().any(|published| published.url.is_tls());
        let fetcher = Fetcher::new(LIMITS, tls)
            .map_err(|error| Failure::unavailable(format!("keys of issuers cannot be fetched: {error}")))?;
        let finish = context.shutdown.stage(Stage::Finish);
        for (index, published) in self.published.into_iter().enumerate() {
            let fetching = Fetching {
                latch: context
                    .readiness
                    .latch(format!("keys {}", index + 1), "not fetched yet"),
                verifier: self.verifier.clone(),
                fetcher: fetcher.clone(),
                fetches: fetches.clone(),
                failing: false,
                published,
            };
            finish.spawn(fetching.run(finish.token()));
        }
        Ok(())
    }
}

impl Fetching {
    async fn run(mut self, ending: CancellationToken) {
        let started = Instant::now();
        while !ending.is_cancelled() {
            if self.published.endpoint.begin(started.elapsed()) {
                tokio::select! {
                    answer = self.fetcher.get(&self.published.url) => {
                        let fetched = self.published.endpoint.finish(started.elapsed(), answer.as_deref().ok());
                        self.tell(fetched, answer.err());
                    }
                    () = ending.cancelled() => return,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = ending.cancelled() => return,
            }
        }
    }

    fn tell(&mut self, fetched: Fetched, error: Option<FetchError>) {
        let Published { issuer, url, .. } = &self.published;
        let (outcome, wrong) = match (fetched, error) {
            (Fetched::Changed, _) => ("changed", None),
            (Fetched::Same, _) => ("same", None),
            (Fetched::Unusable(error), _) => ("unusable", Some(error.to_string())),
            (Fetched::Away, Some(error)) => (error.label(), Some(error.to_string())),
            (Fetched::Away, None) => ("unreachable", Some("no answer".to_owned())),
        };
        self.fetches.with_label_values(&[outcome]).inc();
        let Some(wrong) = wrong else {
            self.latch.ready();
            if outcome == "changed" || self.failing {
                tracing::info!(%issuer, "the keys of issuer {issuer} were fetched from {url}");
            }
            self.failing = false;
            return;
        };
        let words = format!("keys of issuer {issuer}: {url} {wrong}");
        if !self.failing {
            tracing::warn!(%issuer, "{words}; those fetched before stay");
        }
        self.failing = true;
        if self.verifier.has_keys() {
            self.latch.degraded(words);
        } else {
            self.latch.not_ready(words);
        }
    }
}
