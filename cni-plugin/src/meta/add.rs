//! ADD: all networks of a pod, then its network services, or nothing.
//!
//! Guarantees: what is refused is refused before anything runs. What is to be made is recorded before a plugin runs. On
//! failure what this call made is undone in reverse order, and nothing else; what cannot be undone stays recorded for DEL.

use nsm_cni_types::{Answer, Args, Conf, Error, Mode, OfPod, Version, code, pods::MadeNetwork};
use nsm_npwg::Meta;
use serde_json::Value;

use super::{
    devinfo,
    inside::{Claim, Inside},
    network::{Network, Sandbox},
    patience::Patience,
    plan::{self, Plan, Wanted},
    record::{Found, Held, Progress, Record, Store},
    search, settled, undo,
};
use crate::{
    Call,
    netns::{Netns, refuse_own},
    pod,
};

pub(crate) fn run(call: &Call, meta: &Meta) -> Result<String, Error> {
    refuse_previous(meta)?;
    let args = Args::parse(&call.env.args)?;
    let patience = Patience::of_add();
    let netns = Netns::open(&call.env)?;
    refuse_own(&call.env, &netns)?;
    plan::ready(meta)?;
    let store = Store::of(&meta.cni_dir);
    let held = store.hold(&call.env, patience.lock)?;
    let earlier = held.load();
    refuse_complete(&earlier, &netns)?;
    let inside = Inside::open(&netns)?;
    inside.refuse_taken([call.env.ifname.as_str()])?;
    let search = search(&meta.bin_dir);
    end_earlier(&held, earlier, patience)?;
    let plan = plan::of(call, meta, &args)?;
    inside.refuse_taken(plan.networks.iter().map(|one| one.network.ifname.as_str()))?;
    refuse_unknown_plugins(&plan, &search)?;

    let mut record = Record::new(&call.env, &call.stdin, &netns, &meta.bin_dir)?;
    record.networks = plan.networks.iter().map(|one| one.network.clone()).collect();
    held.put(&record)?;
    let sandbox =
        Sandbox { container_id: &call.env.container_id, netns: &call.env.netns, search: &search, until: patience.work };
    let progress = Progress::of(&record);
    let mut attempt = Attempt { store: &store, held: &held, record, progress, sandbox, begun: 0 };
    let answered = attempt.networks(&plan.networks, &inside).and_then(|()| {
        let answer = attempt.answer(call.stdin.version)?;
        let told = if plan.by_agent { Vec::new() } else { settled::made(&attempt.record, &attempt.progress) };
        services(call, meta, args.clone(), (&netns, told), answer, &attempt)
    });
    match answered {
        Ok(answer) => {
            attempt.progress.complete = true;
            held.put_progress(&attempt.progress);
            if plan.by_agent {
                settled::tell(call, meta, &args, &attempt.record, &attempt.progress);
            }
            Ok(answer)
        }
        Err(error) => {
            attempt.undo(patience);
            Err(error)
        }
    }
}

/// What other plugins of a list have made would not be undone, nor be part of the pod's networks.
fn refuse_previous(meta: &Meta) -> Result<(), Error> {
    if meta.prev_result.is_none() {
        return Ok(());
    }
    let msg = "prevResult: the meta-plugin follows no other plugin: expected it first in its list, and that one among the plugins of \
               its clusterNetwork";
    Err(Error::new(code::INVALID_CONFIG, msg))
}

/// A pod that has all of it keeps it: its runtime asks for it again by mistake.
fn refuse_complete(earlier: &Found, netns: &Netns) -> Result<(), Error> {
    match earlier {
        Found::Record(record, progress) if progress.complete && record.is_of(netns) => {
            let names: Vec<&str> = record.networks.iter().map(|network| network.name.as_str()).collect();
            let msg = format!(
                "container {} has its networks already ({}): nothing was changed; run DEL before another ADD",
                record.container_id,
                names.join(", ")
            );
            Err(Error::new(code::CONFLICT, msg))
        }
        Found::Record(..) | Found::Damaged(_) | Found::Nothing => Ok(()),
    }
}

/// What an ADD left that did not come to its end, and of which no interface is there.
fn end_earlier(held: &Held, earlier: Found, patience: Patience) -> Result<(), Error> {
    match earlier {
        Found::Nothing => Ok(()),
        Found::Damaged(why) => {
            let aside = held.set_aside();
            eprintln!("nsm-cni: the record of an earlier ADD cannot be read and is kept as {}: {why}", aside.display());
            Ok(())
        }
        Found::Record(record, progress) => {
            let search = search(&record.bin_dir);
            let sandbox = Sandbox {
                container_id: &record.container_id,
                netns: &record.netns,
                search: &search,
                until: patience.work,
            };
            let errors = undo::recorded(held, &record, &progress, sandbox)?;
            undo::one_of(&errors).map_err(|error| {
                let msg = format!("what an ADD before left cannot be ended: {}", error.msg);
                Error { msg, ..error }
            })
        }
    }
}

fn refuse_unknown_plugins(plan: &Plan, search: &super::exec::SearchPath) -> Result<(), Error> {
    for one in &plan.networks {
        one.network.find_plugins(search)?;
    }
    Ok(())
}

/// An ADD under way.
struct Attempt<'a> {
    store: &'a Store,
    held: &'a Held,
    record: Record,
    progress: Progress,
    sandbox: Sandbox<'a>,
    /// How many networks have been begun.
    begun: usize,
}

