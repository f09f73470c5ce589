//! An ingest with an admin key, and its admin port on a socket of its own.

use http_body_util::Full;
use roomcast_harness::http::Answer;
use roomcast_harness::nats::Nats;
use roomcast_harness::token::{Signer, now};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Ingest, JSON, POLICY};

const ISSUER: &str = "https://operators";

/// The admin port of a running ingest.
pub struct AdminPort {
    pub address: String,
    signer: Signer,
    _folder: tempfile::TempDir,
}

impl AdminPort {
    /// An ingest with [`POLICY`] on this server, and its admin port.
    pub async fn on(nats: Nats, more: &[(&str, &str)]) -> (Ingest, Self) {
        let (folder, signer) = (tempfile::tempdir().unwrap(), Signer::named("ops"));
        let keys = folder.path().join("admin.json");
        std::fs::write(&keys, signer.jwks()).unwrap();
        let mut settings = vec![
            ("ROOMCAST_ADMIN_JWT_KEYS_FILE", keys.to_str().unwrap()),
            ("ROOMCAST_ADMIN_JWT_ISSUER", ISSUER),
        ];
        settings.extend(more);
        let ingest = Ingest::on(nats, POLICY, &settings).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (admin, http) = (ingest.context.admin.clone(), ingest.context.http.clone());
        tokio::spawn(roomcast_chassis::admin::serve(
            listener,
            admin,
            http,
            CancellationToken::new(),
        ));
        let port = Self {
            address,
            signer,
            _folder: folder,
        };
        (ingest, port)
    }

    /// An administrator's token.
    pub fn token(&self) -> String {
        let claims = json!({ "iss": ISSUER, "aud": "roomcast-admin", "sub": "ops", "exp": now() + 600 });
        self.signer.sign(&claims)
    }

    /// `POST` under `/admin/v1`.
    pub async fn post(&self, ingest: &Ingest, path: &str, body: &Value) -> Answer {
        let request = http::Request::post(format!("http://{}/admin/v1/{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token()))
            .header("content-type", JSON)
            .body(Full::new(body.to_string().into()));
        ingest.http.send(request.unwrap()).await.unwrap()
    }
}
