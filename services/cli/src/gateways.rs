//! All gateways of a system, asked one after the other over their admin ports.

use std::time::Duration;

use http::StatusCode;
use roomcast_chassis::process::Failure;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::dev_env::{self, DevEnv};
use crate::http::{Answer, Http, HttpError};
use crate::terminal::{complain, harmless};

/// Time for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a gateway calls itself.
const SERVICE: &str = "roomcast-edge-gateway";

/// Where they are, and as whom they are asked.
#[derive(Debug)]
pub(crate) struct Gateways {
    addresses: Vec<String>,
    token: String,
    http: Http,
}

impl Gateways {
    /// Finds the gateways among the admin ports given, or else those of ROOMCAST_ADMIN. Whoever does not answer is complained about:
    /// it may be a gateway.
    ///
    /// # Errors
    /// 69: none answers, or it is not known where they are or as whom to ask.
    pub(crate) async fn find(admin: &[String]) -> Result<Self, Failure> {
        let env = DevEnv::load()?;
        let known = match admin.is_empty() {
            true => env
                .require(dev_env::ADMIN)?
                .split(',')
                .map(str::to_owned)
                .collect(),
            false => admin.to_vec(),
        };
        let mut gateways = Self {
            addresses: Vec::new(),
            token: env.require(dev_env::ADMIN_TOKEN)?,
            http: Http::new(ANSWER_WITHIN),
        };
        for address in known {
            let address = address.trim().trim_end_matches('/').to_owned();
            match gateways.get::<Value>(&address, "statistics").await {
                Ok(said) if said["service"] == SERVICE => gateways.addresses.push(address),
                Ok(_) => {}
                Err(failure) => complain(&failure.message),
            }
        }
        match gateways.addresses.is_empty() {
            true => Err(Failure::unavailable("no gateway answers")),
            false => Ok(gateways),
        }
    }

    /// Their admin ports.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Asks one.
    ///
    /// # Errors
    /// 69: it does not answer, or refuses; in its own words.
    pub(crate) async fn get<T: DeserializeOwned>(&self, address: &str, path: &str) -> Result<T, Failure> {
        let url = format!("{address}/admin/v1/{path}");
        read(&url, self.http.get_as(&url, &self.token).await)
    }

    /// Sends one JSON.
    ///
    /// # Errors
    /// As [`Gateways::get`].
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        body: &Value,
    ) -> Result<T, Failure> {
        let url = format!("{address}/admin/v1/{path}");
        let body = body.to_string().into();
        let answer = self.http.post(&url, &self.token, "application/json", body).await;
        read(&url, answer)
    }
}

fn read<T: DeserializeOwned>(url: &str, answer: Result<Answer, HttpError>) -> Result<T, Failure> {
    let answer = answer.map_err(|error| Failure::unavailable(error.to_string()))?;
    if answer.status != StatusCode::OK {
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no admin API is there");
        let status = answer.status.as_u16();
        return Err(Failure::unavailable(format!(
            "{url}: {status} {}",
            harmless(detail)
        )));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::unavailable(format!("{url}: it answers something else: {error}")))
}

/// A value as a part of a query.
pub(crate) fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_one_part_of_a_query() {
        assert_eq!(escaped("bk-1_x.y"), "bk-1_x.y");
        assert_eq!(escaped("a&limit=1#ü"), "a%26limit%3D1%23%C3%BC");
    }
}
