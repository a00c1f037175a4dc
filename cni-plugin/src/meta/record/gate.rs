//! Who makes attachments, and who has plugins free what is not attached: never both at once.
//!
//! Guarantee: from the record to the results of an ADD no plugin is told a list of attachments that lacks it. A lock of the folder
//! itself, which ends with its holder.

use std::{fs::File, io, time::Instant};

use nsm_cni_types::{Error, code};

use super::{Store, lock::Lock};
use crate::files;

/// The way in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    _folder: File,
}

impl Store {
    /// For one that makes something; many at once.
    ///
    /// # Errors
    /// Code 11: plugins free something until then. Code 5: there is no lock.
    pub(crate) fn making(&self, until: Instant) -> Result<Gate, Error> {
        self.gate(until, Lock::Shared, "GC of the networks' plugins runs")
    }

    /// For one that has plugins free what is not attached; alone.
    ///
    /// # Errors
    /// Code 11: something is made until then. Code 5: there is no lock.
    pub(crate) fn collecting(&self, until: Instant) -> Result<Gate, Error> {
        self.gate(until, Lock::Alone, "networks of pods are made")
    }

    fn gate(&self, until: Instant, lock: Lock, others: &str) -> Result<Gate, Error> {
        let broken = |error: io::Error| {
            let msg = format!("{}: no lock: {error}: set cniDir to a folder of root's", self.folder.display());
            Error::new(code::IO, msg)
        };
        files::folder(&self.folder).map_err(broken)?;
        let folder = File::open(&self.folder).map_err(broken)?;
        if lock.take(&folder, until).map_err(broken)? {
            Ok(Gate { _folder: folder })
        } else {
            Err(Error::new(code::TRY_AGAIN, format!("{others} on this node: try again")))
        }
    }
}
