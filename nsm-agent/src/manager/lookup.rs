//! Endpoints as the manager needs them: something to dial, and a namespace to wire to.

use std::{collections::BTreeMap, os::fd::AsFd, path::PathBuf, sync::Arc, time::Duration};

use nsm_netlink::Netns;
use nsm_proto::{
    connection::{Connection, ConnectionEventType, MonitorScopeSelector, PathSegment},
    registry::NetworkService,
};
use nsm_sdk::{
    Call, Error, Kind,
    connect::{Peers, Target},
    path,
};
use tokio::time::Instant;

use crate::{
    candidates::{self, Wanted},
    registry::{DIALLED, Directory, Entry, Owner, Party, Reach},
};

/// Most candidates that one Request asks in turn.
const MOST: usize = 16;
/// How long a Request waits for endpoints that a restart of the agent has cut off and that are on their way back.
const RETURN: Duration = Duration::from_secs(3);
/// How long a Request waits for what is registered to be read: an agent that has just started serves before it has, and a pod that
/// is refused waits much longer until it is tried again.
const READING: Duration = Duration::from_secs(5);

/// An endpoint that can be asked: a note for the elements that follow.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name in the registry.
    pub name: String,
    /// Its registration: another number, another life of the endpoint.
    pub place: u64,
    /// Where it listens.
    pub target: Target,
    /// The namespace that it registered from.
    pub netns: Option<Netns>,
    /// Whether it may offer other namespaces than its own: root on the host.
    pub trusted: bool,
}

impl Candidate {
    /// Has the endpoint's own namespace go with a call: a Go endpoint waits for the file that its mechanism names, at each
    /// Request and Close.
    pub fn lend_netns(&self, call: &Call) {
        let Some(netns) = &self.netns else { return };
        let lent = netns.as_fd().try_clone_to_owned().map_err(|error| Error::new(Kind::Internal, error));
        if let Err(error) = lent.and_then(|file| call.files.add(file)) {
            tracing::debug!(endpoint = self.name, %error, "called without its namespace");
        }
    }
}

/// What became of an endpoint.
#[derive(Debug)]
pub enum Found {
    /// It can be asked.
    Ready(Candidate),
    /// It is registered and cannot be asked, for this reason.
    Unreachable(String),
    /// It is not registered.
    Gone,
}

/// The registry and the ways to what it names. Clones share them.
#[derive(Clone)]
pub struct Endpoints {
    directory: Arc<Directory>,
    peers: Peers,
    name: String,
}

impl Endpoints {
    /// `name` is this agent's on paths.
    pub fn new(directory: Arc<Directory>, peers: Peers, name: String) -> Self {
        Self { directory, peers, name }
    }

    /// What is registered.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Waits until what is registered has been read, for a while: then what is there decides.
    pub async fn read(&self, deadline: Instant) {
        let patience = deadline.min(Instant::now() + READING);
        let mut changes = self.directory.changes();
        while self.directory.is_reading() {
            if tokio::time::timeout_at(patience, changes.changed()).await.is_err() {
                return;
            }
        }
    }

    /// The network service of that name.
    pub fn service(&self, name: &str) -> Result<Arc<NetworkService>, Error> {
        Ok(candidates::service(&self.directory, name)?.message.clone())
    }

    /// The endpoint of that name.
    pub fn endpoint(&self, name: &str) -> Found {
        match self.directory.endpoint(name) {
            None if self.directory.is_reading() => Found::Unreachable("the registry has not been read yet".to_owned()),
            None => Found::Gone,
            Some(entry) => match candidate(&entry) {
                Ok(candidate) => Found::Ready(candidate),
                Err(error) => Found::Unreachable(error.to_string()),
            },
        }
    }

    /// The namespace that an endpoint registered from, while it is registered.
    pub fn netns(&self, name: &str) -> Option<Netns> {
        self.directory.endpoint(name)?.netns.clone()
    }

    /// The registration number of an endpoint; none when it is not registered.
    pub fn place(&self, name: &str) -> Option<u64> {
        self.directory.endpoint(name).map(|entry| entry.place())
    }

    /// The endpoint that a client of this service names.
    pub fn named(&self, service: &str, endpoint: &str, client: &Party) -> Result<Candidate, Error> {
        let wanted = Wanted { service, labels: &BTreeMap::new(), endpoint, client };
        let entry = candidates::candidates(&self.directory, wanted)?.next();
        let entry = entry.ok_or_else(|| Error::new(Kind::Internal, "an endpoint that is named is no candidate"))?;
        self.opened(&entry)
    }

