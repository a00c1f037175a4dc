//! Services of peers that have gone.
//!
//! Guarantee: a service that a peer registered goes when for [`IDLE`] nobody has offered it, and nobody of its namespace has registered
//! anything: pods come and go, and what each leaves would fill the registry. Of a peer of this node that is for this agent to do; of one
//! that departed, with an earlier boot or its node, for whichever agent has seen it idle for that long. An operator's services stay, and so
//! does one that says who may use or serve it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::Inner;
use crate::registry::{Owner, Service, directory::Account};

/// How long a service may be of no use.
const IDLE: Duration = Duration::from_hours(1);
/// How often they are looked at.
const LOOK: Duration = Duration::from_mins(10);

/// Since when peers have not been heard of, and services not offered.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    heard: HashMap<Account, Instant>,
    services: HashMap<String, Instant>,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Somebody registers something.
    pub(super) fn hear(&self, by: Owner) {
        let account = self.directory.state().account(by);
        if let Some(account) = account {
            self.idle.lock().heard.insert(account, Instant::now());
        }
    }

    /// Removes what is of no use, again and again.
    pub(super) async fn tidy(&self) {
        loop {
            sleep(LOOK).await;
            for name in self.useless() {
                let _gate = self.gate(&name).await;
                // Somebody may have come for it meanwhile.
                let found = self.directory.service(&name);
                let Some(service) = found.filter(|service| self.is_useless(service)) else { continue };
                match self.backing.remove_service(&service).await {
                    Ok(()) => {
                        self.directory.take_service(&name);
                        tracing::info!(service = name, owner = %service.owner, "network service withdrawn: nobody offers it, its owner has gone");
                    }
                    Err(error) => tracing::warn!(service = name, %error, "a network service of no use stays"),
                }
            }
        }
    }

    /// Names of the services that have been idle for long enough.
    fn useless(&self) -> Vec<String> {
        let idle = self.directory.state().idle_services();
        {
            let mut known = self.idle.lock();
            let now = Instant::now();
            known.heard.retain(|_, heard| now.duration_since(*heard) < IDLE);
            let before = std::mem::take(&mut known.services);
            known.services = idle
                .iter()
                .map(|service| &service.message.name)
                .map(|name| (name.clone(), before.get(name).copied().unwrap_or(now)))
                .collect();
        }
        let useless = idle.iter().filter(|service| self.is_useless(service));
        useless.map(|service| service.message.name.clone()).collect()
    }

    fn is_useless(&self, service: &Service) -> bool {
        let (is_idle, account) = {
            let state = self.directory.state();
            (state.is_idle(service), state.account(service.owner))
        };
        let known = self.idle.lock();
        let since = known.services.get(&service.message.name);
        is_idle
            && account.is_none_or(|account| !known.heard.contains_key(&account))
            && since.is_some_and(|since| since.elapsed() >= IDLE)
    }
}
