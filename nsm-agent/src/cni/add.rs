//! ADD: record what is asked, connect through the client chain, answer what was made.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use nsm_cni_types::{Mechanism, RESERVED_LABELS};
use nsm_netlink::{IfName, Mac, Mtu, Netns, NetnsSocket};
use nsm_proto::{
    cni::{AddRequest, AddResponse},
    connection::{self, Connection},
    connectioncontext::{ConnectionContext, EthernetContext, IpContext},
    mechanism::{INTERFACE_NAME, KERNEL, LOCAL, MTU},
};
use nsm_sdk::{Call, Error, Kind, Request, serve::Connection as Socket};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Server, notes::Note, result};
use crate::{
    failpoint,
    forwarder::kernel::present_prefixes,
    manager::{CalledOff, ForAttachment, Slot},
    netns::passed,
    state::{Attachment, AttachmentKey, Pod, Records, RoutePolicy, blocking},
};

/// Longest ADD, whatever the plugin says.
const LONGEST: Duration = Duration::from_mins(2);

/// How an ADD begins.
enum Begun {
    /// It is recorded. The pod's prefixes, which no endpoint should hand out again.
    Recorded(Vec<String>),
    /// First a DEL of the same attachment has to be worked off.
    Owed(Note),
}

impl Server {
    /// Takes the namespace that the plugin passed with its call.
    pub(super) async fn passed_netns(&self, socket: &Socket, url: &str) -> Result<Netns, Status> {
        let id = url.parse::<nsm_fdpass::InodeId>().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let file = socket.inbox.take(id).ok_or_else(|| {
            Status::invalid_argument(format!("the call names the network namespace {url} and did not pass it"))
        })?;
        let taken = passed(Arc::new(file), self.parts.netlink.netns().id()).await;
        taken.map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Connects, unless it is called off: then nothing is left of it when its turn ends.
    pub(super) async fn add_one(
        &self,
        key: &AttachmentKey,
        slot: &Slot,
        asked: AddRequest,
        netns: Netns,
        called_off: CancellationToken,
    ) -> Result<AddResponse, Status> {
        let timeout = Duration::from_millis(asked.timeout_ms.into()).clamp(Duration::from_secs(1), LONGEST);
        let deadline = tokio::time::Instant::now() + timeout;
        let _turn = tokio::select! {
            turn = slot.turn() => turn,
            () = called_off.cancelled() => return Err(cancelled().into()),
            () = tokio::time::sleep_until(deadline) => {
                return Err(Status::unavailable(format!(
                    "another operation on attachment {key} did not end in {timeout:?}"
                )));
            }
        };
        if self.parts.manager.attachments.get(key).is_some() {
            self.work_off_note(key).await?;
        }
        if let Some(known) = self.parts.manager.attachments.get(key) {
            return Err(Status::already_exists(format!(
                "attachment {key} exists, in network {:?}: DEL it first",
                known.network
            )));
        }
        let done = self.connect(key, asked, netns, deadline, &called_off).await;
        let done = if called_off.is_cancelled() { done.and_then(|_| Err(cancelled())) } else { done };
        if done.is_err()
            && let Err(error) = self.parts.manager.detach(key).await
        {
            tracing::error!(container = key.container_id, ifname = key.ifname, %error, "a failed ADD is not undone yet: its record stays until DEL");
        }
        done.map_err(Status::from)
    }

    async fn connect(
        &self,
        key: &AttachmentKey,
        asked: AddRequest,
        netns: Netns,
        deadline: tokio::time::Instant,
        called_off: &CancellationToken,
    ) -> Result<AddResponse, Error> {
        let attachment = self.attachment(key, &asked, &netns)?;
        let prefixes = match self.begin(attachment.clone(), netns.clone()).await? {
            Begun::Recorded(prefixes) => prefixes,
            Begun::Owed(note) => {
                let failed = |status: Status| Error::new(Kind::of(status.code()), status.message().to_owned());
                self.settle(key, note).await.map_err(failed)?;
                let (attachments, attachment, netns) =
                    (self.parts.manager.attachments.clone(), attachment.clone(), netns.clone());
                blocking(move || record(&attachments, attachment, &netns)).await?
            }
        };
        let mut call = Call::new(Duration::ZERO);
        call.deadline = deadline;
        call.note(ForAttachment(key.clone()));
        call.note(CalledOff(called_off.clone()));
        call.note(netns);
        let request = request(&attachment, &asked, prefixes, call);
        let connection = tokio::select! {
            made = self.parts.manager.attaching.request(request) => made?,
            () = called_off.cancelled() => return Err(cancelled()),
            () = tokio::time::sleep_until(deadline) => {
                return Err(Error::new(
                    Kind::Deadline,
                    "no endpoint served in time: the agent's log names those that were asked",
                ));
            }
        };
        result::of(&attachment, &connection, self.wire_of(&connection).as_ref())
    }

    fn attachment(&self, key: &AttachmentKey, asked: &AddRequest, netns: &Netns) -> Result<Attachment, Error> {
        let invalid = |what: String| Error::new(Kind::Invalid, what);
        if netns.id() == self.parts.netlink.netns().id() {
            return Err(invalid(format!("{} is the agent's own network namespace", asked.netns_path)));
        }
        if asked.network_service.is_empty() || asked.network_service.len() > 253 {
            return Err(invalid(format!("networkService {:?}: expected 1 to 253 bytes", asked.network_service)));
        }
        // The only one there is: the request below asks for it.
        let Mechanism::Kernel = Mechanism::parse(&asked.mechanism).map_err(|error| invalid(error.to_string()))?;
        let mut labels: BTreeMap<String, String> = asked.labels.clone();
        if let Some(reserved) = RESERVED_LABELS.iter().find(|name| labels.contains_key(**name)) {
            return Err(invalid(format!("label {reserved} is given by the agent and cannot be set")));
        }
        labels.extend(self.parts.node_labels.clone());
        let pod = asked.pod.clone().map(|pod| Pod { name: pod.name, namespace: pod.namespace, uid: pod.uid });
        if let Some(pod) = &pod {
            let of_pod = [("podName", &pod.name), ("namespace", &pod.namespace)];
            labels.extend(of_pod.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), (*v).clone())));
        }
        let mac = match asked.mac.as_str() {
            "" => Mac::random(),
            text => text.parse().map_err(|error| invalid(format!("mac {text:?}: {error}")))?,
        };
        let address = |text: &String| {
            let address = text.split('/').next().and_then(|address| address.parse().ok());
            address.ok_or_else(|| invalid(format!("ips {text:?}: expected an address")))
        };
        let ips = asked.ips.iter().map(address).collect::<Result<_, _>>()?;
        let mtu = match asked.mtu {
            0 => None,
            mtu => Some(Mtu::new(mtu).map_err(|error| invalid(error.to_string()))?),
        };
        let interface = if asked.interface.is_empty() { &key.ifname } else { &asked.interface };
        let interface = IfName::new(interface.as_str()).map_err(|error| invalid(error.to_string()))?;
        Ok(Attachment {
            key: key.clone(),
            interface,
            network: asked.network.clone(),
            netns_path: PathBuf::from(&asked.netns_path),
            netns: netns.id(),
            network_service: asked.network_service.clone(),
            labels,
            pod,
            mac,
            ips,
            mtu,
            routes: RoutePolicy { default_route: asked.allow_default_route, overlap: asked.allow_route_overlap },
            client_id: key.client_id(),
        })
    }

    /// Works off the DEL that is still owed for the same key, or it would end the new attachment.
    async fn work_off_note(&self, key: &AttachmentKey) -> Result<(), Status> {
        let (notes, of) = (self.parts.notes.clone(), key.clone());
        match blocking(move || notes.find(&of)).await {
            Some(note) => self.settle(key, note).await,
            None => Ok(()),
        }
    }

    /// Records what is asked, unless a DEL is owed or the interface's name is taken.
    async fn begin(&self, attachment: Attachment, netns: Netns) -> Result<Begun, Error> {
        let (attachments, notes) = (self.parts.manager.attachments.clone(), self.parts.notes.clone());
        blocking(move || match notes.find(&attachment.key) {
            Some(note) => Ok(Begun::Owed(note)),
            None => record(&attachments, attachment, &netns).map(Begun::Recorded),
        })
        .await
    }
}

