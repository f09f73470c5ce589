//! Builds the crate anew when the page was built anew, also for the first time.

fn main() {
    let (page, built) = ("../../clients/dashboard", "../../clients/dashboard/dist");
    // A path that is not there would be looked for, and the crate built, every time.
    let watched = if std::path::Path::new(built).is_dir() {
        built
    } else {
        page
    };
    println!("cargo::rerun-if-changed={watched}");
}
