//! Find and the choice of candidates among many endpoints: of many services, and of one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use nsm_lab::Node;
use nsm_proto::admin::admin_client::AdminClient;
use nsm_proto::admin::{ExplainRequest, PlanRequest};
use nsm_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use nsm_proto::registry::{
    Destination, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceLabels,
};
use tonic::transport::{Channel, Endpoint};

use crate::Size;
use crate::report::{Goal, Report};

/// Endpoints of one service: what a Find returns is the same whatever else is registered.
const PER_SERVICE: usize = 10;

/// A service whose first match nobody fits, and one that nobody fits.
const FALLS: &str = "falls";
const NONE: &str = "none";

/// Calls of one figure.
const CALLS: u32 = 10;
/// Before each figure, so that the two agents are measured over more than a moment.
const PAUSE: Duration = Duration::from_millis(5);

/// Two agents, one with ten endpoints and one with all: asked in turn, so that the machine's moods are the same for both.
pub(crate) fn endpoints(size: &Size, report: &mut Report) -> anyhow::Result<()> {
    // On two processors a call takes half as long again when the agent happens to run on the other one than its caller, and
    // agents tend to stay where they are: that would be measured.
    let _here = OnOneProcessor::enter()?;
    let (small, large) = (Node::start("scale-small")?, Node::start("scale-large")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (few, many) = runtime.block_on(async {
        let (mut small, mut large) = (Lab::connect(&small).await?, Lab::connect(&large).await?);
        small.register(1).await?;
        large.register(size.endpoints / PER_SERVICE).await?;
        let (mut few, mut many) = (Samples::default(), Samples::default());
        for turn in 0..size.n {
            // Neither is always the first.
            if turn % 2 == 0 {
                small.measure(&mut few).await?;
                large.measure(&mut many).await?;
            } else {
                large.measure(&mut many).await?;
                small.measure(&mut few).await?;
            }
        }
        anyhow::Ok((few, many))
    })?;
    compare(report, size.endpoints, [("Find", few.finds, many.finds), ("candidates", few.choices, many.choices)]);
    Ok(())
}

/// A plan past a match that nobody fits, and one that nobody fits at all, among ten endpoints of one service and among all. No verdict: a
/// plan explains, and so names every endpoint of the service.
pub(crate) fn of_one_service(size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let _here = OnOneProcessor::enter()?;
    let (small, large) = (Node::start("scale-one-small")?, Node::start("scale-one-large")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (few, many) = runtime.block_on(async {
        let (mut small, mut large) = (Lab::connect(&small).await?, Lab::connect(&large).await?);
        small.register_one(PER_SERVICE).await?;
        large.register_one(size.endpoints).await?;
        let (mut few, mut many) = (Samples::default(), Samples::default());
        for turn in 0..size.n {
            if turn % 2 == 0 {
                small.measure_one(&mut few).await?;
                large.measure_one(&mut many).await?;
            } else {
                large.measure_one(&mut many).await?;
                small.measure_one(&mut few).await?;
            }
        }
        anyhow::Ok((few, many))
    })?;
    for (what, few, many) in [("fallthrough", few.finds, many.finds), ("no fit", few.choices, many.choices)] {
        for (endpoints, samples) in [(PER_SERVICE, few), (size.endpoints, many)] {
            report.series(&format!("plan, {what}, {endpoints} endpoints of one service"), "nsm-agent", "ms", &samples);
        }
    }
    Ok(())
}

fn compare(report: &mut Report, total: usize, kinds: [(&str, Vec<f64>, Vec<f64>); 2]) {
    for (what, few, many) in kinds {
        let few = report.series(&format!("{what}, {PER_SERVICE} endpoints"), "nsm-agent", "ms", &few);
        let many = report.series(&format!("{what}, {total} endpoints"), "nsm-agent", "ms", &many);
        let ratio = many.unwrap_or(f64::NAN) / few.unwrap_or(f64::NAN);
        let what = format!("{what} at {total} endpoints against {PER_SERVICE}");
        report.judge(&what, "×", ratio, Goal::Most { must: 1.5, aim: 1.2 });
    }
}

/// This thread, and what it starts, on one processor until it is dropped.
struct OnOneProcessor {
    before: CpuSet,
}

impl OnOneProcessor {
    fn enter() -> anyhow::Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let first = (0..CpuSet::count()).find(|cpu| before.is_set(*cpu).unwrap_or_default());
        let mut one = CpuSet::new();
        one.set(first.context("no processor")?)?;
        sched_setaffinity(this, &one)?;
        Ok(Self { before })
    }
}

impl Drop for OnOneProcessor {
    fn drop(&mut self) {
        // It was so a moment ago.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// Milliseconds of a Find and of a choice.
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

    /// So many endpoints of two services: with one a client falls through its first match, in the other none fits it.
    async fn register_one(&mut self, endpoints: usize) -> anyhow::Result<()> {
        let to = |place: &str| Destination {
            destination_selector: [("place".to_owned(), place.to_owned())].into(),
            ..Destination::default()
        };
        let nobody = Match { routes: vec![to("nobody's")], ..Match::default() };
        let falls = Match { fallthrough: true, ..nobody.clone() };
        let matches = [vec![falls, Match { routes: vec![to("3")], ..Match::default() }], vec![nobody]];
        for (name, matches) in [FALLS, NONE].into_iter().zip(matches) {
            let object =
                NetworkService { name: name.into(), payload: "IP".into(), matches, ..NetworkService::default() };
            self.admin.apply_network_service(object).await?;
        }
        for endpoint in 0..endpoints {
            let labels: BTreeMap<_, _> = [("place".to_owned(), endpoint.to_string())].into();
            let labels = |_| NetworkServiceLabels { labels: labels.clone() };
            let object = NetworkServiceEndpoint {
                name: format!("endpoint-{endpoint}"),
                network_service_names: vec![FALLS.into(), NONE.into()],
                network_service_labels: [FALLS, NONE].map(|name| (name.to_owned(), labels(name))).into(),
                url: format!("unix:///run/endpoint-{endpoint}.sock"),
                ..NetworkServiceEndpoint::default()
            };
            self.admin.apply_endpoint(object).await?;
        }
        Ok(())
    }

    /// One figure of each of the two.
    async fn measure_one(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        tokio::time::sleep(PAUSE).await;
        samples.finds.push(self.plan(FALLS).await?);
        tokio::time::sleep(PAUSE).await;
        samples.choices.push(self.plan(NONE).await?);
        Ok(())
    }

    async fn plan(&mut self, service: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        for _ in 0..CALLS {
            let query =
                PlanRequest { network_service: service.into(), mechanism: "KERNEL".into(), ..PlanRequest::default() };
            self.admin.plan(query).await?;
        }
        Ok(each(began))
    }

    /// One figure of Find and one of the choice.
    async fn measure(&mut self, samples: &mut Samples) -> anyhow::Result<()> {
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        for _ in 0..CALLS {
            self.find().await?;
        }
        samples.finds.push(each(began));
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        for _ in 0..CALLS {
            let query = ExplainRequest { network_service: "service-0".into(), ..ExplainRequest::default() };
            self.admin.explain(query).await?;
        }
        samples.choices.push(each(began));
        Ok(())
    }

    async fn find(&mut self) -> anyhow::Result<()> {
        let template = NetworkServiceEndpoint {
            network_service_names: vec!["service-0".into()],
            ..NetworkServiceEndpoint::default()
        };
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(template), watch: false };
        let mut found = self.registry.find(query).await?.into_inner();
        let mut count = 0;
        while found.message().await?.is_some() {
            count += 1;
        }
        anyhow::ensure!(count == PER_SERVICE, "Find returned {count} endpoints");
        Ok(())
    }
}

/// Milliseconds of each call.
fn each(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0 / f64::from(CALLS)
}
