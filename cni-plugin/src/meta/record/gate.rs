//! Who makes a network, and who has its plugins free what is not attached: not both at once.
//!
//! Guarantees: no plugin is told a list of attachments that lacks what is made of its network meanwhile: who makes something has
//! recorded it, then passes the network's door; who collects shuts the door, then reads the records. It lets those that are inside come
//! out, for a while: what it waits for in vain is in its list. Networks of other names are not held up. The locks end with their holders:
//! for what the plugins of a killed call have started, and what ends a moment after them, nobody waits.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};

use nsm_cni_types::{Error, code};

use super::{
    Store,
    lock::{self, With},
};
use crate::{files, meta::patience::share};

/// The file whose places are locked, in the folder of the records.
const NAME: &str = ".gates";
/// Longest wait for those that make a network already.
const INSIDE: Duration = Duration::from_secs(2);

/// The way in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    _door: Option<File>,
    _inside: File,
}

impl Store {
    /// For one that makes a network of that name, which is recorded; many at once.
    ///
    /// # Errors
    /// Code 11: its plugins free something until then. Code 5: there is no lock.
    pub(crate) fn making(&self, network: &str, until: Instant) -> Result<Gate, Error> {
        let door = self.through(network, With::Others, until)?;
        let inside = self.places().map_err(|error| self.broken(&error))?;
        match lock::own(&inside, place(network) + 1, With::Others, until) {
            Ok(true) => {
                drop(door);
                Ok(Gate { _door: None, _inside: inside })
            }
            Ok(false) => Err(busy(network)),
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// For one that reads the records, then has the network's plugins free what is not attached; alone.
    ///
    /// # Errors
    /// Code 11: another does until then. Code 5: there is no lock.
    pub(crate) fn collecting(&self, network: &str, until: Instant) -> Result<Gate, Error> {
        let door = self.through(network, With::Nobody, until)?;
        let inside = self.places().map_err(|error| self.broken(&error))?;
        // Half of the time at least is for what it is about.
        let patience = share(until, 2).min(Instant::now() + INSIDE);
        match lock::own(&inside, place(network) + 1, With::Nobody, patience) {
            Ok(is_alone) => {
                if !is_alone {
                    eprintln!(
                        "nsm-cni: GC of network {network:?} goes on beside an ADD that takes long, and counts it in"
                    );
                }
                Ok(Gate { _door: Some(door), _inside: inside })
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn through(&self, network: &str, with: With, until: Instant) -> Result<File, Error> {
        let door = self.places().map_err(|error| self.broken(&error))?;
        match lock::own(&door, place(network), with, until) {
            Ok(true) => Ok(door),
            Ok(false) => Err(busy(network)),
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn places(&self) -> io::Result<File> {
        files::folder(&self.folder)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.folder.join(NAME))
    }

    fn broken(&self, error: &io::Error) -> Error {
        let msg = format!("{}: no lock: {error}: set cniDir to a local folder of root's", self.folder.display());
        Error::new(code::IO, msg)
    }
}

fn busy(network: &str) -> Error {
    Error::new(code::TRY_AGAIN, format!("GC of network {network:?} runs on this node: try again"))
}

/// Of a network's door, and behind it of what is inside. Names that share it wait for each other, and no more (FNV-1a).
fn place(network: &str) -> u32 {
    let hash = network.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 2) << 1
}
