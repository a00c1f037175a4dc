//! What an interface is to be, and what peers may ask for. Every value is in its range from the start.

use crate::{
    control::{MAX_LOG2_RING_SIZE, Mode},
    text::{Name, Secret},
};

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given}: expected {expected}")]
pub struct InvalidSetting {
    what: &'static str,
    given: u64,
    expected: &'static str,
}

/// The rings of a client: it makes them, within what the server allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    pub(crate) transmit: u16,
    pub(crate) receive: u16,
    pub(crate) log2_size: u8,
    pub(crate) buffer_size: u32,
}

impl Default for Rings {
    /// One of 1024 slots each way, with buffers of 2048 bytes.
    fn default() -> Self {
        Self { transmit: 1, receive: 1, log2_size: 10, buffer_size: 2048 }
    }
}

impl Rings {
    /// How many queues each way, 1 to 256.
    ///
    /// # Errors
    /// Another number.
    pub fn queues(mut self, transmit: u16, receive: u16) -> Result<Self, InvalidSetting> {
        for given in [transmit, receive] {
            within("number of queues", given.into(), 1..=256, "1 to 256")?;
        }
        (self.transmit, self.receive) = (transmit, receive);
        Ok(self)
    }

    /// How many slots a ring has: a power of two, 2 to 16384.
    ///
    /// # Errors
    /// Another number.
    pub fn slots(mut self, slots: u32) -> Result<Self, InvalidSetting> {
        let refused = InvalidSetting { what: "ring size", given: slots.into(), expected: "a power of two, 2 to 16384" };
        let log2 = u8::try_from(slots.trailing_zeros()).unwrap_or(u8::MAX);
        if !slots.is_power_of_two() || !(1..=MAX_LOG2_RING_SIZE).contains(&log2) {
            return Err(refused);
        }
        self.log2_size = log2;
        Ok(self)
    }

    /// How many bytes each buffer has: 64 to 65536. Longer packets take several buffers.
    ///
    /// # Errors
    /// Another number.
    pub fn buffer_size(mut self, bytes: u32) -> Result<Self, InvalidSetting> {
        within("buffer size", bytes.into(), 64..=65536, "64 to 65536 bytes")?;
        self.buffer_size = bytes;
        Ok(self)
    }
}

/// What a server does with a region whose file the client could make shorter while it is mapped, so that an access would end the
/// process (SIGBUS). That is one that lacks `F_SEAL_SHRINK` and takes no seal any more, or that lies on hugetlbfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unsealed {
    /// It may hold buffers, not rings, and is never mapped: packets are copied by the kernel, at the price of a system call for
    /// each. DPDK's zero-copy clients have such regions. Memory on hugetlbfs, which the kernel cannot write to like this, is refused.
    #[default]
    Guarded,
    /// The peer is refused.
    Refused,
    /// It is mapped: the peer is trusted not to do that. Zero-copy clients on hugepages (DPDK's and VPP's, where there are hugepages) need it.
    Trusted,
}

/// What a server lets its clients have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(crate) regions: u16,
    pub(crate) rings: u16,
    pub(crate) log2_ring_size: u8,
    pub(crate) memory: u64,
    pub(crate) packet: u32,
    pub(crate) unsealed: Unsealed,
}

impl Default for Limits {
    /// 16 regions, 512 MiB of memory, 8 rings each way of at most 16384 slots, packets of at most 65536 bytes.
    fn default() -> Self {
        Self {
            regions: 16,
            rings: 8,
            log2_ring_size: MAX_LOG2_RING_SIZE,
            memory: 512 << 20,
            packet: 65536,
            unsealed: Unsealed::default(),
        }
    }
}

impl Limits {
    /// How many regions, 1 to 256. Each costs a descriptor while the connection is made.
    ///
    /// # Errors
    /// Another number.
    pub fn regions(mut self, most: u16) -> Result<Self, InvalidSetting> {
        within("most regions", most.into(), 1..=256, "1 to 256")?;
        self.regions = most;
        Ok(self)
    }