    /// Endpoints that would do for these labels, in the order in which to ask them: each is opened when it is asked.
    pub async fn candidates(
        &self,
        service: &str,
        labels: &BTreeMap<String, String>,
        client: &Party,
        deadline: Instant,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let patience = deadline.min(Instant::now() + RETURN);
        let mut changes = self.directory.changes();
        loop {
            changes.borrow_and_update();
            let wanted = Wanted { service, labels, endpoint: "", client };
            let error = match candidates::candidates(&self.directory, wanted) {
                Ok(entries) => return Ok(entries.take(MOST).collect()),
                Err(error) => error,
            };
            let returning = error.returning();
            if !returning || tokio::time::timeout_at(patience, changes.changed()).await.is_err() {
                return Err(error.into());
            }
        }
    }

    /// The same without taking a turn, and without waiting for anybody's return.
    pub fn foreseen(
        &self,
        service: &str,
        labels: &BTreeMap<String, String>,
        client: &Party,
    ) -> Result<Vec<Arc<Entry>>, Error> {
        let wanted = Wanted { service, labels, endpoint: "", client };
        Ok(candidates::foreseen(&self.directory, wanted)?.take(MOST).collect())
    }

    /// Whether the service's matches choose this endpoint for a client with these labels.
    pub fn fits(&self, service: &str, labels: &BTreeMap<String, String>, endpoint: &str) -> bool {
        candidates::fits(&self.directory, service, labels, endpoint)
    }

    /// What it takes to ask an endpoint.
    pub fn opened(&self, entry: &Arc<Entry>) -> Result<Candidate, Error> {
        candidate(entry)
    }

    /// What the endpoint has of a connection of ours, each with the endpoint's segment, by which it can be closed: asked of the
    /// endpoint where it never told us. None: it does not know the connection.
    pub async fn at_endpoint(
        &self,
        connection: &Connection,
        candidate: &Candidate,
        bound: Duration,
    ) -> Result<Vec<Connection>, Error> {
        if path::next(connection).is_some() {
            return Ok(vec![connection.clone()]);
        }
        let call = Call::new(bound);
        let ask = async {
            let mut monitor = self.peers.monitor(&candidate.target, &call).await?;
            let segment = PathSegment { name: self.name.clone(), id: connection.id.clone(), ..PathSegment::default() };
            let selector = MonitorScopeSelector { path_segments: vec![segment], network_services: Vec::new() };
            let answered = |status: tonic::Status| Error::new(Kind::of(status.code()), status.message().to_owned());
            let mut events = monitor.monitor_connections(selector).await.map_err(answered)?.into_inner();
            while let Some(event) = events.message().await.map_err(answered)? {
                if event.r#type() == ConnectionEventType::InitialStateTransfer {
                    let known = event.connections.into_values();
                    return Ok(known.filter_map(|known| at_our_index(known, &connection.id)).collect());
                }
            }
            Ok(Vec::new())
        };
        tokio::time::timeout(bound, ask)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Deadline, "the endpoint's monitor did not answer")))
    }
}

/// The same connection as it is at this agent: the endpoint shows it at its own index.
fn at_our_index(mut connection: Connection, id: &str) -> Option<Connection> {
    let path = connection.path.as_mut()?;
    let ours = path.path_segments.iter().position(|segment| segment.id == id)?;
    path.index = u32::try_from(ours).ok()?;
    id.clone_into(&mut connection.id);
    Some(connection)
}

fn candidate(entry: &Arc<Entry>) -> Result<Candidate, Error> {
    let unusable = |why: String| Error::new(Kind::Unavailable, why);
    let target = match &entry.reach {
        Reach::Socket(file) => Target::File(file.clone()),
        Reach::Url => match entry.message.url.strip_prefix(DIALLED) {
            Some(path) => Target::Unix(PathBuf::from(path)),
            None => return Err(unusable(entry.unreachable().unwrap_or_default())),
        },
        Reach::Lost | Reach::Elsewhere(_) => return Err(unusable(entry.unreachable().unwrap_or_default())),
    };
    let trusted = entry.owner == Owner::Operator;
    Ok(Candidate {
        name: entry.message.name.clone(),
        place: entry.place(),
        target,
        netns: entry.netns.clone(),
        trusted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::testing;

    #[tokio::test(start_paused = true)]
    async fn what_is_being_read_is_waited_for() {
        let directory = testing::directory([], []);
        testing::begin(&directory);
        let endpoints = Endpoints::new(directory.clone(), Peers::new(), "agent".into());
        let (began, far) = (Instant::now(), Instant::now() + Duration::from_mins(1));
        endpoints.read(began + Duration::from_secs(1)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1), "not longer than the caller");
        let read = async {
            endpoints.read(far).await;
            Instant::now()
        };
        let completes = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            testing::complete(&directory);
        };
        let (read, ()) = tokio::join!(read, completes);
        assert_eq!(read - began, Duration::from_secs(3), "no longer than it takes");
        endpoints.read(far).await;
        assert_eq!(Instant::now(), read, "and not at all afterwards");
    }
}
