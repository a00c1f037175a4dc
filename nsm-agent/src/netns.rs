//! Network namespaces that somebody passed.
//!
//! Guarantee: no thread that serves others waits for a file whose file system does not answer.

use std::{os::fd::OwnedFd, sync::Arc};

use nsm_fdpass::InodeId;
use nsm_netlink::{Error, Netns, NetnsId};

use crate::state::blocking;

/// The namespace that a passed file is. `known` is any other namespace.
pub(crate) async fn passed(file: Arc<OwnedFd>, known: NetnsId) -> Result<Netns, Error> {
    // All namespaces are files of one file system, which always answers.
    if InodeId::of(&*file).is_ok_and(|id| id.dev == known.dev) {
        return Netns::from_shared(file);
    }
    blocking(move || Netns::from_shared(file)).await
}
