//! What operators may ask and do on the admin port, beside what every service has there.

use roomcast_admin::Routes;

/// The routes under `/admin/v1`.
#[must_use]
pub fn routes() -> Routes {
    Routes::new()
}
