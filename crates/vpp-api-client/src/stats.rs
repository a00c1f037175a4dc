//! The statistics segment: counters that VPP writes into memory that others may read.
//!
//! # Guarantees
//!
//! - What is returned was whole: VPP counts its changes of the directory, and whatever was read across one is read again.
//! - VPP's counters go on while they are read: those of one call are of about the same time, not of the same instant.
//! - Nothing that is in the segment, or that disappears from it, makes a read leave it: every offset, length and pointer is checked, after it
//!   was copied; it is not mapped, so that a file that is cut is an error.
//!
//! VPP hands the segment out on a socket of its own, `/run/vpp/stats.sock` unless `statseg` says otherwise.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod entry;
mod memory;
mod socket;

use entry::Header;
pub use entry::{Combined, Value};
use memory::Memory;

/// How often a change of the directory is waited for.
const ATTEMPTS: u32 = 200;
/// Between two looks. VPP's changes take microseconds.
const PAUSE: Duration = Duration::from_micros(500);

/// Statistics cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatsError {
    /// The socket gives no segment.
    #[error("{}: {problem}: is VPP started, with `statseg` in its configuration?", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What happened there.
        problem: String,
    },
    /// It cannot be read.
    #[error("the segment cannot be read")]
    Memory(#[from] io::Error),
    /// It is of another version.
    #[error("the segment is of version {found}, expected {expected}: this VPP's statistics are laid out otherwise")]
    Version {
        /// As it says.
        found: u64,
        /// That is known here.
        expected: u64,
    },
    /// What is in it makes no sense.
    #[error("the segment is damaged at {at}: {problem}")]
    Damaged {
        /// Where.
        at: String,
        /// What is wrong there.
        problem: &'static str,
    },
    /// VPP has been changing it all the time.
    #[error("VPP is still changing the directory after {ATTEMPTS} looks: it may have died on the way")]
    Busy,
}

/// The segment of a VPP. After a restart of VPP it is the old one, which no longer changes: connect anew with the API.
#[derive(Debug)]
pub struct Stats {
    memory: Memory,
}

impl Stats {
    /// Gets the segment from VPP. Blocks for at most `timeout`.
    ///
    /// # Errors
    /// Nobody listens, or what comes is no segment.
    pub fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, StatsError> {
        let path = path.as_ref();
        let problem = |error: io::Error| StatsError::Socket { path: path.into(), problem: error.to_string() };
        let file = socket::segment(path, timeout).map_err(problem)?;
        let stats = Self { memory: Memory::new(file)? };
        stats.memory.begin();
        stats.header()?.check_version()?;
        Ok(stats)
    }

    /// Everything whose name the filter takes; an empty entry has no value and is left out.
    ///
    /// # Errors
    /// It cannot be read whole.
    pub fn read(&self, filter: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Value>, StatsError> {
        self.whole(|header| {
            let mut all = BTreeMap::new();
            for entry in header.entries(&self.memory, None)? {
                if filter(&entry.name)
                    && let Some(value) = entry.value(header, &self.memory)?
                {
                    all.insert(entry.name, value);
                }
            }
            Ok(all)
        })
    }

    /// The names of everything.
    ///
    /// # Errors
    /// As [`Stats::read`].
    pub fn names(&self) -> Result<Vec<String>, StatsError> {
        self.whole(|header| Ok(header.entries(&self.memory, None)?.into_iter().map(|entry| entry.name).collect()))
    }

    /// Counters of interfaces, summed over VPP's threads.
    ///
    /// # Errors
    /// As [`Stats::read`].
    pub fn interfaces(&self) -> Result<Vec<Interface>, StatsError> {
        let all = self.read(|name| name.starts_with("/if/"))?;
        let Some(Value::Names(names)) = all.get("/if/names") else { return Ok(Vec::new()) };
        let combined = |name: &str, index: usize| all.get(name).map_or(Combined::default(), |of| of.combined(index));
        let simple = |name: &str, index: usize| all.get(name).map_or(0, |of| of.sum(index));
        let interface = |(index, name): (usize, &String)| Interface {
            sw_if_index: u32::try_from(index).unwrap_or(u32::MAX),
            name: name.clone(),
            rx: combined("/if/rx", index),
            tx: combined("/if/tx", index),
            drops: simple("/if/drops", index),
            rx_errors: simple("/if/rx-error", index),
            tx_errors: simple("/if/tx-error", index),
        };
        // Where an interface was and is no more VPP writes this instead of its name; where there never was one it is empty.
        let there = |(_, name): &(usize, &String)| !name.is_empty() && *name != "deleted";
        Ok(names.iter().enumerate().filter(there).map(interface).collect())
    }

    /// Errors that VPP's nodes have counted, without those that never happened.
    ///
    /// # Errors
    /// As [`Stats::read`].
    pub fn errors(&self) -> Result<BTreeMap<String, u64>, StatsError> {
        let all = self.read(|name| name.starts_with("/err/"))?;
        let counted = all.into_iter().map(|(name, value)| (name["/err/".len()..].to_owned(), value.total()));
        Ok(counted.filter(|(_, count)| *count > 0).collect())
    }

    fn header(&self) -> Result<Header, StatsError> {
        Header::read(&self.memory)
    }

    /// Reads until nothing has changed meanwhile.
    fn whole<T>(&self, read: impl Fn(&Header) -> Result<T, StatsError>) -> Result<T, StatsError> {
        for _ in 0..ATTEMPTS {
            self.memory.begin();
            let before = self.header()?;
            before.check_version()?;
            if !before.in_progress {
                // What looks damaged in the midst of a change is looked at again.
                let found = read(&before);
                Memory::fence();
                let after = self.header()?;
                if after.epoch == before.epoch && !after.in_progress {
                    return found;
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(StatsError::Busy)
    }
}

/// What an interface has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its index.
    pub sw_if_index: u32,
    /// Its name.
    pub name: String,
    /// Received.
    pub rx: Combined,
    /// Sent.
    pub tx: Combined,
    /// Packets dropped.
    pub drops: u64,
    /// Packets that were received badly.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

#[cfg(test)]
mod tests;
