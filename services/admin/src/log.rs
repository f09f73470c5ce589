//! What is logged, looked at and changed while the service runs.

use axum::response::{IntoResponse, Response};
use roomcast_chassis::openapi::Operation;
use roomcast_chassis::routes::Routes;
use roomcast_chassis::telemetry::{self, FilterError};
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::caller::Note;
use crate::extract::Json;
use crate::problem::{Problem, guarded};

/// Longest filter, bytes.
const FILTER_BYTES_MAX: usize = 512;

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or levels by part, like `info,roomcast_ingest=debug`.
    #[schemars(length(min = 1, max = FILTER_BYTES_MAX))]
    pub filter: String,
}

/// `GET` and `PUT /admin/v1/log`.
#[must_use]
pub fn routes() -> Routes {
    const PATH: &str = "/admin/v1/log";
    let read = guarded(Operation::new("service", "getLog", "Says what is logged."))
        .answers_json::<Filter>(200, "The filter in force.");
    let set = guarded(Operation::new("service", "setLog", "Changes what is logged."))
        .about("Until the process ends or it is changed again; the settings stay as they are.")
        .takes_json::<Filter>()
        .answers_json::<Filter>(200, "The filter now in force.")
        .refuses([Code::BadJson, Code::UnsupportedType].map(Code::listed));
    Routes::new().get(PATH, read, show).put(PATH, set, change)
}

async fn show() -> Result<axum::Json<Filter>, Problem> {
    let filter = telemetry::filter().ok_or_else(|| refused(FilterError::Fixed))?;
    Ok(axum::Json(Filter { filter }))
}

async fn change(Json(new): Json<Filter>) -> Result<Response, Problem> {
    if !(1..=FILTER_BYTES_MAX).contains(&new.filter.len()) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("a filter has 1 to {FILTER_BYTES_MAX} bytes"),
        ));
    }
    let before = telemetry::set_filter(&new.filter).map_err(refused)?;
    tracing::info!(
        filter = new.filter,
        before,
        "what is logged was changed from {before} to {}",
        new.filter
    );
    let note = Note(serde_json::json!({ "from": before, "to": new.filter }));
    let mut response = axum::Json(new).into_response();
    response.extensions_mut().insert(note);
    Ok(response)
}

fn refused(error: FilterError) -> Problem {
    let code = match error {
        FilterError::Unreadable => Code::BadRequest,
        FilterError::Fixed => Code::Unavailable,
    };
    Problem::new(code, error.to_string())
}
