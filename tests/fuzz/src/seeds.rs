//! What every run begins with: the golden vectors of the contract, the policies of the scenarios, and what was found before.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Inputs for a target, the same in every run.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut seeds = match target {
        "frame" => [
            vectors("client_frames.json"),
            vectors("client_frames_refused.json"),
            vectors("client_frames_protobuf_refused.json"),
            vectors("server_frames.json"),
        ]
        .concat(),
        "envelope" => [vectors("events.json"), vectors("events_refused.json")].concat(),
        "policy" => files(&root().join("deploy/scenarios"), "policy.yaml"),
        "subject" => [
            vectors("names.json"),
            texts(&[
                "in.main.bookings.all",
                "in.GW.main.user.u1.all",
                "in.AGG.main.a.b.c.staff",
                "inq.main.erp.property.42.staff",
                "evt.13.main.property.42.staff",
                "slive.03.main.bookings.all.revenue=2Ftry",
            ]),
        ]
        .concat(),
        "cursor" => texts(&[
            "00c0ffee.1041.77.a2",
            "00c0ffee.0.0.0",
            "ffffffff.1.18446744073709551615.ffff",
        ]),
        "token" => texts(&[
            "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIn0.eyJpc3MiOiJodHRwczovL2lzc3VlciIsImF1ZCI6InJvb21jYXN0Iiwic3ViIjoidTEiLCJleHAiOjE3OTAwMDA5MDB9.AAAA",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9.",
            r#"{"keys":[{"kty":"oct","kid":"h","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0","alg":"HS256"}]}"#,
        ]),
        _ => [
            &b"\x01\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..],
            b"\x02\x01\x83\0\0\0\0abc\x80\x83\0\0\0\0def",
            b"\x03\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
            b"\x04\x82\xfe\x00\x7e\0\0\0\0",
        ]
        .map(<[u8]>::to_vec)
        .to_vec(),
    };
    seeds.extend(files(&root().join("tests/fuzz/corpus").join(target), ""));
    seeds
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The inputs in a file of vectors: every text, and every hex as bytes.
fn vectors(file: &str) -> Vec<Vec<u8>> {
    let text =
        std::fs::read_to_string(root().join("proto/vectors").join(file)).expect("the vectors are there");
    let rows: Vec<Value> = serde_json::from_str(&text).expect("vectors are JSON");
    let member = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    rows.iter()
        .flat_map(|row| {
            let plain = ["text", "json", "token", "escape", "room"]
                .into_iter()
                .filter_map(|name| member(row, name))
                .map(String::into_bytes);
            let hex = member(row, "hex").map(|hex| bytes_of(&hex));
            plain.chain(hex).collect::<Vec<_>>()
        })
        .collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// All files below `dir` whose name ends so, in the order of their paths.
fn files(dir: &Path, ending: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.extend(std::fs::read(&path));
        }
    }
    found
}
