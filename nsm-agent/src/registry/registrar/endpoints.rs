//! Writes of endpoints: registration, renewal, and how they go.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use nsm_fdpass::Peer;
use nsm_proto::registry::NetworkServiceEndpoint;
use prost::Message;
use tokio::time::Instant;

use super::{Inner, left_until};
use crate::{
    registry::{
        Entry, Error, Outcome, Owner, Party, Reach, Registered, Registrant, Role, Standing, Term, directory::Size,
        listener::listener,
    },
    state::blocking,
};

/// Why an endpoint goes that nobody unregisters.
#[derive(Debug, Clone, Copy)]
enum Why {
    ProcessEnded,
    NotRenewed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProcessEnded => "its process has ended",
            Self::NotRenewed => "it was not renewed in time",
        })
    }
}

impl Inner {
    pub(super) async fn register_endpoint(
        self: Arc<Self>,
        mut endpoint: NetworkServiceEndpoint,
        mut by: Registrant,
    ) -> Result<Registered<Entry>, Error> {
        let name = endpoint.name.clone();
        let _gate = self.gate(&name).await;
        let old = self.directory.state().stored_endpoint(&name).cloned();
        if let Some(old) = &old
            && !by.owner.may_change(old.owner)
            && old.deadline.is_none_or(|deadline| deadline > Instant::now())
            && !self.gives_way(old, by.owner).await
        {
            return Err(Error::Taken { what: "endpoint", name, owner: old.owner });
        }
        let party = Party::of_owner(by.owner, &*self.pods).await;
        for service in &endpoint.network_service_names {
            self.directory.state().may(service, Role::Endpoint, &party)?;
        }
        if let Some(Entry { reach: Reach::Socket(socket), owner, message, .. }) = old.as_deref()
            && by.socket.is_none()
            && (*owner, &message.url) == (by.owner, &endpoint.url)
        {
            by.socket = Some(socket.clone());
        }
        let deadline = self.life(&mut endpoint, by.term);
        let now = prost_types::Timestamp::from(SystemTime::now());
        endpoint.initial_registration_time =
            old.as_ref().map_or(Some(now), |old| old.message.initial_registration_time);
        let size = Size { bytes: endpoint.encoded_len(), open: by.netns.is_some() || by.socket.is_some() };
        self.directory.state().room_for_endpoint(by.owner, size, old.as_deref())?;
        self.hear(by.owner);
        let unseen = i64::try_from(self.directory.state().next_place()).map_or(i64::MIN, |number| -number);
        // Who listens is asked by a connect(2), which looks at the peer's file where it is.
        let asked = by.socket.clone().zip(by.process.as_ref().map(|process| process.pid));
        let listens_itself = match asked {
            Some((socket, pid)) => blocking(move || listener(&socket).is_none_or(|listener| listener == pid)).await,
            None => false,
        };
        let mut entry = Self::entry(endpoint, by.clone(), party, deadline, listens_itself.then_some(unseen))?;
        if let (Some(old), Term::Standing) = (&old, by.term) {
            edited(&mut entry, old);
        }
        entry.place = old.as_ref().map_or_else(|| self.directory.state().next_place(), |old| old.place);
        let renewal = old.as_ref().is_some_and(|old| is_renewal(old, &entry));
        if renewal {
            self.backing.renewed(&entry);
        } else {
            self.backing.put_endpoint(&entry, old.as_deref()).await?;
        }
        let object = Arc::new(entry);
        let came_back = old.as_ref().is_some_and(|old| old.standing() == Standing::Returning);
        let moved = old.as_ref().is_some_and(|old| old.party != object.party);
        if renewal && !came_back && !moved {
            self.directory.renew_endpoint(&object);
        } else {
            self.directory.put_endpoint(&object);
        }
        self.sooner.notify_one();
        self.follow(old.as_deref(), &object, by.process);
        let outcome = match (&old, renewal) {
            (None, _) => Outcome::Created,
            (Some(_), false) => Outcome::Changed,
            (Some(_), true) => Outcome::Unchanged,
        };
        if outcome != Outcome::Unchanged || came_back {
            tracing::info!(endpoint = name, owner = %object.owner, ?outcome, "endpoint registered");
        }
        Ok(Registered { object, outcome })
    }

    /// Whether a name goes to the same pod in another sandbox. One whose process is known to live does not give way: the end of that
    /// process is noticed.
    async fn gives_way(&self, old: &Entry, by: Owner) -> bool {
        old.standing() == Standing::Returning && self.backing.is_made_again(&old.message.name, old.owner, by).await
    }

    /// Sets when the endpoint expires, in the message and as a deadline.
    fn life(&self, endpoint: &mut NetworkServiceEndpoint, term: Term) -> Option<Instant> {
        let asked = endpoint.expiration_time.map(left_until);
        let left = match term {
            Term::Standing => asked?,
            Term::Renewed { token } => {
                let token = token.map(|time| left_until(time.into()));
                asked.into_iter().chain(token).fold(self.max_life.as_secs_f64(), f64::min)
            }
        };
        // A thousand years are enough, and can be added to any time.
        let left = Duration::from_secs_f64(left.clamp(0.0, 3e10));
        endpoint.expiration_time = Some((SystemTime::now() + left).into());
        Some(Instant::now() + left)
    }

