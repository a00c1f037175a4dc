//! The records: an attachment as the runtime asked for it, and a connection as it was negotiated and wired.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use nsm_cni_types::pods::{self, Annotations};
use nsm_netlink::{IfName, Mac, Mtu, NetnsId};
use nsm_proto::{cni, connection::Connection};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Record, Records};
use crate::{forwarder::Wire, processes::PodUid};

/// A connection's id at this agent: the id of the agent's path segment.
pub type ConnectionId = String;

/// What names an attachment: DEL has no more than this.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

impl AttachmentKey {
    /// The id of its connection at segment 0: the same for the same attachment, so that it is found again after a restart.
    pub fn client_id(&self) -> String {
        let name = format!("{}\0{}", self.container_id, self.ifname);
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }
}

impl fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

impl From<cni::AttachmentKey> for AttachmentKey {
    fn from(key: cni::AttachmentKey) -> Self {
        Self { container_id: key.container_id, ifname: key.ifname }
    }
}

impl From<AttachmentKey> for cni::AttachmentKey {
    fn from(key: AttachmentKey) -> Self {
        Self { container_id: key.container_id, ifname: key.ifname }
    }
}

/// The pod that an attachment is for, as the runtime named it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_UID.
    pub uid: String,
}

/// What an endpoint may do to the routes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePolicy {
    /// Give it a default route.
    pub default_route: bool,
    /// Give it a route that overlaps one it has.
    pub overlap: bool,
}

/// Who asked for an attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// A network configuration that names the service: the key is that of the CNI call.
    #[default]
    Configuration,
    /// An annotation: the key names the interface that was made.
    Annotation {
        /// CNI_IFNAME of the pod's call, which ends all that its annotations made.
        ifname: String,
    },
}

/// An ADD that was asked for and not yet deleted. It is whole when its connection is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// What names it.
    pub key: AttachmentKey,
    /// The interface's name in the pod.
    pub interface: IfName,
    /// Who asked.
    #[serde(default)]
    pub source: Source,
    /// `name` of the network configuration.
    pub network: String,
    /// CNI_NETNS.
    pub netns_path: PathBuf,
    /// The namespace that the path named at ADD.
    pub netns: NetnsId,
    /// What the pod asked for.
    pub network_service: String,
    /// The client's labels, ours included.
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    pub pod: Option<Pod>,
    /// The hardware address that the interface has, also when it is made again: the runtime was told.
    pub mac: Mac,
    /// The addresses that the interface must have; empty: any. New records have it always.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// Largest packet that the configuration asks for.
    pub mtu: Option<Mtu>,
    /// What the configuration allows.
    pub routes: RoutePolicy,
    /// The connection's id at segment 0, the same after a restart.
    pub client_id: String,
}

impl Attachment {
    /// The key of the CNI call that ends it and that runtimes know it by.
    pub fn call_key(&self) -> AttachmentKey {
        self.pod_key().unwrap_or_else(|| self.key.clone())
    }

    /// Whether an annotation of the pod with this call asked.
    pub fn is_of_pod(&self, call: &AttachmentKey) -> bool {
        match &self.source {
            Source::Configuration => false,
            Source::Annotation { ifname } => *ifname == call.ifname && self.key.container_id == call.container_id,
        }
    }

    /// The pod's other interfaces of the same awareness group: endpoints may give both the same.
    pub fn aware_of(&self, attachments: &Records<Self>) -> Vec<IfName> {
        let group = |one: &Self| one.labels.get(pods::AWARENESS_GROUP).filter(|group| !group.is_empty()).cloned();
        let Some(own) = group(self) else { return Vec::new() };
        let others = attachments
            .select(|other| other.netns == self.netns && other.key != self.key && group(other).as_ref() == Some(&own));
        others.iter().map(|other| other.interface.clone()).collect()
    }

    /// The key of the pod's CNI call, if an annotation asked.
    pub fn pod_key(&self) -> Option<AttachmentKey> {
        match &self.source {
            Source::Configuration => None,
            Source::Annotation { ifname } => {
                Some(AttachmentKey { container_id: self.key.container_id.clone(), ifname: ifname.clone() })
            }
        }
    }
}

/// An ADD under way of a pod that asks by annotation: what it has made so far is undone when it is cut short.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodAdd {
    /// The key of the CNI call.
    pub key: AttachmentKey,
}

/// What a pod's namespace asked for when the pod's sandbox was made: an edit of the namespace's annotations counts for later pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// The key of the CNI call.
    pub key: AttachmentKey,
    /// The namespace's annotations then.
    pub annotations: Annotations,
}

impl Record for Inherited {
    type Key = AttachmentKey;
    const FOLDER: &'static str = "inherited";

    fn key(&self) -> AttachmentKey {
        self.key.clone()
    }

