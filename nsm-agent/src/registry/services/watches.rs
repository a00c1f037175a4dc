//! How many watches there may be: of one pod, and of all.
//!
//! Guarantee: many may look at one name, as each endpoint does at its own; few at everything.

use std::sync::Arc;

use crate::{
    manager::Ids,
    share::{Full, Share, Shares, WATCHES, WATCHES_IN_ALL, WIDE, WIDE_IN_ALL},
    state::Owner,
};

/// The watches of one registry.
#[derive(Debug, Clone)]
pub(super) struct Watches {
    all: Arc<Shares<Owner>>,
    wide: Arc<Shares<Owner>>,
}

/// A watch's part of them.
type Held = [Option<Share<Owner>>; 2];

impl Watches {
    /// What they are called, all of them and the wide ones.
    pub(super) fn of(all: &'static str, wide: &'static str) -> Self {
        Self {
            all: Shares::new(all, WATCHES).in_all(WATCHES_IN_ALL),
            wide: Shares::new(wide, WIDE).in_all(WIDE_IN_ALL),
        }
    }

    /// One more; `name` is the one that it looks at, if it does.
    pub(super) fn share(&self, ids: &Ids, holder: &Owner, name: &str) -> Result<Held, Full> {
        let wide = name.is_empty().then(|| ids.share(holder, &self.wide)).transpose()?;
        Ok([ids.share(holder, &self.all)?, wide.flatten()])
    }
}