/// Records what is asked. The answer is what the pod has already.
fn record(attachments: &Records<Attachment>, attachment: Attachment, netns: &Netns) -> Result<Vec<String>, Error> {
    let prefixes = look_into(netns, &attachment.interface)?;
    attachments
        .put_blocking(attachment)
        .map_err(|error| Error::new(if error.is_full() { Kind::Exhausted } else { Kind::Internal }, error))?;
    failpoint::hit("add.attachment-recorded");
    Ok(prefixes)
}

/// The prefixes that the pod has already. A taken name ends it here.
fn look_into(netns: &Netns, name: &IfName) -> Result<Vec<String>, Error> {
    let internal = |error: nsm_netlink::Error| Error::new(Kind::Internal, error);
    let mut pod = NetnsSocket::open(netns).map_err(internal)?;
    if pod.link_by_name(name).map_err(internal)?.is_some() {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "the pod has an interface {name} already: name another one (CNI_IFNAME, or \"interface\" in the configuration), or DEL what made it"
            ),
        ));
    }
    let prefixes = present_prefixes(&mut pod).map_err(|error| Error::new(Kind::Internal, error))?;
    Ok(prefixes.iter().map(ToString::to_string).collect())
}

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "called off: by DEL, or because the plugin has gone")
}

fn request(attachment: &Attachment, asked: &AddRequest, prefixes: Vec<String>, call: Call) -> Request {
    let mut parameters = BTreeMap::from([(INTERFACE_NAME.to_owned(), attachment.interface.to_string())]);
    if let Some(mtu) = attachment.mtu {
        parameters.insert(MTU.to_owned(), mtu.to_string());
    }
    let ip_context = IpContext {
        src_ip_addrs: asked.ips.clone(),
        src_ip_required: !asked.ips.is_empty(),
        excluded_prefixes: prefixes,
        ..IpContext::default()
    };
    let connection = Connection {
        id: attachment.client_id.clone(),
        network_service: attachment.network_service.clone(),
        labels: attachment.labels.clone(),
        context: Some(ConnectionContext {
            ip_context: Some(ip_context),
            ethernet_context: (!asked.mac.is_empty())
                .then(|| EthernetContext { src_mac: attachment.mac.to_string(), ..EthernetContext::default() }),
            mtu: attachment.mtu.map_or(0, Mtu::get),
            ..ConnectionContext::default()
        }),
        ..Connection::default()
    };
    let preference = connection::Mechanism { cls: LOCAL.into(), r#type: KERNEL.into(), parameters };
    Request { connection, preferences: vec![preference], call }
}