impl Attempt<'_> {
    fn networks(&mut self, wanted: &[Wanted], inside: &Inside) -> Result<(), Error> {
        for one in wanted {
            let _gate = self.store.making(&one.network.list.name, self.sandbox.until)?;
            self.begun += 1;
            if let Some(device) = &one.device {
                devinfo::offer(device, &one.network, self.sandbox.container_id);
            }
            let result = one.network.add(self.sandbox)?;
            // DEL gets it, whatever comes after.
            self.progress.results.insert(one.network.ifname.clone(), result.clone());
            if wanted.len() > 1 {
                self.held.put_progress(&self.progress);
            }
            one.verify(&result)?;
        }
        let claims: Vec<Claim<'_>> = wanted
            .iter()
            .map(|one| Claim { network: &one.network, default_route: one.default_route.as_deref() })
            .collect();
        let Progress { defaults, results, .. } = &mut self.progress;
        defaults.settle(inside, &claims, results)
    }

    /// The first network's result.
    fn answer(&self, version: Version) -> Result<Answer, Error> {
        let first = self.record.networks.first().map(|network| (network, self.result(network)));
        let Some((network, result)) = first else { return Ok(Answer::new(version)) };
        let answer = result?.convert(version);
        // 0.1.0 and 0.2.0 cannot say everything.
        answer.to_json().map_err(|error| {
            let msg =
                format!("network {:?}: its result in cniVersion {}: {}", network.name, version.as_str(), error.msg);
            Error { msg, ..error }
        })?;
        Ok(answer)
    }

    fn result(&self, network: &Network) -> Result<Answer, Error> {
        let result = self.progress.results.get(&network.ifname).unwrap_or(&Value::Null);
        Answer::parse(result, network.list.version()?)
    }

    /// Ends what was begun; the rest was never there.
    fn undo(&mut self, patience: Patience) {
        let sandbox = Sandbox { until: patience.undo, ..self.sandbox };
        self.record.networks.truncate(self.begun);
        match undo::recorded(self.held, &self.record, &self.progress, sandbox) {
            Ok(errors) => {
                for error in errors {
                    eprintln!("nsm-cni: not undone, DEL will try again: {error}");
                }
            }
            Err(error) => eprintln!("nsm-cni: {error}"),
        }
    }
}

impl Wanted {
    /// Whether the result has what the pod's annotation asks for.
    pub(crate) fn verify(&self, result: &Value) -> Result<(), Error> {
        let network = &self.network;
        let refused = |what: String| {
            let kinds: Vec<&str> = network.list.plugins.iter().map(super::network::kind).collect();
            let msg = format!(
                "network {:?}, interface {}: the pod's annotation asks for {what}, and {} did not give it: expected plugins that heed \
                 it, by capability or CNI_ARGS",
                network.name,
                network.ifname,
                kinds.join(" and ")
            );
            Error::new(code::REFUSED, msg)
        };
        let made = Answer::parse(result, network.list.version()?)?;
        for asked in &self.ips {
            let (address, prefix) = match asked.split_once('/') {
                Some((address, prefix)) => (address, prefix.parse::<u8>().ok()),
                None => (asked.as_str(), None),
            };
            let address = address.parse::<std::net::IpAddr>().ok();
            let is_it = |made: &nsm_cni_types::Ip| {
                Some(made.address.ip()) == address && prefix.is_none_or(|prefix| prefix == made.address.prefix())
            };
            if !made.ips.iter().any(is_it) {
                return Err(refused(format!("address {asked}")));
            }
        }
        let Some(mac) = &self.mac else { return Ok(()) };
        let has_it = made.interfaces.iter().any(|one| {
            one.sandbox.as_ref().is_some_and(|path| !path.is_empty())
                && one.mac.as_ref().is_some_and(|made| made.eq_ignore_ascii_case(mac))
        });
        if has_it { Ok(()) } else { Err(refused(format!("hardware address {mac}"))) }
    }
}

/// What the pod's annotations ask for beside its networks. The answer, with the services' DNS where that is allowed.
fn services(
    call: &Call,
    meta: &Meta,
    args: Args,
    (netns, told): (&Netns, Vec<MadeNetwork>),
    mut answer: Answer,
    attempt: &Attempt<'_>,
) -> Result<String, Error> {
    let of_pod = of_pod(meta);
    let mut before = answer.clone();
    for network in attempt.record.networks.iter().skip(1) {
        before.extend(attempt.result(network)?);
    }
    let conf = conf(meta, before);
    let all = pod::add(call, &conf, &of_pod, args, netns, told)?;
    if of_pod.allow_dns {
        let all: Value = serde_json::from_str(&all).map_err(|error| Error::new(code::INTERNAL, error.to_string()))?;
        answer.dns = Answer::parse(&all, call.stdin.version)?.dns;
    }
    Ok(answer.to_json()?.to_string())
}

/// As the pod's network services see it: behind the networks.
pub(crate) fn conf(meta: &Meta, before: Answer) -> Conf {
    Conf {
        mode: Mode::Pod(of_pod(meta)),
        socket: meta.socket.clone(),
        timeout: meta.timeout,
        agent_wait: meta.agent_wait,
        allow_default_route: meta.allow_default_route,
        allow_route_overlap: meta.allow_route_overlap,
        prev_result: Some(before),
    }
}

/// What is known of network services that the pod may ask for.
pub(crate) fn of_pod(meta: &Meta) -> OfPod {
    OfPod { annotations: meta.annotations().map(|(_, services)| services), allow_dns: meta.allow_dns }
}
