//! The OpenAPI documents of a running system: they are valid, they name what is served and nothing else, and whatever is tried by
//! them is answered as they say.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use roomcast_harness::stack::Stack;
use roomcast_harness::{folder, repository, skip};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::world::{alone, calm, options};

/// Where `make tools` puts the two programs.
const TOOLS: &str = ".tools/python";
/// Examples that are made up for each operation, beside the systematic ones.
const EXAMPLES: u32 = 40;
/// Time for all examples of one document.
const WITHIN: Duration = Duration::from_secs(300);

/// A document, the address it is of, and the token that opens what it describes.
struct Documented {
    name: &'static str,
    base: String,
    token: String,
    document: Value,
}

async fn documents(stack: &Stack) -> anyhow::Result<Vec<Documented>> {
    let admin = |service: &str| {
        stack.ready["admin"][service][0]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let administrator = stack.dev_env("ROOMCAST_ADMIN_TOKEN");
    let mut all = Vec::new();
    for (name, base, token) in [
        (
            "gateway",
            stack.gateways()[0].clone(),
            stack.signer.token("viewer", &["admin"]),
        ),
        (
            "ingest",
            stack.ingests()[0].clone(),
            stack.signer.token("desk", &["desk"]),
        ),
        ("gateway admin", admin("gateway"), administrator.clone()),
        ("ingest admin", admin("ingest"), administrator.clone()),
        ("aggregator admin", admin("aggregator"), administrator.clone()),
    ] {
        let shown = name.ends_with("admin").then_some(token.as_str());
        let answer = stack.http.get(&format!("{base}/openapi.json"), shown).await?;
        ensure!(answer.status == 200, "{name}: {}", answer.text());
        all.push(Documented {
            name,
            base,
            token,
            document: answer.json(),
        });
    }
    Ok(all)
}

/// What has no end.
const STREAM: &str = "text/event-stream";
const METHODS: [&str; 6] = ["get", "post", "put", "delete", "options", "patch"];

/// By construction both come from one list; this is the outside of it.
#[test]
fn what_is_documented_is_served_and_what_is_not_is_not() {
    calm(async |stack| {
        for Documented {
            name,
            base,
            token,
            document,
        } in documents(stack).await?
        {
            let paths = document["paths"].as_object().cloned().unwrap_or_default();
            ensure!(paths.len() >= 2, "{name} has paths");
            for (path, item) in paths {
                for method in METHODS {
                    let concrete = path.replace(['{', '}'], "");
                    let url = format!("{base}{concrete}");
                    let documented = item.get(method).map(|operation| &operation["responses"]);
                    // A stream has no end: HEAD is answered as GET would begin.
                    let endless = documented.is_some_and(|all| all["200"]["content"].get(STREAM).is_some());
                    let asked = if endless { "head" } else { method };
                    let answer = stack.http.call(&asked.to_ascii_uppercase(), &url, &token).await?;
                    let status = answer.status.to_string();
                    let unknown = !endless && answer.json()["detail"] == "there is nothing at this address";
                    match documented {
                        Some(responses) => {
                            ensure!(
                                answer.status != 405,
                                "{name}: {method} {path} is documented, not served"
                            );
                            ensure!(
                                !unknown || path == "/page.json",
                                "{name}: {method} {path} is documented, not there"
                            );
                            ensure!(
                                responses.get(&status).is_some(),
                                "{name}: {method} {path} answers {status}: {}",
                                answer.text()
                            );
                        }
                        None => ensure!(
                            answer.status == 405 || (method == "options" && answer.status < 500),
                            "{name}: {method} {path} is not documented and answers {status}"
                        ),
                    }
                }
            }
            for nowhere in ["/v1/nothing", "/v1", "/admin/v2/log", "/openapi.yaml"] {
                let answer = stack.http.get(&format!("{base}{nowhere}"), Some(&token)).await?;
                ensure!(
                    answer.status == 404,
                    "{name}: {nowhere} answers {}",
                    answer.status
                );
            }
        }
        Ok(())
    });
}

/// What conformance suites speak to is in no gateway that somebody starts, whatever it was built with.
#[test]
fn no_gateway_sends_back_what_it_is_sent() {
    calm(async |stack| {
        for gateway in stack.gateways() {
            for (path, expected) in [
                ("/v1/ws", "HTTP/1.1 101 "),
                ("/v1/echo", "HTTP/1.1 404 "),
                ("/v1/nothing", "HTTP/1.1 404 "),
            ] {
                let mut stream = TcpStream::connect(gateway.trim_start_matches("http://")).await?;
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await?;
                let mut answer = [0; 13];
                stream.read_exact(&mut answer).await?;
                let answer = String::from_utf8_lossy(&answer);
                ensure!(answer == expected, "{path}: {answer}");
            }
        }
        Ok(())
    });
}

#[test]
fn every_refusal_is_a_problem_with_a_code_of_the_closed_list() {
    calm(async |stack| {
        for Documented { name, document, .. } in documents(stack).await? {
            let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].clone();
            let codes = codes.as_array().cloned().unwrap_or_default();
            ensure!(codes.len() > 25, "{name}");
            for (path, item) in document["paths"].as_object().into_iter().flatten() {
                for (method, operation) in item.as_object().into_iter().flatten() {
                    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                        let refused = status.starts_with('4') || status.starts_with('5');
                        let Some(content) = response.get("content").filter(|_| refused) else {
                            continue;
                        };
                        let health = ["/readyz", "/startupz"].contains(&path.as_str());
                        let problem = &content["application/problem+json"]["schema"];
                        ensure!(
                            health || problem["$ref"] == "#/components/schemas/Problem",
                            "{name}: {method} {path} {status}"
                        );
                        let named = problem["properties"]["code"]["enum"]
                            .as_array()
                            .cloned()
                            .unwrap_or_default();
                        ensure!(health || !named.is_empty() && named.iter().all(|code| codes.contains(code)));
                    }
                }
            }
        }
        Ok(())
    });
}