    /// `ends_with`: the endpoint ends with the process that registers it; that number stands for one that has none in the agent's
    /// process namespace.
    fn entry(
        endpoint: NetworkServiceEndpoint,
        by: Registrant,
        party: Party,
        deadline: Option<Instant>,
        ends_with: Option<i64>,
    ) -> Result<Entry, Error> {
        let reach = match (by.socket, endpoint.url.as_str()) {
            (Some(socket), _) => Reach::Socket(socket),
            (None, url) if url.starts_with("inode://") && by.term == Term::Standing => Reach::Lost,
            (None, url) if url.starts_with("inode://") => return Err(Error::NotPassed(url.to_owned())),
            // The path is the caller's idea of the file system, and the agent would open it as root.
            (None, url) if !url.starts_with("tcp://") && by.owner != Owner::Operator => {
                return Err(Error::Invalid {
                    field: "url".into(),
                    value: url.chars().take(80).collect(),
                    expected: "inode://DEV/INO with the socket's file passed along, or tcp://".into(),
                });
            }
            (None, _) => Reach::Url,
        };
        let process = ends_with.zip(by.process).map(|(unseen, process)| match process.pid {
            0 => unseen,
            pid => i64::from(pid),
        });
        let (message, owner) = (endpoint.into(), by.owner);
        Ok(Entry { message, owner, reach, party, netns: by.netns, process, place: 0, deadline })
    }

    /// Keeps track of the process whose end is the endpoint's.
    fn follow(self: &Arc<Self>, old: Option<&Entry>, new: &Entry, process: Option<Arc<Peer>>) {
        let name = &new.message.name;
        if let Some(pid) = old.and_then(|old| old.process)
            && new.process != Some(pid)
        {
            self.processes.remove(pid, name);
        }
        let (Some(process), Some(key)) = (process, new.process) else { return };
        self.processes.add(key, name, || {
            let (inner, ending) = (self.clone(), self.ending.clone());
            let task = async move {
                if let Err(error) = process.ended().await {
                    tracing::warn!(pid = process.pid, %error, "the end of this process will not be noticed");
                    return;
                }
                for name in inner.processes.take(key) {
                    inner.withdraw(&name, Why::ProcessEnded, |entry| entry.process == Some(key)).await;
                    inner.directory.has_ended(&name, key);
                }
            };
            self.tasks.spawn(async move { ending.run_until_cancelled(task).await }).abort_handle()
        });
    }

    pub(super) async fn unregister_endpoint(&self, name: &str, by: Owner) -> Result<bool, Error> {
        let _gate = self.gate(name).await;
        let Some(old) = self.directory.endpoint(name) else {
            self.directory.has_unregistered(name, by);
            return Ok(false);
        };
        if !by.may_change(old.owner) {
            return Err(Error::NotYours { what: "endpoint", name: name.to_owned(), owner: old.owner });
        }
        self.backing.remove_endpoint(&old).await?;
        if by == old.owner {
            self.forget(name);
        } else {
            // Its process was not asked, and lives.
            self.await_return(name);
        }
        tracing::info!(endpoint = name, %by, "endpoint unregistered");
        Ok(true)
    }

    /// Removes an endpoint that nobody asked to remove, if it still is the one that is meant.
    async fn withdraw(&self, name: &str, why: Why, meant: impl FnOnce(&Entry) -> bool + Send) {
        let _gate = self.gate(name).await;
        let found = self.directory.state().stored_endpoint(name).cloned();
        if let Some(entry) = found.filter(|entry| meant(entry)) {
            self.backing.withdrawn(&entry);
            match why {
                Why::ProcessEnded => self.forget(name),
                Why::NotRenewed => self.await_return(name),
            }
            tracing::info!(endpoint = name, %why, "endpoint withdrawn");
        }
    }

    pub(super) fn forget(&self, name: &str) {
        if let Some(pid) = self.directory.take_endpoint(name).and_then(|entry| entry.process) {
            self.processes.remove(pid, name);
        }
    }

    /// The same of one whose process may live and register it again: until that ends.
    pub(super) fn await_return(&self, name: &str) {
        let Some(gone) = self.directory.take_endpoint(name) else { return };
        self.directory.may_come_back(&gone);
        if let Some(pid) = gone.process {
            let account = self.directory.state().account(gone.owner);
            self.processes.leave(pid, name, account);
        }
    }

    pub(super) async fn expire(&self) {
        loop {
            let (next, expired) = {
                let state = self.directory.state();
                (state.next_expiry(), state.expired(Instant::now()))
            };
            match (expired, next) {
                (Some(name), _) => {
                    let over = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= Instant::now());
                    self.withdraw(&name, Why::NotRenewed, over).await;
                }
                (None, Some(next)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(next) => {}
                        () = self.sooner.notified() => {}
                    }
                }
                (None, None) => self.sooner.notified().await,
            }
        }
    }
}

/// An operator edits an endpoint that lives elsewhere: who owns it, reaches it and renews it stays.
fn edited(entry: &mut Entry, old: &Entry) {
    if old.owner == Owner::Operator && !matches!(old.reach, Reach::Socket(_)) {
        return;
    }
    let mut message = (*entry.message).clone();
    message.url.clone_from(&old.message.url);
    message.expiration_time = old.message.expiration_time;
    entry.message = message.into();
    entry.owner = old.owner;
    entry.reach = old.reach.clone();
    entry.party = old.party.clone();
    entry.netns.clone_from(&old.netns);
    entry.process = old.process;
    entry.deadline = old.deadline;
}

/// Whether nothing but the expiry moved.
fn is_renewal(old: &Entry, new: &Entry) -> bool {
    let timeless = |entry: &Entry| NetworkServiceEndpoint { expiration_time: None, ..(*entry.message).clone() };
    old.owner == new.owner && old.deadline.is_some() == new.deadline.is_some() && timeless(old) == timeless(new)
}
