//! Every way in which Roomcast says no: one closed list for HTTP, WebSocket, NATS replies and dead letters.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $temporary:literal, $title:literal; )*) => {
        /// A refusal's code. The text is the wire name; the list is closed and only grows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $( $(#[$doc])* $name, )* }

        impl Code {
            /// All codes, for counters and documentation.
            pub const ALL: &'static [Code] = &[ $( Code::$name, )* ];

            /// The name on the wire and in metric labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Code::$name => $text, )* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $( Code::$name => $status, )* }
            }

            /// Whether the same request may succeed later without being changed.
            #[must_use]
            pub const fn temporary(self) -> bool {
                match self { $( Code::$name => $temporary, )* }
            }

            /// A short title that is the same for every occurrence (RFC 9457 `title`).
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $( Code::$name => $title, )* }
            }

            /// Status and name: how a document lists a refusal.
            #[must_use]
            pub const fn listed(self) -> (u16, &'static str) {
                (self.status(), self.as_str())
            }

            /// The code with this wire name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Code> {
                match name { $( $text => Some(Code::$name), )* _ => None }
            }
        }
    };
}

codes! {
    /// Not JSON, or JSON that is not an object or array where one is needed.
    BadJson = "bad_json", 400, false, "The body is not the JSON that is expected here";
    /// A byte sequence that is not UTF-8.
    BadEncoding = "bad_encoding", 400, false, "Text must be UTF-8";
    /// An attribute is missing, of the wrong type or malformed.
    BadEvent = "bad_event", 400, false, "The event is not a valid CloudEvent";
    /// The room's name breaks the grammar.
    BadRoom = "bad_room", 400, false, "The room's name is not one";
    /// `time` or `expirytime` is not RFC 3339.
    BadTime = "bad_time", 400, false, "A time is not RFC 3339";
    /// JSON nested deeper than 32.
    TooDeep = "too_deep", 400, false, "The JSON is nested too deeply";
    /// Larger than the limit.
    TooLarge = "too_large", 413, false, "Larger than the limit";
    /// A request that is malformed in another way.
    BadRequest = "bad_request", 400, false, "The request cannot be understood";
    /// A content type that is not read here.
    UnsupportedType = "unsupported_type", 415, false, "This content type is not accepted here";
    /// A method that does not exist on this path.
    MethodNotAllowed = "method_not_allowed", 405, false, "This method does not exist here";
    /// A path that does not exist.
    NotFound = "not_found", 404, false, "There is nothing at this address";
    /// No, or no valid, token.
    Unauthenticated = "unauthenticated", 401, false, "A valid token is needed";
    /// The token was valid once.
    Expired = "expired", 401, false, "The token has expired";
    /// Absent or not yours: deliberately the same.
    Forbidden = "forbidden", 403, false, "Not there, or not yours";
    /// Said only to holders of `*`.
    UnknownRoom = "unknown_room", 404, false, "No entry of the policy makes this room";
    /// The audience is not a role of the policy.
    UnknownAudience = "unknown_audience", 422, false, "The audience is not a role of the policy";
    /// The data breaks the schema of its type.
    Schema = "schema", 422, false, "The data breaks its schema";
    /// The id is older than the de-duplication window.
    Late = "late", 422, false, "The id is too old to be de-duplicated";
    /// The event's own `expirytime` has passed.
    EventExpired = "event_expired", 422, false, "The event had expired when it arrived";
    /// The room holds as many state keys as it may.
    TooManyKeys = "too_many_keys", 422, false, "The room holds as many keys as it may";
    /// The same id with other content.
    Conflict = "conflict", 409, false, "The same id or key was used with other content";
    /// More requests than allowed.
    Rate = "rate", 429, true, "Too many requests";
    /// More than the tenant's or publisher's share.
    Quota = "quota", 429, true, "The quota is used up";
    /// A limit on connections, subscriptions or the like.
    Limit = "limit", 429, false, "A limit is reached";
    /// NATS or a handler is away; nothing was done.
    Unavailable = "unavailable", 503, true, "Not available at the moment";
    /// It is not known whether it was done; ask again with the same key.
    Unknown = "unknown", 504, true, "The outcome is not known";
    /// A header block or URL over the limit.
    HeadersTooLarge = "headers_too_large", 431, false, "The request's head is larger than the limit";
    /// The request took too long to arrive.
    RequestTimeout = "request_timeout", 408, true, "The request did not arrive in time";
    /// A page from another origin.
    BadOrigin = "bad_origin", 403, false, "This origin is not allowed";
    /// A client frame that cannot be understood.
    BadFrame = "bad_frame", 400, false, "The frame cannot be understood";
    /// A message name that this server does not know.
    UnknownMessage = "unknown_message", 400, false, "This message is not known here";
    /// Our own mistake.
    Internal = "internal", 500, true, "Something went wrong on our side";
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Code::from_name(&name).ok_or_else(|| serde::de::Error::custom("unknown refusal code"))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal with its explanation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// Which of the closed list.
    pub code: Code,
    /// What was wrong, in the caller's words. Never holds payloads, tokens or internal subjects.
    pub detail: String,
    /// JSON pointer into the request, where there is one place to point at.
    pub pointer: Option<String>,
    /// When asking again makes sense, milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal without pointer or hint.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            pointer: None,
            retry_after_ms: None,
        }
    }

    /// The same with a JSON pointer.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// The same with a hint when to ask again.
    #[must_use]
    pub fn retry_after_ms(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }

    /// The one answer for what is absent and what is not yours, on every gate, byte for byte.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(Code::Forbidden, "not there, or not yours")
    }

    /// RFC 9457 `application/problem+json`.
    #[must_use]
    pub fn problem_json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Problem<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
            code: Code,
            #[serde(skip_serializing_if = "Option::is_none")]
            pointer: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u64>,
        }
        to_json(&Problem {
            r#type: "about:blank",
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code,
            pointer: self.pointer.as_deref(),
            retry_after_ms: self.retry_after_ms,
        })
    }

    /// The body of an `error` on WebSocket and NATS: `{code, message, temporary, retryAfterMs?}`.
    #[must_use]
    pub fn error_json(&self) -> String {
        to_json(&crate::frame::ErrorBody::from(self))
    }
}

