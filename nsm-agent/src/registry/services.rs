//! The two registries of NSM v1 as gRPC services.
//!
//! Guarantees: who calls is what the kernel says about the socket. A watch stays open until the caller leaves or the agent
//! ends (a Go endpoint whose watch ends registers again at once, without a pause). A file that is named and was not passed
//! fails the call at once.

mod caller;
mod endpoints;
mod network_services;
#[cfg(test)]
mod tests;
mod watches;

pub use endpoints::Endpoints;
pub use network_services::NetworkServices;

use nsm_proto::header;
use tonic::{Request, Response, Status};

use super::Error;
use crate::share::InFlight;

/// Longest `path` header that is taken.
const PATH_BYTES: usize = 64 * 1024;

/// The caller's path goes back with the answer.
fn answer<T>(path: Option<tonic::metadata::AsciiMetadataValue>, message: T) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(path) = path {
        response.metadata_mut().insert(header::PATH, path);
    }
    response
}

/// The path that came with a Register or Unregister.
fn path<T>(request: &Request<T>) -> Result<Option<tonic::metadata::AsciiMetadataValue>, Status> {
    let Some(value) = request.metadata().get(header::PATH) else { return Ok(None) };
    let object = value.as_bytes().len() <= PATH_BYTES
        && serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(value.as_bytes()).is_ok();
    if !object {
        return Err(Status::invalid_argument(format!(
            "header {}: expected a JSON object of at most {PATH_BYTES} bytes",
            header::PATH
        )));
    }
    Ok(Some(value.clone()))
}

/// When the caller's token expires.
fn token_expires<T>(request: &Request<T>) -> Result<Option<std::time::SystemTime>, Status> {
    let Some(value) = request.metadata().get(header::CLIENT_TOKEN_EXPIRES) else { return Ok(None) };
    let time = value.to_str().ok().and_then(|text| text.parse::<prost_types::Timestamp>().ok());
    match time.and_then(|time| std::time::SystemTime::try_from(time).ok()) {
        Some(time) => Ok(Some(time)),
        None => Err(Status::invalid_argument(format!(
            "header {}: {value:?}: expected a time as RFC 3339 writes it",
            header::CLIENT_TOKEN_EXPIRES
        ))),
    }
}

/// Lets a write run to its end with the place of its call, whether the caller waits or not: who hangs up again and again has no more
/// writes under way than who waits.
async fn to_its_end<T: Send + 'static>(
    place: Option<InFlight>,
    write: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Status> {
    let write = async move {
        let written = write.await;
        drop(place);
        written
    };
    Ok(tokio::spawn(write).await.unwrap_or(Err(Error::ShuttingDown))?)
}

/// How a watch ends when the agent does.
fn ended<T>() -> Result<T, Status> {
    Err(Error::ShuttingDown.into())
}
