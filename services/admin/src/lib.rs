//! The admin ports: who may enter them, what every service offers there, and the record of what was done.
//!
//! A service builds its [`Routes`] under `/admin/v1` and calls [`open`]. Without an admin key there is nothing under
//! `/admin/v1` at all. With one, every call is checked ([`door`]: the `Host`, the origin, the token, the body's size and time) before a
//! handler sees it, and recorded ([`audit`]) whatever came of it. A handler asks for the [`Caller`] as an axum `Extension`, reads
//! bodies and parameters with [`extract`], and refuses with [`Problem`].

pub mod audit;
pub mod caller;
pub mod door;
pub mod extract;
mod hosts;
pub mod instance;
pub mod log;
mod pages;
pub mod problem;
mod refused;
pub mod settings;

pub use audit::Audit;
pub use caller::{Caller, Note};
pub use problem::Problem;
pub use roomcast_chassis::openapi::Operation;
pub use roomcast_chassis::routes::Routes;
pub use settings::AdminSettings;

use roomcast_chassis::admin::Admin;
use roomcast_chassis::openapi::Document;
use roomcast_chassis::process::{Context, Failure};
use roomcast_proto::refusal::problem_schema;

/// Opens the admin routes of a service, if there is an admin key.
///
/// `routes` are the service's own, under `/admin/v1`; the log level and the document of all of them come on top.
///
/// # Errors
/// A key file that cannot be used (65); a development key on an open address (64); a metric that cannot be declared, or routes that
/// are mounted already (70).
pub fn open(
    settings: &AdminSettings,
    routes: Routes,
    audit: &Audit,
    context: &Context,
) -> Result<(), Failure> {
    let Some(keys) = settings.load(context.common.admin_listen)? else {
        return Ok(());
    };
    let routes = routes.merge(log::routes());
    let document = document(context.service.name, &routes);
    let routes = routes.merge(document_route(&document));
    let door = door::Door::new(keys, audit.clone(), context)?;
    context
        .admin
        .mount(door.guard(routes.into_router()))
        .map_err(|_| Failure::internal("the admin routes are mounted twice"))?;
    tracing::info!("the admin API is open at {}", context.common.admin_listen);
    Ok(())
}

/// What stands in the admin document: the routes given and those that every admin port has.
#[must_use]
pub fn document(service: &str, routes: &Routes) -> Document {
    Document::new(
        format!("{service}: admin"),
        "For operators, on the admin port. Exists only where an admin key is set; every call under /admin/v1 is recorded. \
         What changes something and is not done within 20 s is answered `unknown` and goes on, and its end is recorded as well.",
        problem_schema(),
    )
    .with(Admin::routes().descriptions())
    .with(routes.descriptions())
    .with(document_route_described().descriptions())
}

fn document_route(document: &Document) -> Routes {
    let text = document.text();
    described(move || {
        let text = text.clone();
        async move { ([(http::header::CONTENT_TYPE, "application/json")], text) }
    })
}

fn document_route_described() -> Routes {
    described(async || "")
}

fn described<H: axum::handler::Handler<T, ()>, T: 'static>(handler: H) -> Routes {
    let operation = problem::guarded(Operation::new("about", "document", "This document.")).answers(
        200,
        "OpenAPI 3.1.",
        "application/json",
        serde_json::json!({ "type": "object" }),
    );
    Routes::new().get("/openapi.json", operation, handler)
}

#[cfg(test)]
mod tests;
