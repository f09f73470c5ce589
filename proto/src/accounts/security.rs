//! How connections to NATS are protected: TLS, and keys instead of passwords.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::render::quoted;

/// What a server asks for beyond passwords; the default is nothing, which suits loopback alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// TLS on the listener for clients and, among nodes, on the routes.
    pub tls: Option<Tls>,
    /// Users who sign a challenge of the server instead of sending their password: public nkey (`U…`) by user name.
    ///
    /// The server then knows such a user by its key alone, so a publisher's entry in the policy is `nats: <tenant>/<key>`. Inboxes and
    /// permissions keep to the name.
    pub nkeys: BTreeMap<String, String>,
}

/// Files of one node, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The node's certificate, with what leads to the authority's; it must name the host that clients and other nodes connect to.
    pub cert: String,
    /// Its key.
    pub key: String,
    /// The authority that other nodes' certificates, and with `verify` those of clients, are signed by; `None`: the system's.
    pub ca: Option<String>,
    /// Whether clients must show a certificate, too. Nodes always must.
    pub verify: bool,
}

impl Tls {
    /// The block inside a listener or, as nodes verify each other in any case, inside `cluster`.
    pub(super) fn block(&self, indent: &str, verify: bool) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{indent}tls {{");
        let _ = writeln!(out, "{indent}  cert_file: {}", quoted(&self.cert));
        let _ = writeln!(out, "{indent}  key_file: {}", quoted(&self.key));
        if let Some(ca) = &self.ca {
            let _ = writeln!(out, "{indent}  ca_file: {}", quoted(ca));
        }
        if verify {
            let _ = writeln!(out, "{indent}  verify: true");
        }
        let _ = writeln!(out, "{indent}  timeout: 5\n{indent}}}");
        out
    }
}
