//! The calling edge: the end of a client's chain sends Requests and Closes to the next hop.
//!
//! Guarantees: one kept connection per peer, dialled when it is first needed and again after it died; files that the message
//! names go ahead of it, files that the answer names are in `call.files`; no call lasts beyond its deadline; an answer beyond
//! the bounds of [`limits`] is refused.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use nsm_fdpass::{FdChannel, InodeId};
use nsm_proto::{
    connection::{Connection, Mechanism, monitor_connection_client::MonitorConnectionClient},
    header,
    mechanism::INODE_URL,
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Code, Status, metadata::AsciiMetadataValue, transport::Channel};

use crate::{
    Call, Close, Element, Error, Kind, Next, Request, limits,
    token_headers::{self, OwnToken},
};

/// Longest text of a peer's refusal that is passed on, in characters.
const REASON: usize = 500;

/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_mins(10);

/// Most files of running calls on one connection: a peer gives up a socket on which [`nsm_fdpass::MAX_FILES`] wait.
const PLACES: usize = nsm_fdpass::MAX_FILES / 2;

/// Most connections that are kept.
const MOST_PEERS: usize = 1024;

/// How early the other end's clock may see a deadline that went to it as a duration.
const AT_DEADLINE: Duration = Duration::from_millis(20);

/// Where the next hop listens: a note for [`Connect`].
#[derive(Clone)]
pub enum Target {
    /// A unix socket by its path.
    Unix(PathBuf),
    /// A unix socket whose file was passed.
    File(Arc<OwnedFd>),
}

/// What tells one peer from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Unix(PathBuf),
    File(InodeId),
}

impl Target {
    pub(crate) fn key(&self) -> Result<Key, Error> {
        match self {
            Self::Unix(path) => Ok(Key::Unix(path.clone())),
            Self::File(file) => InodeId::of(&**file).map(Key::File).map_err(|error| Error::new(Kind::Internal, error)),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::File(file) => match InodeId::of(&**file) {
                Ok(id) => write!(f, "{id}"),
                Err(_) => write!(f, "a passed socket"),
            },
        }
    }
}

/// One kept connection. Calls and streams that still use it outlive its place in the pool.
struct Kept {
    channel: FdChannel,
    /// One for each file of the calls that run.
    places: Arc<Semaphore>,
    used: Instant,
    /// A passed socket's inode names the peer, and stays its own only while it is held.
    _target: Target,
}

/// A connection for one call.
struct Lease {
    channel: FdChannel,
    _place: Option<OwnedSemaphorePermit>,
}

/// Kept connections to peers. Clones share them.
#[derive(Clone, Default)]
pub struct Peers {
    kept: Arc<Mutex<HashMap<Key, Kept>>>,
}

