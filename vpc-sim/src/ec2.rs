//! The EC2 Query API: form parameters in, XML out. It decodes the request, calls the world, and encodes the result.
//!
//! Owns the wire format (`params`, `decode`, `encode`, `xml`), the server and its call log. The world implements EC2's
//! rules, with one exception: if a parameter of a request is unknown, nothing is done. The signature is neither
//! required nor verified.
//!
//! May use `world`, `state`, `http` and `time`. Must not know namespaces or IMDS.

mod decode;
mod encode;
mod params;
mod server;
mod xml;

#[cfg(test)]
mod tests;

use std::time::Duration;

use self::params::Params;
pub(crate) use self::server::router;
use crate::{action::Action, error::ApiError, world::World};

/// The only version of the API.
pub const VERSION: &str = "2016-11-15";

/// Executes one request. The result is the whole XML document.
///
/// # Errors
/// The error that EC2 would return; [`error_document`] is its XML.
pub fn call(
    world: &mut World,
    action: Action,
    form: Vec<(String, String)>,
    request: &str,
    now: Duration,
) -> Result<String, ApiError> {
    let params = Params::new(form)?;
    let body = decode::run(world, action, params, now)?;
    Ok(xml::document(&format!("{action}Response"), request, &body))
}

/// The XML of an error.
#[must_use]
pub fn error_document(error: &ApiError, request: &str) -> String {
    xml::error(error.code(), &error.to_string(), request)
}
