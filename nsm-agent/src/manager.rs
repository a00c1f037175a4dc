//! The manager: the chain that serves every Request of this node, whoever asks.

mod asked;
mod clients;
mod heal;
mod ids;
mod lookup;
mod measured;
mod misfits;
mod owed;
mod recover;
mod running;
mod select;
mod turns;
mod wires;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use nsm_netlink::Netlink;
use nsm_proto::connection::Connection;
use nsm_sdk::{
    Call, Chain, Close, Element, Error, Next, Request,
    begin::{Begin, Events},
    chain,
    connect::{Connect, Peers},
    expiry::Expiry,
    heal::NextHops,
    monitor::Monitor,
    path::{self, Path},
    refresh::Refresh,
    serve::Caller,
    token::{Token, TokenSource},
    token_headers::{CallerToken, OwnToken},
};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use clients::Clients;
pub use heal::{Ailment, Ends, Healer};
use heal::{Mailbox, Refreshes, Told};
pub use ids::{CalledOff, ForAttachment, Ids};
pub use lookup::{Candidate, Endpoints, Found};
pub use owed::{Owed, OwedClose, Ways};
pub use recover::{Recovered, recover};
use running::Running;
pub use select::Select;
pub use turns::{Slot, Turns};
pub use wires::Wires;

pub use crate::netns::PodsNetns;

use self::{
    measured::Measured,
    misfits::{Misfits, Moves},
};
use crate::{
    excluded::Excluded,
    forwarder::Forwarders,
    metrics::Metrics,
    registry::Pods,
    state::{Attachment, AttachmentKey, Connected, Records, blocking},
};

/// Everything that serves Requests, and the handles to it.
#[derive(Clone)]
pub struct Manager {
    /// For Requests of other processes.
    pub serving: Chain,
    /// For the attachments of the CNI plugin: a client of the chain above, in this process.
    pub attaching: Chain,
    /// What keeps connections in order, by this agent's ids.
    pub begin: Begin,
    /// The same for attachments, by their client ids.
    pub attached: Begin,
    /// Tells clients what becomes of their connections.
    pub monitor: Monitor,
    /// The element that ends connections.
    pub wires: Arc<Wires>,
    /// Ends that endpoints have still to hear.
    pub owed: Owed,
    /// Where endpoints are found.
    pub endpoints: Endpoints,
    /// Whose pods clients are.
    pub clients: Clients,
    /// Addresses that no endpoint should give.
    pub excluded: Excluded,
    /// What the CNI plugin asked for.
    pub attachments: Records<Attachment>,
    /// Whose turn it is at each of them.
    pub turns: Turns,
    misfits: Misfits,
    behind_begin: Chain,
    behind_attached: Chain,
    refresh: Refresh,
    expiry: Expiry,
    to_endpoint: Chain,
    /// What chains say to the healer, until it takes it.
    told: Arc<Mutex<Option<Told>>>,
}

/// What a manager is made of.
pub struct Parts {
    /// This agent's name on paths.
    pub name: String,
    /// Whose connections are whose.
    pub ids: Arc<Ids>,
    /// Where endpoints are found.
    pub endpoints: Endpoints,
    /// The pods of this node.
    pub pods: Arc<dyn Pods>,
    /// Addresses that no endpoint should give.
    pub excluded: Excluded,
    /// Connections to endpoints.
    pub peers: Peers,
    /// This agent's tokens.
    pub tokens: Arc<dyn TokenSource>,
    /// The connections of this node.
    pub connections: Records<Connected>,
    /// What the CNI plugin asked for.
    pub attachments: Records<Attachment>,
    /// Who makes wires.
    pub forwarders: Arc<Forwarders>,
    /// Ends that endpoints have still to hear.
    pub owed: Owed,
    /// Tells clients what becomes of their connections.
    pub monitor: Monitor,
    /// Counts and durations.
    pub metrics: Metrics,
}

