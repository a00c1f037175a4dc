//! Find and the choice of candidates among many endpoints.

use std::time::Instant;

use nsm_lab::Node;
use nsm_proto::admin::ExplainRequest;
use nsm_proto::admin::admin_client::AdminClient;
use nsm_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceLabels};
use tonic::transport::{Channel, Endpoint};

use crate::Size;
use crate::report::{Goal, Report};

/// Endpoints of one service: what a Find returns is the same whatever else is registered.
const PER_SERVICE: usize = 10;

/// Two agents, one with ten endpoints and one with all: asked in turn, so that the machine's moods are the same for both.
pub(crate) fn endpoints(size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let (small, large) = (Node::start("scale-small")?, Node::start("scale-large")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (few, many) = runtime.block_on(async {
        let (mut small, mut large) = (Lab::connect(&small).await?, Lab::connect(&large).await?);
        small.register(1).await?;
        large.register(size.endpoints / PER_SERVICE).await?;
        let (mut few, mut many) = (Samples::default(), Samples::default());
        for _ in 0..size.n {
            small.measure(&mut few).await?;
            large.measure(&mut many).await?;
        }
        anyhow::Ok((few, many))
    })?;
    let total = size.endpoints;
    for (what, few, many) in [("Find", few.finds, many.finds), ("candidates", few.choices, many.choices)] {
        let few = report.series(&format!("{what}, {PER_SERVICE} endpoints"), "nsm-agent", "ms", &few);
        let many = report.series(&format!("{what}, {total} endpoints"), "nsm-agent", "ms", &many);
        let ratio = many.unwrap_or(f64::NAN) / few.unwrap_or(f64::NAN);
        let what = format!("{what} at {total} endpoints against {PER_SERVICE}");
        report.judge(&what, "×", ratio, Goal::Most { must: 1.5, aim: 1.2 });
    }
    Ok(())
}

/// Milliseconds of each Find and of each choice.
#[derive(Default)]
struct Samples {
    finds: Vec<f64>,
    choices: Vec<f64>,
}

struct Lab {
    admin: AdminClient<Channel>,
    registry: NetworkServiceEndpointRegistryClient<Channel>,
}

impl Lab {
    async fn connect(node: &Node) -> anyhow::Result<Self> {
        let open =
            async |path: std::path::PathBuf| Endpoint::try_from(format!("unix://{}", path.display()))?.connect().await;
        Ok(Self {
            admin: AdminClient::new(open(node.cni_socket()).await?),
            registry: NetworkServiceEndpointRegistryClient::new(open(node.nsm_socket()).await?),
        })
    }

    /// So many services with their endpoints.
    async fn register(&mut self, services: usize) -> anyhow::Result<()> {
        for service in 0..services {
            let name = format!("service-{service}");
            let object = NetworkService { name: name.clone(), payload: "IP".into(), ..NetworkService::default() };
            self.admin.apply_network_service(object).await?;
            for endpoint in 0..PER_SERVICE {
                let labels = [("place".to_owned(), endpoint.to_string())].into();
                let object = NetworkServiceEndpoint {
                    name: format!("{name}-{endpoint}"),
                    network_service_names: vec![name.clone()],
                    network_service_labels: [(name.clone(), NetworkServiceLabels { labels })].into(),
                    url: format!("tcp://192.0.2.1:{}", 5000 + endpoint),
                    ..NetworkServiceEndpoint::default()
                };
                self.admin.apply_endpoint(object).await?;
            }
        }
        Ok(())
    }

    /// One Find and one choice.
    async fn measure(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        let template = NetworkServiceEndpoint {
            network_service_names: vec!["service-0".into()],
            ..NetworkServiceEndpoint::default()
        };
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(template), watch: false };
        let began = Instant::now();
        let mut found = self.registry.find(query).await?.into_inner();
        let mut count = 0;
        while found.message().await?.is_some() {
            count += 1;
        }
        samples.finds.push(began.elapsed().as_secs_f64() * 1000.0);
        anyhow::ensure!(count == PER_SERVICE, "Find returned {count} endpoints");

        let query = ExplainRequest { network_service: "service-0".into(), ..ExplainRequest::default() };
        let began = Instant::now();
        self.admin.explain(query).await?;
        samples.choices.push(began.elapsed().as_secs_f64() * 1000.0);
        Ok(())
    }
}
