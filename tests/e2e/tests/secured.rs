//! NATS behind TLS, with an authority of one's own and users with keys: what the production configuration offers, used.

use futures_util::StreamExt as _;
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_harness::secured::{
    INGEST_SEED, PUBLISHER_KEY, authority, certificate, publisher, security, verifying,
};
use roomcast_harness::token::Signer;
use roomcast_harness::{binary, folder};
use serde_json::Value;
use tokio::process::Command;

use crate::gate::{UNAVAILABLE, run, service};
use crate::world::alone;

#[test]
fn a_service_and_a_command_come_through_tls_with_an_authority_of_ones_own() {
    alone(async {
        let Some(nats) = Nats::start_secured(security(true)).await else {
            return Ok(());
        };
        let url = nats.url().replace("nats://", "tls://");
        let folder = folder();
        std::fs::write(folder.path().join("keys.json"), Signer::new().jwks())?;
        // No stream is there yet: a service that says so has come through. All connect by the same code.
        let mut ingest = service("roomcast-ingest", "ingest", &url, folder.path());
        let (code, said) = run(ingest.env("SSL_CERT_FILE", authority())).await?;
        assert_eq!(code, Some(UNAVAILABLE), "{said}");
        assert!(said.contains("stream EVENTS does not exist"), "{said}");
        let apply = |authority: Option<std::path::PathBuf>| {
            let mut command = Command::new(binary("roomcast"));
            command
                .args(["streams", "apply", "--replicas", "1", "--nats", &url])
                .env("ROOMCAST_NATS_USER", "admin")
                .env("ROOMCAST_NATS_PASSWORD", PASSWORD)
                .env_remove("SSL_CERT_FILE")
                .envs(authority.map(|path| ("SSL_CERT_FILE", path)));
            command
        };
        let (code, said) = run(&mut apply(None)).await?;
        assert_eq!(code, Some(UNAVAILABLE), "an authority nobody knows: {said}");
        let (code, said) = run(&mut apply(Some(authority()))).await?;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("created") && said.contains("EVENTS"), "{said}");
        Ok(())
    });
}

#[test]
fn services_log_in_with_a_key_and_show_a_certificate() {
    alone(async {
        let Some(nats) = Nats::start_secured(verifying()).await else {
            return Ok(());
        };
        let url = nats.url().replace("nats://", "tls://");
        let [shown, key] = certificate();
        let folder = folder();
        std::fs::write(folder.path().join("keys.json"), Signer::new().jwks())?;
        let seed = folder.path().join("ingest.nk");
        std::fs::write(&seed, INGEST_SEED)?;
        // Whoever comes through finds no stream.
        for (name, user) in [
            ("roomcast-ingest", "ingest"),
            ("roomcast-metrics-aggregator", "agg"),
        ] {
            let mut command = service(name, user, &url, folder.path());
            if user == "ingest" {
                command
                    .env_remove("ROOMCAST_NATS_PASSWORD")
                    .env("ROOMCAST_NATS_NKEY_FILE", &seed);
            }
            command
                .env("SSL_CERT_FILE", authority())
                .env("ROOMCAST_NATS_CERT_FILE", &shown)
                .env("ROOMCAST_NATS_KEY_FILE", &key);
            let (code, said) = run(&mut command).await?;
            assert_eq!(code, Some(UNAVAILABLE), "{said}");
            assert!(said.contains("EVENTS does not exist"), "{said}");
            assert!(!said.contains(INGEST_SEED), "a secret in the log: {said}");
        }
        let apply = |shows: bool| {
            let mut command = Command::new(binary("roomcast"));
            command
                .args(["streams", "apply", "--replicas", "1", "--nats", &url])
                .env("ROOMCAST_NATS_USER", "admin")
                .env("ROOMCAST_NATS_PASSWORD", PASSWORD)
                .env("SSL_CERT_FILE", authority());
            if shows {
                command
                    .env("ROOMCAST_NATS_CERT_FILE", &shown)
                    .env("ROOMCAST_NATS_KEY_FILE", &key);
            }
            command
        };
        let (code, said) = run(&mut apply(false)).await?;
        assert_eq!(code, Some(UNAVAILABLE), "nothing shown: {said}");
        let (code, said) = run(&mut apply(true)).await?;
        assert_eq!(code, Some(0), "{said}");
        Ok(())
    });
}

#[test]
fn who_has_a_key_is_known_by_it_and_has_the_same_rights() {
    alone(async {
        let Some(nats) = Nats::start_secured(security(false)).await else {
            return Ok(());
        };
        let ingest = nats.connect("ingest").await;
        let mut requests = ingest.queue_subscribe("in.*.>", "ingest".into()).await?;
        ingest.flush().await?;
        let publisher = publisher(&nats.url()).await?;
        let asking = tokio::spawn(async move { publisher.request("in.bookings.staff", "{}".into()).await });
        let request = tokio::time::timeout(std::time::Duration::from_secs(20), requests.next())
            .await?
            .expect("the connection lasts");
        let headers = request.headers.clone().unwrap_or_default();
        let info = headers.get_last("Nats-Request-Info").expect("who it is").as_str();
        let info: Value = serde_json::from_str(info)?;
        assert_eq!(
            (&info["acc"], &info["user"]),
            (&"main".into(), &PUBLISHER_KEY.into()),
            "{info}"
        );
        ingest
            .publish(request.reply.expect("it waits"), "yes".into())
            .await?;
        assert_eq!(asking.await??.payload, "yes");
        // The password of that user is one no longer.
        let by_password = Nats::options("publisher").connect(nats.url()).await;
        assert!(by_password.is_err());
        Ok(())
    });
}
