//! The smallest service on the chassis: one setting, one HTTP listener, one NATS connection.
//!
//! It shows the order every service follows, and the tests run it as a real process.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use roomcast_chassis::config::Reader;
use roomcast_chassis::http::{self, Limits};
use roomcast_chassis::process::{self, Context, Failure, Service};
use roomcast_chassis::shutdown::Stage;
use tokio::net::TcpListener;

static SERVICE: Service = Service {
    name: "roomcast-minimal",
    about: "Says hello over HTTP once NATS is there.",
    admin_port: 9089,
    jetstream_api: "$JS.API",
};

struct Settings {
    listen: SocketAddr,
}

fn read(reader: &mut Reader<'_>) -> Settings {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8089));
    Settings {
        listen: reader.address("ROOMCAST_LISTEN", default, "Address of the public listener."),
    }
}

async fn serve(settings: Settings, context: Context) -> Result<(), Failure> {
    // Not ready before the listener is open, however fast NATS is.
    let opening = context.readiness.latch("listener", "not open yet");
    let _nats = context.nats.connect("main").await?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(Failure::unavailable)?;
    opening.remove();
    let accept = context.shutdown.stage(Stage::Accept).token();
    let router = Router::new()
        .route("/", get(|| async { "hello\n" }))
        // Never answered: what a shutdown has to cut off.
        .route("/held", get(std::future::pending::<()>));
    let serving = http::serve(
        listener,
        "public",
        router,
        Limits::default(),
        context.http.clone(),
        accept,
    );
    context.shutdown.stage(Stage::Drain).spawn(serving);
    Ok(())
}

fn main() -> ExitCode {
    process::run(&SERVICE, read, |_| Ok(()), serve)
}
