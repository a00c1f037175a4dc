//! An endpoint that says where packets go: `NSM_CLIENT_ROUTES` leads its clients to it, `NSM_ENDPOINT_ROUTES` leads to what is
//! behind them, `NSM_POLICIES` is for a part of their traffic (`dport 80 proto 6 to 10.0.0.0/8; …`). It registers no network
//! service, which is an object of the test's. Else as `icmp-responder`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use nsm_sdk::endpoint::Endpoint;
use nsm_sdk::ipam::PointToPoint;
use nsm_sdk::policies::{Policies, Policy, Ports};
use nsm_sdk::routes::{Destination, Routes};
use nsm_sdk::settings::labels;
use tokio::signal::unix::{SignalKind, signal};

/// Those of a list, without next hops.
fn routes(text: &str) -> anyhow::Result<Vec<Destination>> {
    let prefixes = text.split(',').filter(|prefix| !prefix.is_empty());
    prefixes.map(|prefix| Ok(Destination::new(prefix.parse()?, None)?)).collect()
}

fn ports(text: &str) -> anyhow::Result<Option<Ports>> {
    let port = text.parse()?;
    Ok(Some(Ports::new(port, port).context("port 0")?))
}

/// Words and values in turn.
fn policy(text: &str) -> anyhow::Result<Policy> {
    let mut policy = Policy::default();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("no value of {word} in policy {text:?}"))?;
        match word {
            "from" => policy.from = Some(value.parse()?),
            "proto" => policy.protocol = Some(value.parse()?),
            "sport" => policy.source_ports = ports(value)?,
            "dport" => policy.destination_ports = ports(value)?,
            "to" => policy.routes.extend(routes(value)?),
            _ => bail!("policy {text:?} says {word:?}: expected from, proto, sport, dport or to"),
        }
    }
    Ok(policy)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let optional = |name: &str| std::env::var(name).unwrap_or_default();
    let path = |name: &str| variable(name).map(|url| url.trim_start_matches("unix://").to_owned());
    let own = Routes::new()
        .for_client(routes(&optional("NSM_CLIENT_ROUTES"))?)
        .for_endpoint(routes(&optional("NSM_ENDPOINT_ROUTES"))?);
    let own_labels = match optional("NSM_LABELS").as_str() {
        "" => BTreeMap::new(),
        text => labels(text).context("NSM_LABELS")?,
    };
    let policies = optional("NSM_POLICIES");
    let policies = policies.split(';').filter(|text| !text.trim().is_empty()).map(policy);
    let endpoint = Endpoint::builder(variable("NSM_NAME")?)
        .service(variable("NSM_SERVICE_NAMES")?)
        .labels(own_labels)
        .register_services(false)
        .element(PointToPoint::new(variable("NSM_CIDR_PREFIX")?.parse()?))
        .element(own)
        .element(Policies::new(policies.collect::<anyhow::Result<Vec<_>>>()?)?)
        .connect_to(path("NSM_CONNECT_TO")?)
        .listen_on(path("NSM_LISTEN_ON")?)
        .start()
        .await?;
    signal(SignalKind::terminate())?.recv().await;
    endpoint.stop().await;
    Ok(())
}