/// JSON Schema of [`Refusal::problem_json`].
#[must_use]
pub fn problem_schema() -> serde_json::Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    serde_json::json!({
        "type": "object",
        "description": "A refusal: RFC 9457 with a code from a closed list.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": { "const": "about:blank" },
            "title": { "type": "string", "description": "The same for every refusal with this code." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "What was wrong, for people." },
            "code": { "type": "string", "enum": codes, "description": "What was wrong, for programs." },
            "pointer": { "type": "string", "description": "JSON pointer into what was sent." },
            "retryAfterMs": { "type": "integer", "minimum": 0, "description": "When asking again makes sense, milliseconds." },
        },
    })
}

/// Serialises a type of ours whose serialisation cannot fail (no maps with odd keys, no failing `Serialize`).
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_and_come_back() {
        for code in Code::ALL {
            assert!(crate::ids::is_token(code.as_str()), "{code}");
            assert_eq!(Code::from_name(code.as_str()), Some(*code));
            assert!((400..600).contains(&code.status()));
        }
    }

    #[test]
    fn a_problem_is_rfc_9457() {
        let refusal = Refusal::new(Code::BadRoom, "tokens …").at("/room");
        let json: serde_json::Value = serde_json::from_str(&refusal.problem_json()).unwrap();
        assert_eq!(json["status"], 400);
        assert_eq!(json["code"], "bad_room");
        assert_eq!(json["pointer"], "/room");
        assert_eq!(json["type"], "about:blank");
        assert!(json.get("retryAfterMs").is_none());
    }
}
