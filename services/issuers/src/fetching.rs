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
    /// with, and degraded while an issuer's keys cannot be fetched or it publishes none.
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
        let was_failing = std::mem::replace(&mut self.failing, wrong.is_some());
        let is_news = outcome == "changed" || was_failing != self.failing;
        let words = match wrong {
            None if self.published.endpoint.is_empty() => {
                let words =
                    format!("keys of issuer {issuer}: {url} publishes none, so its tokens are refused");
                if is_news {
                    tracing::warn!(%issuer, "{words}");
                }
                words
            }
            None => {
                if is_news {
                    tracing::info!(%issuer, "the keys of issuer {issuer} were fetched from {url}");
                }
                return self.latch.ready();
            }
            Some(wrong) => {
                let words = format!("keys of issuer {issuer}: {url} {wrong}");
                if is_news {
                    tracing::warn!(%issuer, "{words}; those fetched before stay");
                }
                words
            }
        };
        if self.verifier.has_keys() {
            self.latch.degraded(words);
        } else {
            self.latch.not_ready(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;
    use roomcast_access::jwks::Schedule;
    use roomcast_chassis::readiness::Readiness;

    use super::*;

    /// The public key of RFC 8037, appendix A.
    const ONE: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    const NONE: &str = r#"{"keys":[]}"#;

    /// What is told after each of several answers: whether the process is ready, and what an operator should know.
    #[test]
    fn keys_that_fail_and_keys_that_are_none_are_told_apart() {
        #[track_caller]
        fn check(answers: &[(&str, bool, &str)]) {
            let readiness = Readiness::new();
            let endpoint = Endpoint::new(Schedule {
                interval_secs: 1,
                refresh_secs: 1,
            });
            let mut fetching = Fetching {
                verifier: Verifier::of("roomcast".to_owned()).fetching("i".to_owned(), endpoint.clone()),
                fetcher: Fetcher::new(LIMITS, false).unwrap(),
                fetches: IntCounterVec::new(Opts::new("fetches", "Fetches."), &["outcome"]).unwrap(),
                latch: readiness.latch("keys 1", "not fetched yet"),
                failing: false,
                published: Published {
                    issuer: "i".to_owned(),
                    url: Url::parse("http://127.0.0.1/keys").unwrap(),
                    endpoint,
                },
            };
            for (second, (answer, ready, told)) in (0..).zip(answers) {
                let now = Duration::from_secs(second);
                assert!(fetching.published.endpoint.begin(now));
                let fetched = fetching.published.endpoint.finish(now, Some(answer.as_bytes()));
                fetching.tell(fetched, None);
                let report = readiness.report();
                let note = report.degraded.get("keys 1").map_or("", String::as_str);
                assert_eq!(report.ready, *ready, "{answer}: {report:?}");
                assert_eq!(note.is_empty(), told.is_empty(), "{answer}: {report:?}");
                assert!(note.contains(told), "{answer}: {report:?}");
            }
        }
        check(&[
            ("<html>", false, ""),
            (ONE, true, ""),
            ("<html>", true, "not a JWKS"),
        ]);
        // Nobody ever came in: as long as there is no key, others serve.
        check(&[(NONE, false, ""), (NONE, false, ""), (ONE, true, "")]);
        // Taken back: tokens are refused here as everywhere, and not by silence.
        check(&[
            (ONE, true, ""),
            (NONE, true, "publishes none"),
            (NONE, true, "publishes none"),
            ("<html>", true, "not a JWKS"),
            (NONE, true, "publishes none"),
            (ONE, true, ""),
        ]);
    }
}
