//! `/metrics`, `/healthz` and `/readyz` over HTTP, on an address that the settings name.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    install::Outcome,
    manager::Owed,
    metrics::{Metrics, Now},
    node::Tests,
    registry::Directory,
    state::{Connected, Records},
};

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// Counts and durations.
    pub metrics: Metrics,
    /// Whether the node can be used.
    pub tests: Tests,
    /// The connections of this node.
    pub connections: Records<Connected>,
    /// Ends that endpoints have still to hear.
    pub owed: Owed,
    /// What is registered.
    pub directory: Arc<Directory>,
}

/// Listens; the address is in the error.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("--metrics {address}: {error}; expected a free address of this node"))
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) {
    let shown = Arc::new(shown);
    let ready = shown.clone();
    let router = Router::new()
        .route("/metrics", get(move || std::future::ready(scrape(&shown))))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || readiness(ready.clone())));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

fn scrape(shown: &Shown) -> Response {
    let (services, endpoints, watches) = shown.directory.counts();
    for (part, outcome) in shown.tests.installed.all() {
        shown.metrics.installed(part, matches!(outcome, Outcome::Done(_)));
    }
    let now = Now { connections: shown.connections.len(), owed: shown.owed.len(), services, endpoints, watches };
    match shown.metrics.text(now) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readiness(shown: Arc<Shown>) -> Response {
    let problems = shown.tests.problems().await;
    if problems.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}
