//! Which build this is: shown by `--version`, logged at start, exported as `roomcast_build_info`.

/// The version of the workspace, e.g. `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit: twelve hex digits in a release build, what `ROOMCAST_COMMIT` said at build time, `development`
/// in a debug build, `unknown` outside git.
pub const COMMIT: &str = env!("ROOMCAST_BUILD_COMMIT");

/// The line `--version` prints.
#[must_use]
pub fn line(service: &str) -> String {
    format!("{service} {VERSION} ({COMMIT})")
}