    fn file_name(key: &AttachmentKey) -> String {
        Attachment::file_name(key)
    }
}

impl Record for PodAdd {
    type Key = AttachmentKey;
    const FOLDER: &'static str = "pod-adds";

    fn key(&self) -> AttachmentKey {
        self.key.clone()
    }

    fn file_name(key: &AttachmentKey) -> String {
        Attachment::file_name(key)
    }
}

impl Record for Attachment {
    type Key = AttachmentKey;
    const FOLDER: &'static str = "attachments";

    fn key(&self) -> AttachmentKey {
        self.key.clone()
    }

    fn file_name(key: &AttachmentKey) -> String {
        // Container ids have no `+`; both parts keep to their own alphabets (CNI specification), so this is unique.
        file_name(&format!("{}+{}", key.container_id, key.ifname))
    }
}

/// Who asked for a connection, and so who alone may refresh, close or watch it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// The CNI plugin, for this attachment.
    Attachment(AttachmentKey),
    /// Processes of one network namespace, that is, a pod.
    Pod(NetnsId),
    /// A user's processes in the agent's own network namespace.
    Host {
        /// Effective user id when the socket was connected.
        uid: u32,
        /// The pod with `hostNetwork` that they are of, where that is known. A version that knows no such pods reads the user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<PodUid>,
        /// How sure that is.
        #[serde(default, skip_serializing_if = "Proof::is_enough")]
        proof: Proof,
    },
}

/// How sure it is whose a process in the agent's own network namespace is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// As sure as is asked for.
    #[default]
    Enough,
    /// Told from the process's number, which was another's if the one that connected had ended: before Linux 6.5.
    NumberOnly,
}

impl Proof {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_enough(&self) -> bool {
        *self == Self::Enough
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attachment(key) => write!(f, "attachment {key}"),
            Self::Pod(netns) => write!(f, "network namespace {netns}"),
            Self::Host { uid, pod: None, .. } => write!(f, "host, user {uid}"),
            Self::Host { uid, pod: Some(pod), .. } => write!(f, "pod {pod} in the host's network, user {uid}"),
        }
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// An endpoint may have been asked, a wire may have been begun: after a restart both are undone.
    Adding,
    /// Whole.
    Up,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adding => "adding",
            Self::Up => "up",
        })
    }
}

/// Who chose the endpoint of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChosenBy {
    /// The client, who asked for this one and no other. So it may be where a version that did not record it made the connection.
    #[default]
    Client,
    /// The matches of the network service.
    Matches,
}

/// A connection of this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connected {
    /// Its id at this agent.
    pub id: ConnectionId,
    /// Its id at whoever asked.
    pub client_id: String,
    /// Who asked.
    pub owner: Owner,
    /// How far it is.
    pub phase: Phase,
    /// The endpoint's name in the registry.
    pub endpoint: String,
    /// The registration of the endpoint that answered, while the agent lives that saw it: another number, another life.
    #[serde(skip)]
    pub place: Option<u64>,
    /// Who chose the endpoint.
    #[serde(default)]
    pub chosen_by: ChosenBy,
    /// As the client knows it, its own mechanism in it, at this agent's index.
    pub client_side: Encoded,
    /// As the endpoint knows it, at this agent's index.
    pub endpoint_side: Encoded,
    /// What was, or is about to be, made between the two.
    pub wire: Option<Wire>,
    /// When it was asked for first.
    pub since: SystemTime,
}

impl Record for Connected {
    type Key = ConnectionId;
    const FOLDER: &'static str = "connections";

    fn key(&self) -> ConnectionId {
        self.id.clone()
    }

    fn file_name(key: &ConnectionId) -> String {
        file_name(key)
    }
}

/// A name that is safe as a file's: itself where it is short and plain, else its readable start and a hash of it all.
fn file_name(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.');
    if key.len() <= 180 && key.chars().all(plain) && !key.starts_with('.') {
        return key.to_owned();
    }
    let start: String = key.chars().filter(|c| plain(*c) && *c != '.').take(100).collect();
    format!("{start}~{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes()).simple())
}

/// A connection in its wire form: a tenth of the memory, and fields that this version does not know stay what they are.
/// Base64 in files.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded(Box<[u8]>);

impl Encoded {
    /// The connection.
    pub fn decoded(&self) -> Connection {
        // Checked when it was read, and encoded by this process otherwise.
        Connection::decode(&*self.0).unwrap_or_default()
    }
}

impl From<&Connection> for Encoded {
    fn from(connection: &Connection) -> Self {
        Self(connection.encode_to_vec().into_boxed_slice())
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        Connection::decode(&*bytes).map_err(D::Error::custom)?;
        Ok(Self(bytes.into_boxed_slice()))
    }
}