/// Where a schema stands as `true` or `false`. OpenAPI allows it, but programs that make code of a document stumble over it, and it
/// says less than `{ "description": … }`.
fn boolean_schemas(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{path}/{name}");
                let schemas: Vec<(String, &Value)> = match (name.as_str(), member) {
                    ("schema" | "items", schema) => vec![(path.clone(), schema)],
                    ("properties" | "schemas", Value::Object(named)) => named
                        .iter()
                        .map(|(name, schema)| (format!("{path}/{name}"), schema))
                        .collect(),
                    _ => Vec::new(),
                };
                found.extend(
                    schemas
                        .into_iter()
                        .filter(|(_, schema)| schema.is_boolean())
                        .map(|(at, _)| at),
                );
                boolean_schemas(member, &path, found);
            }
        }
        Value::Array(members) => {
            for (number, member) in members.iter().enumerate() {
                boolean_schemas(member, &format!("{path}/{number}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn no_schema_is_a_boolean() {
    let mut found = Vec::new();
    let planted = serde_json::json!({ "a": { "schema": { "properties": { "data": true }, "items": false } }, "b": [{ "schema": true }] });
    boolean_schemas(&planted, "", &mut found);
    found.sort_unstable();
    assert_eq!(
        found,
        ["/a/schema/items", "/a/schema/properties/data", "/b/0/schema"]
    );
    calm(async |stack| {
        for Documented { name, document, .. } in documents(stack).await? {
            let mut found = Vec::new();
            boolean_schemas(&document, "", &mut found);
            ensure!(found.is_empty(), "{name}: {found:?}");
        }
        Ok(())
    });
}

/// The two Python programs, or `None` after saying how to get them.
fn tools() -> Option<std::path::PathBuf> {
    let folder = repository().join(TOOLS);
    if folder.join("schemathesis").exists() && folder.join("openapi_spec_validator").exists() {
        return Some(folder);
    }
    skip("schemathesis and openapi-spec-validator", "make tools");
    None
}

async fn run(tools: &Path, within: Duration, arguments: &[String]) -> anyhow::Result<(bool, String)> {
    let own = folder();
    let mut command = Command::new("python3");
    command
        .arg("-m")
        .args(arguments)
        .env("PYTHONPATH", tools)
        // Nothing of the machine's own settings or plugins.
        .env("PYTHONNOUSERSITE", "1")
        .current_dir(own.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output()).await??;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((output.status.success(), said))
}

#[test]
fn the_documents_are_openapi_3_1() {
    let Some(tools) = tools() else { return };
    calm(async |stack| {
        let files = folder();
        for (number, Documented { name, document, .. }) in documents(stack).await?.into_iter().enumerate() {
            ensure!(document["openapi"] == "3.1.0", "{name}");
            let file = files.path().join(format!("{number}.json"));
            std::fs::write(&file, document.to_string())?;
            let file = file.display().to_string();
            let arguments = ["openapi_spec_validator".to_owned(), file];
            let (good, said) = run(&tools, WITHIN, &arguments).await?;
            ensure!(good, "{name}: {said}");
        }
        Ok(())
    });
}

/// Random and systematic requests made from the documents, on a system of their own: they change what is logged and try to end
/// whatever they find. No 5xx, no status, content type or shape that the documents do not have.
#[test]
fn whatever_is_tried_is_answered_as_documented() {
    let Some(tools) = tools() else { return };
    let Some(stack) = Stack::start(&options(&[])) else {
        return;
    };
    alone(async {
        let checks = [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "response_headers_conformance",
            "unsupported_method",
            "ignored_auth",
        ];
        let tried = documents(&stack).await?.into_iter().map(async |documented| {
            let Documented {
                name, base, token, ..
            } = documented;
            let arguments = [
                "schemathesis.cli",
                "run",
                "--no-color",
                "--generation-deterministic",
                "--no-shrink",
                "--continue-on-failure",
                "--phases",
                "examples,coverage,fuzzing",
                "--checks",
                &checks.join(","),
                // It has no end, so it is not tried here.
                "--exclude-path",
                "/v1/sse",
                "--max-examples",
                &EXAMPLES.to_string(),
                "--header",
                &format!("Authorization: Bearer {token}"),
                &format!("{base}/openapi.json"),
            ];
            let (good, said) = run(&tools, WITHIN, &arguments.map(str::to_owned)).await?;
            ensure!(good, "{name}: {said}");
            ensure!(
                said.contains("Coverage") && said.contains("generated"),
                "{name}: {said}"
            );
            anyhow::Ok(())
        });
        futures_util::future::try_join_all(tried).await.map(drop)
    });
}