impl Manager {
    /// Joins the parts into chains.
    pub fn new(parts: Parts) -> Self {
        let Parts { name, ids, endpoints, pods, peers, tokens, connections, attachments, .. } = parts;
        let Parts { forwarders, owed, monitor, metrics, excluded, .. } = parts;
        let clients = Clients::new(ids.clone(), attachments.clone(), pods);
        let (begin, attached) = (Begin::new(), Begin::new().quiet().carry::<ForAttachment>());
        let (refresh, expiry) = (Refresh::new(), Expiry::new());
        let by_endpoints = Arc::new(Mailbox::default());
        let told = by_endpoints.clone();
        let hops = NextHops::new(peers.clone(), name.clone(), move |event| told.put(event));
        let (refreshes, by_refreshes) = mpsc::unbounded_channel();
        let turns = Turns::default();
        let wires = Arc::new(Wires::new(connections, attachments.clone(), forwarders, owed.clone(), ids.clone(), hops));
        let misfits = Misfits::new(endpoints.clone(), clients.clone(), attachments.clone());
        let to_endpoint = chain![Token::client(tokens.clone()), path::Verify, Connect::noted(peers)];
        let behind_begin = chain![
            Token::server(tokens.clone()),
            Moves { misfits: misfits.clone(), wires: wires.clone() },
            monitor.clone(),
            expiry.clone(),
            Select {
                endpoints: endpoints.clone(),
                wires: wires.clone(),
                clients: clients.clone(),
                excluded: excluded.clone()
            },
            Shared(wires.clone()),
            to_endpoint.clone(),
        ];
        let serving = chain![
            Measured(metrics),
            Path::server(name.clone()).ids(ids.clone()),
            Running::new(ids),
            begin.clone(),
            behind_begin.clone()
        ];
        let behind_attached = chain![
            Refreshes(refreshes),
            refresh.clone(),
            Token::client(tokens),
            InProcess { attachments: attachments.clone(), turns: turns.clone() },
            serving.clone()
        ];
        let attaching = chain![Path::client(name), attached.clone(), behind_attached.clone()];
        Self {
            serving,
            attaching,
            begin,
            attached,
            monitor,
            wires,
            owed,
            endpoints,
            clients,
            excluded,
            attachments,
            turns,
            misfits,
            behind_begin,
            behind_attached,
            refresh,
            expiry,
            to_endpoint,
            told: Arc::new(Mutex::new(Some(Told { by_endpoints, by_refreshes }))),
        }
    }

    /// Starts what works beside Requests: deliveries to endpoints, and heal.
    pub fn start(
        &self,
        netlink: &Netlink,
        metrics: Metrics,
        ends: Arc<dyn Ends>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Healer {
        let ways = Ways {
            endpoints: self.endpoints.clone(),
            towards: self.to_endpoint.clone(),
            connections: self.wires.connections.clone(),
        };
        tasks.spawn(self.owed.clone().run(ways, stop.clone()));
        let healer = Healer::new(self.clone(), metrics, ends, tasks.clone(), stop.clone());
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(told) = told {
            healer.start(netlink, told);
        }
        healer
    }

    /// Asks for events of an attachment's connection; none when either is not known.
    pub fn events_of(&self, key: &AttachmentKey) -> Option<Events> {
        self.attached.events(&self.attachments.get(key)?.client_id)
    }

    /// What became of the namespace of an attachment.
    pub async fn pods_netns(&self, attachment: &Attachment) -> PodsNetns {
        let (path, recorded) = (attachment.netns_path.clone(), attachment.netns);
        blocking(move || PodsNetns::find(&path, recorded)).await
    }

    /// Waits for what is under way, at most `bound`, and takes nothing new. Connections stay.
    pub async fn drain(&self, bound: Duration) {
        let deadline = tokio::time::Instant::now() + bound;
        self.monitor.shut_down();
        let ended = self.attached.drain(deadline).await + self.begin.drain(deadline).await;
        if ended > 0 {
            tracing::warn!(ended, "requests were cut short by the shutdown: the next start undoes or finishes them");
        }
    }
}

/// An element that others hold too.
struct Shared<E: Element>(Arc<E>);

#[async_trait]
impl<E: Element> Element for Shared<E> {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        self.0.request(request, next).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.0.close(close, next).await
    }
}

/// What the socket's edge does for other processes: says who calls, and hands over the token.
struct InProcess {
    attachments: Records<Attachment>,
    turns: Turns,
}

/// Keeps an attachment's slot while an event of its connection runs: the end of the attachment calls the event off.
#[derive(Debug, Clone)]
struct Held(#[expect(dead_code, reason = "held until it is dropped")] Arc<Slot>);

impl InProcess {
    fn introduce(&self, call: &Call, connection: &Connection) {
        call.note(Caller::InProcess);
        if let Some(OwnToken { token, expires }) = call.noted() {
            call.note(CallerToken { token, expires });
        }
        // An event of a connection from before a restart has no notes of its own.
        if call.noted::<ForAttachment>().is_none()
            && let Some(attachment) = self.attachments.find(|attachment| attachment.client_id == connection.id)
        {
            call.note(ForAttachment(attachment.key.clone()));
        }
        // An ADD brings its own.
        if call.noted::<CalledOff>().is_none()
            && let Some(ForAttachment(key)) = call.noted()
        {
            let slot = self.turns.at(&key);
            call.note(CalledOff(slot.ended()));
            call.note(Held(slot));
        }
    }
}

#[async_trait]
impl Element for InProcess {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        self.introduce(&request.call, &request.connection);
        next.request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.introduce(&close.call, &close.connection);
        next.close(close).await
    }
}