impl Peers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The kept connection to a peer, or a new one.
    pub async fn channel(&self, target: &Target, call: &Call) -> Result<FdChannel, Error> {
        Ok(self.lease(target, call, 0).await?.channel)
    }

    /// A connection with room for so many files. Where the kept one has none the call gets one of its own, so that it waits
    /// for no other call.
    async fn lease(&self, target: &Target, call: &Call, files: usize) -> Result<Lease, Error> {
        let key = target.key()?;
        let room = u32::try_from(files).unwrap_or(u32::MAX);
        let kept = self.kept(&key);
        let is_busy = kept.is_some();
        if let Some((channel, places)) = kept
            && let Ok(place) = places.try_acquire_many_owned(room)
        {
            return Ok(Lease { channel, _place: Some(place) });
        }
        let dialled = match target {
            Target::Unix(path) => nsm_fdpass::connect(path, call.deadline).await,
            Target::File(file) => nsm_fdpass::connect_file(file, call.deadline).await,
        };
        let channel = dialled.map_err(|error| Error::new(Kind::Unavailable, error))?;
        let places = Arc::new(Semaphore::new(PLACES));
        let place = places.clone().try_acquire_many_owned(room).ok();
        if !is_busy && place.is_some() {
            self.keep(key, Kept { channel: channel.clone(), places, used: Instant::now(), _target: target.clone() });
        }
        Ok(Lease { channel, _place: place })
    }

    /// The open connection to a peer. Closed ones, and what was idle for [`IDLE`], go at the same time.
    fn kept(&self, key: &Key) -> Option<(FdChannel, Arc<Semaphore>)> {
        let mut kept = self.lock();
        let now = Instant::now();
        kept.retain(|_, peer| !peer.channel.is_closed() && now.duration_since(peer.used) < IDLE);
        let peer = kept.get_mut(key)?;
        peer.used = now;
        Some((peer.channel.clone(), peer.places.clone()))
    }

    fn keep(&self, key: Key, fresh: Kept) {
        let mut kept = self.lock();
        if kept.len() >= MOST_PEERS
            && let Some(oldest) = kept.iter().min_by_key(|(_, peer)| peer.used).map(|(key, _)| key.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(key, fresh);
    }

    /// A client of the peer's MonitorConnection service.
    pub async fn monitor(&self, target: &Target, call: &Call) -> Result<MonitorConnectionClient<Channel>, Error> {
        let channel = self.channel(target, call).await?.channel;
        Ok(MonitorConnectionClient::new(channel).max_decoding_message_size(limits::MESSAGE))
    }

    /// Drops the connection to a peer that has failed: the next call dials.
    pub fn forget(&self, target: &Target) {
        if let Ok(key) = target.key() {
            self.lock().remove(&key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The element. The target is the call's note, else the one given here.
pub struct Connect {
    peers: Peers,
    target: Option<Target>,
}

impl Connect {
    /// To whatever [`Target`] the call's notes name.
    pub fn noted(peers: Peers) -> Self {
        Self { peers, target: None }
    }

    /// Whether a call failed for want of a socket, which is then given up, and never reached the peer.
    fn died_before(&self, target: &Target, peer: &FdChannel, status: &Status) -> bool {
        let dead = is_dead(peer, status);
        if dead {
            self.peers.forget(target);
        }
        dead && is_stale(status)
    }

    /// Always to this one.
    pub fn to(peers: Peers, target: Target) -> Self {
        Self { peers, target: Some(target) }
    }

    fn target(&self, call: &Call) -> Result<Target, Error> {
        let target = call.noted().or_else(|| self.target.clone());
        target.ok_or_else(|| Error::new(Kind::Internal, "no next hop was chosen"))
    }
}

#[async_trait]
impl Element for Connect {
    async fn request(&self, request: Request, _: Next) -> Result<Connection, Error> {
        let target = self.target(&request.call)?;
        let call = request.call;
        let mut connection = request.connection;
        only_passed(&mut connection, &call);
        let message =
            NetworkServiceRequest { connection: Some(connection), mechanism_preferences: request.preferences };
        let named =
            named(message.connection.iter().filter_map(|c| c.mechanism.as_ref()).chain(&message.mechanism_preferences));
        // A kept connection may have died unnoticed: once more on a new one.
        for attempt in 0.. {
            let lease = self.peers.lease(&target, &call, named.len()).await?;
            let peer = &lease.channel;
            pass(peer, &call, &named)?;
            let mut client = NetworkServiceClient::new(peer.channel.clone()).max_decoding_message_size(limits::MESSAGE);
            match bounded(&call, client.request(headed(message.clone(), &call)?)).await {
                Ok(answer) => return accept(answer, peer, &call),
                Err(status) if self.died_before(&target, peer, &status) && attempt == 0 => {}
                Err(status) => return Err(said(&status)),
            }
        }
        Err(Error::new(Kind::Unavailable, "the next hop cannot be reached"))
    }

    async fn close(&self, close: Close, _: Next) -> Result<(), Error> {
        let target = self.target(&close.call)?;
        let mut close = close;
        let named = named(close.connection.mechanism.iter());
        only_passed(&mut close.connection, &close.call);
        for attempt in 0.. {
            let lease = self.peers.lease(&target, &close.call, named.len()).await?;
            let peer = &lease.channel;
            pass(peer, &close.call, &named)?;
            let mut client = NetworkServiceClient::new(peer.channel.clone());
            match bounded(&close.call, client.close(headed(close.connection.clone(), &close.call)?)).await {
                Ok(()) => {
                    // A Go peer passes the files of what it closed once more: kept, they would pin it.
                    for id in &named {
                        drop(peer.inbox.take(*id));
                    }
                    return Ok(());
                }
                Err(status) if self.died_before(&target, peer, &status) && attempt == 0 => {}
                Err(status) => return Err(said(&status)),
            }
        }
        Ok(())
    }
}

/// The files that mechanisms name.
fn named<'a>(mechanisms: impl Iterator<Item = &'a Mechanism>) -> BTreeSet<InodeId> {
    mechanisms.filter_map(|mechanism| mechanism.parameters.get(INODE_URL)?.parse().ok()).collect()
}

/// Leaves out the URL of a file that does not go along: the next hop would wait for it.
fn only_passed(connection: &mut Connection, call: &Call) {
    let Some(mechanism) = &mut connection.mechanism else { return };
    let named: Option<InodeId> = mechanism.parameters.get(INODE_URL).and_then(|url| url.parse().ok());
    if named.is_some_and(|id| call.files.get(id).is_none()) {
        mechanism.parameters.remove(INODE_URL);
    }
}

fn pass(peer: &FdChannel, call: &Call, named: &BTreeSet<InodeId>) -> Result<(), Error> {
    for file in named.iter().filter_map(|id| call.files.get(*id)) {
        peer.outbox.send(file).map_err(|error| Error::new(Kind::Exhausted, error))?;
    }
    Ok(())
}

async fn bounded<T>(call: &Call, rpc: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout_at(call.deadline, rpc).await {
        // Either end's gRPC may be first to see the deadline, and calls that CANCELLED. Nobody else cancels this call.
        Ok(Err(status)) if status.code() == Code::Cancelled && call.remaining() < AT_DEADLINE => {
            Err(Status::deadline_exceeded("no answer in time"))
        }
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

fn headed<T>(message: T, call: &Call) -> Result<tonic::Request<T>, Error> {
    let mut rpc = tonic::Request::new(message);
    rpc.set_timeout(call.remaining());
    if let Some(OwnToken { token, expires }) = call.noted() {
        let value =
            |text: String| AsciiMetadataValue::try_from(text).map_err(|error| Error::new(Kind::Internal, error));
        rpc.metadata_mut().insert(header::CLIENT_TOKEN, value(token)?);
        rpc.metadata_mut().insert(header::CLIENT_TOKEN_EXPIRES, value(token_headers::format(expires))?);
    }
    Ok(rpc)
}

fn accept(answer: Connection, peer: &FdChannel, call: &Call) -> Result<Connection, Error> {
    for id in named(answer.mechanism.iter()) {
        // Taken even if it is known: on a kept connection each refresh would leave one more.
        if let Some(file) = peer.inbox.take(id) {
            call.files.add(file)?;
        }
    }
    // Only now: the files of a refused answer must not stay behind on the kept connection.
    limits::connection(&answer)
        .map_err(|error| Error::new(Kind::Refused, format!("the next hop answered: {error}")))?;
    Ok(answer)
}

/// Whether the socket has to be given up. A peer's own UNAVAILABLE or CANCELLED says nothing about it, and others use it too.
fn is_dead(peer: &FdChannel, status: &Status) -> bool {
    peer.is_closed() || is_transport(status)
}

/// Whether the call never reached the peer, because the socket had died before.
fn is_stale(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                error.kind(),
                std::io::ErrorKind::NotConnected | std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
            );
        }
        cause = error.source();
    }
    false
}

fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>)
}

/// The peer's own words, shortened and without control characters.
pub(crate) fn said(status: &Status) -> Error {
    let kind = if is_transport(status) { Kind::Unavailable } else { Kind::of(status.code()) };
    let reason: String = status.message().chars().take(REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let reason = if reason.is_empty() { status.code().to_string() } else { reason };
    Error::new(kind, reason)
}
