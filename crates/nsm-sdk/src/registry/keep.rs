//! Stays registered: renews, comes back after the registry's restart, leaves when told to.

use std::time::{Duration, SystemTime};

use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{ListeningSocket, Registry, pause::Pause};
use crate::{Error, Kind, settings::advice};

/// Longest pause while the registry is not there: it is back within a moment.
const ABSENT: Duration = Duration::from_secs(1);
/// Longest pause while it is there and says no.
const REFUSED: Duration = Duration::from_secs(30);
/// A registration that held this long counts as a success.
const HELD: Duration = Duration::from_secs(5);
/// Shortest time between two renewals, whatever the registry answers.
const SOONEST: Duration = Duration::from_millis(100);

/// What to register.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Network services to register first; their `matches` are not sent.
    pub services: Vec<NetworkService>,
    /// The endpoint.
    pub endpoint: NetworkServiceEndpoint,
    /// Where it listens; `None`: at its `url`.
    pub socket: Option<ListeningSocket>,
}

/// A registration that is kept up. Dropped, it is no longer renewed; [`Registration::stop`] takes it back.
#[derive(Debug)]
pub struct Registration {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    registered: watch::Receiver<bool>,
}

impl Registration {
    /// Whether the registry has it now; changes can be waited for.
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.clone()
    }

    /// Unregisters; returns when the registry has answered or the call's time is over.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::warn!(%error, "the registration did not end in order");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Why a registration is not held any longer.
enum Ended {
    Stopped,
    Lost(Error),
}

impl Registry {
    /// Registers, and keeps it up until the registration is stopped or dropped. While the registry is not there the first
    /// registration is tried again, without end: bound it with [`tokio::time::timeout`] if need be.
    ///
    /// # Errors
    /// What the registry answers to the first registration.
    pub async fn keep(&self, mut offer: Offer) -> Result<Registration, Error> {
        offer.services.iter_mut().for_each(|service| service.matches.clear());
        let keeper = Keeper { registry: self.clone(), offer };
        let mut pause = Pause::default();
        let answer = loop {
            match keeper.register().await {
                Ok(answer) => break answer,
                Err(error) if is_absence(&error) => {
                    if pause.is_first() {
                        let (endpoint, advice) = (&keeper.offer.endpoint.name, advice(&error));
                        tracing::warn!(endpoint, %error, advice, "waiting for the registry");
                    }
                    tokio::time::sleep(pause.next(ABSENT)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let stop = CancellationToken::new();
        let (sender, registered) = watch::channel(true);
        let task = tokio::spawn(keeper.run(answer, sender, stop.clone()));
        Ok(Registration { stop, task: Some(task), registered })
    }
}

struct Keeper {
    registry: Registry,
    offer: Offer,
}

impl Keeper {
    async fn register(&self) -> Result<NetworkServiceEndpoint, Error> {
        for service in &self.offer.services {
            self.registry.register_service(service.clone()).await?;
        }
        self.renew().await
    }

    async fn renew(&self) -> Result<NetworkServiceEndpoint, Error> {
        self.registry.register_endpoint(self.offer.endpoint.clone(), self.offer.socket.as_ref()).await
    }

    async fn run(self, answer: NetworkServiceEndpoint, registered: watch::Sender<bool>, stop: CancellationToken) {
        let name = &self.offer.endpoint.name;
        let mut pause = Pause::default();
        let mut answer = answer;
        tracing::info!(endpoint = name, "registered");
        while let Ended::Lost(mut error) = self.hold(&answer, &mut pause, &stop).await {
            registered.send_replace(false);
            tracing::warn!(endpoint = name, %error, "the registration is lost: registering again");
            answer = loop {
                let limit = if is_absence(&error) { ABSENT } else { REFUSED };
                tokio::select! {
                    () = stop.cancelled() => return self.leave().await,
                    () = tokio::time::sleep(pause.next(limit)) => {}
                }
                match self.register().await {
                    Ok(answer) => break answer,
                    Err(again) => {
                        if again.kind() != error.kind() {
                            tracing::warn!(endpoint = name, error = %again, "cannot register");
                        }
                        error = again;
                    }
                }
            };
            registered.send_replace(true);
            tracing::info!(endpoint = name, "registered again");
        }
        self.leave().await;
    }

    /// Renews while the registry is there and has the endpoint.
    async fn hold(&self, answer: &NetworkServiceEndpoint, pause: &mut Pause, stop: &CancellationToken) -> Ended {
        let since = Instant::now();
        let template = NetworkServiceEndpoint { name: self.offer.endpoint.name.clone(), ..Default::default() };
        let mut events = match self.registry.watch_endpoints(template).await {
            Ok(events) => events,
            Err(error) => return Ended::Lost(error),
        };
        let mut renewal = renewal(answer);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = until(renewal) => match self.renew().await {
                    Ok(answer) => renewal = self::renewal(&answer),
                    Err(error) => return Ended::Lost(error),
                },
                event = events.message() => {
                    if since.elapsed() >= HELD {
                        pause.reset();
                    }
                    match event {
                        Ok(Some(event)) if event.deleted => {
                            return Ended::Lost(Error::new(Kind::NotFound, "the registry has removed the endpoint"));
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => {
                            // It is leaving, perhaps: whoever comes next listens on another socket of that name.
                            self.registry.forget();
                            return Ended::Lost(Error::new(Kind::Unavailable, "the registry ended the watch"));
                        }
                        Err(status) => return Ended::Lost(self.registry.failed(&status)),
                    }
                }
            }
        }
    }

    async fn leave(&self) {
        let offer = &self.offer;
        match self.registry.unregister_endpoint(offer.endpoint.clone(), offer.socket.as_ref()).await {
            Ok(()) => tracing::info!(endpoint = offer.endpoint.name, "unregistered"),
            Err(error) => tracing::warn!(endpoint = offer.endpoint.name, %error, "cannot unregister: it will expire"),
        }
    }
}

/// Two thirds of the way to its end; `None` when it has no end.
fn renewal(answer: &NetworkServiceEndpoint) -> Option<Instant> {
    let end = SystemTime::try_from(answer.expiration_time?).ok()?;
    let life = end.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add((life * 2 / 3).max(SOONEST))
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn is_absence(error: &Error) -> bool {
    match error.kind() {
        Kind::Unavailable | Kind::Deadline | Kind::Cancelled => true,
        Kind::Invalid
        | Kind::NotFound
        | Kind::Denied
        | Kind::Conflict
        | Kind::Exhausted
        | Kind::Refused
        | Kind::Internal => false,
    }
}
