//! The Dockerfile knows the code: what it builds is there, what a build reads is in its context, and what is deployed is one of its images.
//!
//! That the images can be built and run is tried by `make images`; this is what every change may break, and costs nothing to see.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use roomcast_tidy::{Source, files, read, root, shipped_rust};

const DOCKERFILE: &str = "deploy/images/Dockerfile";

/// Words behind a mark, up to what cannot be part of one.
fn behind(text: &str, mark: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.split(mark)
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| part(*c)).collect::<String>())
        .map(|word| word.trim_end_matches('.').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// Instructions, with what goes on in the next line.
fn instructions(dockerfile: &str) -> Vec<String> {
    let joined = dockerfile.replace("\\\n", " ");
    joined
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

/// Stages by name, each with its instructions.
fn stages(dockerfile: &str) -> Vec<(String, Vec<String>)> {
    let mut stages: Vec<(String, Vec<String>)> = Vec::new();
    for line in instructions(dockerfile) {
        if let Some((_, name)) = line
            .strip_prefix("FROM ")
            .and_then(|from| from.split_once(" AS "))
        {
            stages.push((name.trim().to_owned(), Vec::new()));
        } else if let Some((_, lines)) = stages.last_mut() {
            lines.push(line);
        }
    }
    stages
}

/// What the context has: paths that `.dockerignore` lets in.
fn let_in(path: &str) -> bool {
    read(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .any(|allowed| path == allowed || path.starts_with(&format!("{allowed}/")))
}

/// Files that a build of the services reads beside the sources of its own crate.
fn read_by_the_build() -> BTreeSet<String> {
    let mut found = BTreeSet::from(["Cargo.toml", "Cargo.lock"].map(str::to_owned));
    for member in read("Cargo.toml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","))
    {
        found.insert(member.to_owned());
    }
    for source in shipped_rust() {
        for (_, line) in source.shipped() {
            for mark in ["include_str!(\"", "include_bytes!(\""] {
                for name in line.split(mark).skip(1).filter_map(|rest| rest.split('"').next()) {
                    let mut whole = PathBuf::new();
                    let folder = Path::new(&source.path)
                        .parent()
                        .map_or_else(PathBuf::new, Path::to_owned);
                    for part in folder.join(name).components() {
                        if part == Component::ParentDir {
                            whole.pop();
                        } else {
                            whole.push(part);
                        }
                    }
                    found.insert(whole.to_string_lossy().into_owned());
                }
            }
        }
    }
    found
}

/// What the Dockerfile is held against.
struct Around {
    code: String,
    binaries: BTreeSet<String>,
    deployed: Vec<Source>,
}

impl Around {
    fn read() -> Self {
        let manifests: String = files("services", "Cargo.toml")
            .into_iter()
            .map(|file| file.text)
            .collect();
        let mut binaries = behind(&manifests, "name = \"");
        binaries.extend(shipped_rust().iter().filter_map(|file| {
            let name = file.path.split_once("/src/bin/")?.1;
            name.strip_suffix(".rs").map(str::to_owned)
        }));
        let mut deployed = files("k8s", ".yaml");
        deployed.extend(files("deploy/compose", ".yaml"));
        Self {
            code: shipped_rust().into_iter().map(|file| file.text).collect(),
            binaries,
            deployed,
        }
    }
}

/// What is wrong with a Dockerfile.
fn complaints(dockerfile: &str, around: &Around) -> Vec<String> {
    let mut found = Vec::new();
    let stages = stages(dockerfile);
    let names: BTreeSet<&str> = stages.iter().map(|(name, _)| name.as_str()).collect();
    let rust = behind(&read("rust-toolchain.toml"), "channel = \"");
    if behind(dockerfile, "ARG RUST_VERSION=") != rust {
        found.push(format!("another Rust than {rust:?}"));
    }
    let built: String = stages
        .iter()
        .filter(|(name, _)| name == "built")
        .flat_map(|(_, lines)| lines.clone())
        .collect();
    for (name, lines) in &stages {
        let copied: BTreeSet<String> = lines
            .iter()
            .filter(|line| line.starts_with("COPY --from=built"))
            .flat_map(|line| behind(line, "/out/"))
            .collect();
        for binary in copied.iter().filter(|binary| !binary.ends_with(".crt")) {
            if !behind(&built, "/release/").contains(binary) || !around.binaries.contains(binary) {
                found.push(format!("{name}: {binary} is not built"));
            }
        }
        for started in lines
            .iter()
            .filter(|line| line.starts_with("ENTRYPOINT"))
            .flat_map(|line| behind(line, "/usr/local/bin/"))
        {
            if !copied.contains(&started) {
                found.push(format!("{name}: starts {started}, which it has not"));
            }
        }
        for line in lines
            .iter()
            .filter(|line| line.starts_with("COPY ") && !line.contains("--from="))
        {
            let mut sources: Vec<&str> = line.split_whitespace().skip(1).collect();
            sources.pop();
            for source in sources.into_iter().filter(|source| *source != ".") {
                if !root().join(source).exists() || !let_in(source) {
                    found.push(format!("{name}: {source} is not in the context"));
                }
            }
        }
    }
    for setting in behind(dockerfile, "ROOMCAST_")
        .iter()
        .filter(|setting| *setting != "COMMIT")
    {
        if !around.code.contains(&format!("\"ROOMCAST_{setting}\"")) {
            found.push(format!("ROOMCAST_{setting} is not in the code"));
        }
    }
    // The same packages as the script builds that stands in for the stage `built`.
    let packages = |text: &str| {
        let mut named = behind(text, " -p ");
        named.retain(|name| name.starts_with("roomcast-"));
        named
    };
    let script = packages(&read("deploy/tools/images.sh"));
    if packages(&built) != script {
        found.push(format!(
            "builds {:?}, deploy/tools/images.sh {script:?}",
            packages(&built)
        ));
    }
    for manifest in &around.deployed {
        for image in
            behind(&manifest.text, "image: roomcast/").union(&behind(&manifest.text, "image: \"roomcast/"))
        {
            if !names.contains(image.as_str()) {
                found.push(format!("{}: no image {image}", manifest.path));
            }
        }
    }
    found
}

#[test]
fn the_dockerfile_builds_what_there_is_and_what_is_deployed() {
    let (dockerfile, around) = (read(DOCKERFILE), Around::read());
    assert_eq!(complaints(&dockerfile, &around), Vec::<String>::new());
    for (right, wrong) in [
        ("ARG RUST_VERSION=1.", "ARG RUST_VERSION=0."),
        ("/out/roomcast-ingest /usr", "/out/roomcast-intake /usr"),
        (
            "ENTRYPOINT [\"/usr/local/bin/roomcast-ingest",
            "ENTRYPOINT [\"/usr/local/bin/roomcast-edge-gateway",
        ),
        ("FROM service AS ingest", "FROM service AS intake"),
        ("ROOMCAST_ADMIN_LISTEN=", "ROOMCAST_ADMIN_LISTENS="),
        ("-p roomcast-cli", ""),
        ("COPY clients ./", "COPY clients RELEASING.md ./"),
    ] {
        let broken = dockerfile.replace(right, wrong);
        assert_ne!(broken, dockerfile, "{right}");
        assert_ne!(
            complaints(&broken, &around),
            Vec::<String>::new(),
            "nothing sees {wrong}"
        );
    }
}

#[test]
fn the_context_of_images_has_what_a_build_reads() {
    let needed = read_by_the_build();
    assert!(needed.len() > 15, "{needed:?}");
    for path in needed {
        assert!(
            let_in(&path),
            "{path} is read by a build, and .dockerignore leaves it out"
        );
    }
}

/// Versions that a text names for our images.
fn versions(text: &str) -> BTreeSet<String> {
    let mut found = behind(text, "${ROOMCAST_VERSION:-");
    for image in ["edge-gateway", "ingest", "metrics-aggregator", "roomcast"] {
        found.extend(behind(text, &format!("roomcast/{image}:")));
        found.extend(behind(text, &format!("roomcast/{image}, newTag: ")));
    }
    found
}

#[test]
fn what_is_deployed_is_this_version() {
    let this = behind(&read("Cargo.toml"), "[workspace.package]\nversion = \"");
    let mut seen = 0;
    let texts = files("k8s", ".yaml")
        .into_iter()
        .chain(files("deploy/compose", ""))
        .chain(files("deploy/images", ".md"));
    for source in texts {
        let named = versions(&source.text);
        assert!(named.is_subset(&this), "{}: {named:?}, not {this:?}", source.path);
        seen += named.len();
    }
    assert!(seen > 8, "{seen}");
    for package in [
        "clients/package.json",
        "clients/js/package.json",
        "clients/dashboard/package.json",
    ] {
        assert_eq!(behind(&read(package), "\"version\": \""), this, "{package}");
    }
    assert_ne!(versions("image: roomcast/ingest:0.0.9"), this);
}
