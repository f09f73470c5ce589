//! Asks all admin ports at once what they say of themselves.

use std::time::Instant;

use futures_util::future::join_all;
use roomcast_chassis::process::Failure;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::seen::{Connections, Gateway, Port, Said, Seen};
use crate::http::{Http, HttpError};
use crate::terminal::harmless;

/// Fewest rooms asked of a gateway: a room that is large here and small there is then seen at both.
const ROOMS_MIN: usize = 100;

/// Whom to ask, and as whom.
#[derive(Debug)]
pub(super) struct Asker {
    ports: Vec<String>,
    token: String,
    http: Http,
}

impl Asker {
    /// Addresses of admin ports, each once.
    ///
    /// # Errors
    /// 64: one is no `http://` address.
    pub(super) fn new(addresses: &[String], token: String, http: Http) -> Result<Self, Failure> {
        let mut ports = Vec::new();
        for address in addresses.iter().map(|address| address.trim()) {
            let port = address
                .strip_prefix("http://")
                .map(|rest| rest.trim_end_matches('/'));
            match port.filter(|port| port.parse::<http::uri::Authority>().is_ok()) {
                Some(port) if !ports.iter().any(|known| known == port) => ports.push(port.to_owned()),
                Some(_) => {}
                None => {
                    return Err(Failure::settings(format!(
                        "{} is not an http:// address of an admin port",
                        harmless(address)
                    )));
                }
            }
        }
        Ok(Self { ports, token, http })
    }

    /// Asks everybody. Whoever does not answer is part of the answer.
    pub(super) async fn look(&self, at: Instant, rooms: usize) -> Seen {
        let ports = self.ports.iter().map(async |address| Port {
            address: address.clone(),
            said: self.port(address, rooms).await.unwrap_or_else(Said::Nothing),
        });
        Seen {
            at,
            ports: join_all(ports).await,
        }
    }

    async fn port(&self, address: &str, rooms: usize) -> Result<Said, String> {
        #[derive(Deserialize)]
        struct Who {
            service: String,
        }
        let statistics: Value = self.get(address, "statistics").await?;
        let who = Who::deserialize(&statistics).map_err(|_| "its statistics name no service".to_owned())?;
        match who.service.as_str() {
            "roomcast-edge-gateway" => {
                let rooms = rooms.max(ROOMS_MIN);
                let path = format!("rooms?order=members&limit={rooms}");
                let slow = format!("connections?slow=true&limit={rooms}");
                let slow: Connections = self.get(address, &slow).await?;
                Ok(Said::Gateway(Box::new(Gateway {
                    statistics: read(statistics)?,
                    rooms: self.get(address, &path).await?,
                    slow: slow.connections,
                })))
            }
            "roomcast-ingest" => Ok(Said::Ingest(read(statistics)?)),
            "roomcast-metrics-aggregator" => Ok(Said::Aggregator(read(statistics)?)),
            other => Err(format!("it is {}, which is not known here", harmless(other))),
        }
    }

    async fn get<T: DeserializeOwned>(&self, address: &str, path: &str) -> Result<T, String> {
        let url = format!("http://{address}/admin/v1/{path}");
        let answer = self
            .http
            .get_as(&url, &self.token)
            .await
            .map_err(|error| match error {
                HttpError::Request(why) => why,
                HttpError::Unreachable(why) => match why.strip_prefix(&format!("{url}: ")) {
                    Some(why) => why.to_owned(),
                    None => why,
                },
            })?;
        if answer.status != 200 {
            let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or_default();
            return Err(match answer.status.as_u16() {
                404 => "no admin API: it has no admin key, or nothing is at this address".to_owned(),
                status => format!("{status} {}", harmless(detail)),
            });
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("statistics: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_are_taken_once_and_others_refused() {
        let ask = |addresses: &[&str]| {
            let addresses: Vec<String> = addresses.iter().map(|&address| address.to_owned()).collect();
            Asker::new(&addresses, String::new(), Http::new(Duration::from_secs(1))).map(|asker| asker.ports)
        };
        let ports = ask(&["http://127.0.0.1:1/", " http://h:2", "http://127.0.0.1:1"]).unwrap();
        assert_eq!(ports, ["127.0.0.1:1", "h:2"]);
        for wrong in ["https://h:1", "h:1", "http://h:1/admin", "", "http://"] {
            assert!(ask(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn whoever_does_not_answer_is_part_of_the_answer() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let http = Http::new(Duration::from_secs(2));
        let asker = Asker::new(&[format!("http://{free}")], "t".to_owned(), http).unwrap();
        let seen = asker.look(Instant::now(), 1).await;
        let why = seen.first_silence().unwrap();
        assert!(
            why.starts_with(&format!("{free}: ")) && why.contains("refused"),
            "{why}"
        );
    }
}
