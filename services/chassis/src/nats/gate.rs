//! The version gate: which servers we work with. Older ones accept newer fields silently and do not honour them,
//! so a check at start is the only protection.

/// The oldest server: clustering and I/O error handling we rely on came with it.
pub const VERSION_MIN: (u64, u64, u64) = (2, 14, 0);
/// The JetStream API level that version reports.
pub const API_LEVEL_MIN: u64 = 4;

/// Why a server is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its version is below [`VERSION_MIN`] or cannot be read.
    #[error("NATS server is version {0:?}: 2.14.0 or newer is needed; upgrade the server")]
    Version(String),
    /// Its JetStream API level is below [`API_LEVEL_MIN`].
    #[error(
        "NATS server has JetStream API level {0}: level 4 (server 2.14) or higher is needed; upgrade the server"
    )]
    ApiLevel(u64),
    /// It answers that JetStream is off.
    #[error(
        "NATS server has no JetStream for this account ({0}); switch it on in the server's configuration"
    )]
    NoJetStream(String),
}

/// Decides from the version a server announces and the API level it answers; `None` where the account may not ask.
pub(super) fn judge(version: &str, api_level: Option<u64>) -> Result<(), Refused> {
    match parse(version) {
        Some(version) if version >= VERSION_MIN => {}
        _ => return Err(Refused::Version(version.to_owned())),
    }
    match api_level {
        Some(level) if level < API_LEVEL_MIN => Err(Refused::ApiLevel(level)),
        _ => Ok(()),
    }
}

/// `major.minor.patch`; what follows a `-` (a release candidate) is ignored.
fn parse(version: &str) -> Option<(u64, u64, u64)> {
    let numbers = version.split_once('-').map_or(version, |(numbers, _)| numbers);
    let mut parts = numbers.trim_start_matches('v').split('.').map(str::parse::<u64>);
    let version = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn versions_compare_as_numbers(major in 0_u64..4, minor in 0_u64..30, patch in 0_u64..30, suffix in "(-[a-zA-Z0-9.]{0,8})?") {
            let passes = judge(&format!("{major}.{minor}.{patch}{suffix}"), None).is_ok();
            prop_assert_eq!(passes, (major, minor, patch) >= VERSION_MIN);
        }

        #[test]
        fn no_text_makes_it_panic(version in ".{0,40}", level in proptest::option::of(any::<u64>())) {
            let _ = judge(&version, level);
        }
    }

    #[track_caller]
    fn check(version: &str, level: Option<u64>, expected: Result<(), Refused>) {
        assert_eq!(judge(version, level), expected, "{version} {level:?}");
    }

    #[test]
    fn servers_from_2_14_with_level_4_pass() {
        let old = |version: &str| Err(Refused::Version(version.to_owned()));
        check("2.14.0", Some(4), Ok(()));
        check("2.15.1", Some(5), Ok(()));
        check("2.15.1", None, Ok(()));
        check("3.0.0", None, Ok(()));
        check("2.14.0-RC.2", Some(4), Ok(()));
        check("2.13.9", Some(4), old("2.13.9"));
        check("2.9.10", None, old("2.9.10"));
        check("1.99.99", Some(9), old("1.99.99"));
        check("", None, old(""));
        check("2.14", None, old("2.14"));
        check("2.14.x", None, old("2.14.x"));
        check("2.14.0.1", None, old("2.14.0.1"));
        check("2.14.0", Some(3), Err(Refused::ApiLevel(3)));
    }
}