    /// How many rings each way, 1 to 256. Each costs a descriptor.
    ///
    /// # Errors
    /// Another number.
    pub fn rings(mut self, most: u16) -> Result<Self, InvalidSetting> {
        within("most rings", most.into(), 1..=256, "1 to 256")?;
        self.rings = most;
        Ok(self)
    }

    /// How many slots a ring may have: a power of two, 2 to 16384.
    ///
    /// A client should settle for that. VPP's (26.06) lays out as few slots, announces as many as it was told to make (`ring_size`, 1024),
    /// and is refused.
    ///
    /// # Errors
    /// Another number.
    pub fn slots(mut self, most: u32) -> Result<Self, InvalidSetting> {
        self.log2_ring_size = Rings::default().slots(most)?.log2_size;
        Ok(self)
    }

    /// How many bytes all regions together may have, at least 4096.
    ///
    /// Who touches a page of shared memory first pays for it, so a client can have all of this accounted to this process's control group,
    /// by sending packets from memory that it never wrote: allow no more than the group has to spare, for each interface. Where the kernel
    /// never promises more memory than there is (`vm.overcommit_memory=2`), or the group has none left, such an access can end this
    /// process; so can any access to memory of its own. VPP's clients have about 64 MiB, DPDK's about 128.
    ///
    /// # Errors
    /// Fewer.
    pub fn memory(mut self, most: u64) -> Result<Self, InvalidSetting> {
        within("most memory", most, 4096..=u64::MAX, "4096 bytes or more")?;
        self.memory = most;
        Ok(self)
    }

    /// How long a packet may be, 64 bytes to 1 MiB. Longer ones are dropped and counted.
    ///
    /// # Errors
    /// Another length.
    pub fn packet(mut self, most: u32) -> Result<Self, InvalidSetting> {
        within("longest packet", most.into(), 64..=1 << 20, "64 to 1048576 bytes")?;
        self.packet = most;
        Ok(self)
    }

    /// What to do with memory that a client could take away.
    #[must_use]
    pub const fn unsealed(mut self, unsealed: Unsealed) -> Self {
        self.unsealed = unsealed;
        self
    }
}

fn within(
    what: &'static str,
    given: u64,
    range: std::ops::RangeInclusive<u64>,
    expected: &'static str,
) -> Result<(), InvalidSetting> {
    if range.contains(&given) { Ok(()) } else { Err(InvalidSetting { what, given, expected }) }
}

/// What both roles say of an interface.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: u32,
    pub(crate) mode: Mode,
    pub(crate) secret: Secret,
    /// Of this program.
    pub(crate) program: Name,
    /// Of the interface, if it has another than its number makes.
    pub(crate) interface: Option<Name>,
}

impl Identity {
    pub(crate) fn new(id: u32) -> Self {
        Self {
            id,
            mode: Mode::default(),
            secret: Secret::NONE,
            program: Name::cut(concat!("memif-rs ", env!("CARGO_PKG_VERSION"))),
            interface: None,
        }
    }

    /// As the peer is told.
    pub(crate) fn interface(&self) -> Name {
        self.interface.unwrap_or_else(|| Name::cut(&format!("memif{}", self.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_range() {
        let rings = Rings::default().queues(2, 3).unwrap().slots(16384).unwrap().buffer_size(64).unwrap();
        assert_eq!((rings.transmit, rings.receive, rings.log2_size, rings.buffer_size), (2, 3, 14, 64));
        for slots in [0, 1, 3, 32768, u32::MAX] {
            assert!(Rings::default().slots(slots).is_err(), "{slots}");
        }
        let error = Rings::default().queues(0, 1).unwrap_err().to_string();
        assert_eq!(error, "number of queues 0: expected 1 to 256");
        assert!(Rings::default().buffer_size(63).is_err() && Limits::default().regions(0).is_err());
        assert!(Limits::default().packet(2 << 20).is_err() && Limits::default().memory(1).is_err());
    }
}
