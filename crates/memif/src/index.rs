//! The ring's two indices: who may move which, when what may be looked at, and when a peer is woken. No memory, no files: a model
//! checker runs this code as it is (`tests/loom.rs`).
//!
//! Both ends and both directions are two cases, consuming and producing, in which only the roles of head and tail change:
//!
//! | | own index | peer's index | means |
//! |---|---|---|---|
//! | server consumes (S2M) | tail | head | tail = what is consumed |
//! | client consumes (M2S) | head | tail | head = what is consumed, and the whole ring ahead of it as empty buffers |
//! | client produces (S2M) | head | tail | may produce up to the whole ring ahead of tail |
//! | server produces (M2S) | tail | head | may produce up to head |
//!
//! So for a client there is always a ring's length between what it counts and what it publishes or reads (`Role::ahead`).
//!
//! Guarantees: an index is published by one release store after everything before it, and read with acquire; what a peer publishes
//! is never more than the ring has, or the peer is [`Broken`]; a consumer that sleeps has looked again after it asked to be woken.

use std::sync::atomic::Ordering;

/// A field of the ring's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// Moved by the client.
    Head,
    /// Moved by the server.
    Tail,
    /// Bit 0 is the consumer's wish not to be signalled.
    Flags,
}

/// The consumer does not want to be signalled.
const MASK_INTERRUPT: u16 = 1;

/// The memory of a ring, as far as the indices go.
pub trait Slots {
    /// How many, a power of two of at most 2^14.
    fn slots(&self) -> u16;
    /// Reads a field.
    fn load(&self, index: Index, ordering: Ordering) -> u16;
    /// Writes a field.
    fn store(&self, index: Index, value: u16, ordering: Ordering);
    /// A full fence.
    fn fence(&self);
}

/// Which end of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Listens, and maps what clients make (master).
    Server,
    /// Connects, and makes the memory (slave).
    Client,
}

impl Role {
    const fn own(self) -> Index {
        match self {
            Self::Server => Index::Tail,
            Self::Client => Index::Head,
        }
    }

    const fn peers(self) -> Index {
        match self {
            Self::Server => Index::Head,
            Self::Client => Index::Tail,
        }
    }

    const fn ahead(self, slots: u16) -> u16 {
        match self {
            Self::Server => 0,
            Self::Client => slots,
        }
    }
}

/// A peer's index that cannot be: the ring has not as many slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's index claims {claimed} slots: expected at most {slots}")]
pub struct Broken {
    /// What the peer's index says.
    pub claimed: u16,
    /// How many there are.
    pub slots: u16,
}

/// The end that takes packets out of a ring. There is one for each ring.
#[derive(Debug)]
pub struct Consumer {
    role: Role,
    next: u16,
}

impl Consumer {
    /// At a new connection.
    pub const fn new(role: Role) -> Self {
        Self { role, next: 0 }
    }

    /// The slot that is consumed next.
    pub const fn next(&self) -> u16 {
        self.next
    }

    /// How many slots can be looked at, from [`Consumer::next`] on.
    ///
    /// # Errors
    /// More than there are.
    #[inline]
    pub fn available(&self, ring: &impl Slots) -> Result<u16, Broken> {
        let claimed = ring.load(self.role.peers(), Ordering::Acquire).wrapping_sub(self.next);
        let slots = ring.slots();
        if claimed > slots { Err(Broken { claimed, slots }) } else { Ok(claimed) }
    }

    /// Gives the next `count` slots back. Nothing of them may be looked at afterwards.
    #[inline]
    pub fn release(&mut self, ring: &impl Slots, count: u16) {
        self.next = self.next.wrapping_add(count);
        self.publish(ring);
    }

    /// Tells the producer how far it may go. A client does this once at the start as well: its buffers are empty.
    #[inline]
    pub fn publish(&self, ring: &impl Slots) {
        let value = self.next.wrapping_add(self.role.ahead(ring.slots()));
        ring.store(self.role.own(), value, Ordering::Release);
    }

    /// Asks not to be signalled.
    pub fn mask(&self, ring: &impl Slots) {
        ring.store(Index::Flags, MASK_INTERRUPT, Ordering::Relaxed);
    }

    /// Asks to be signalled. Only after this may [`Consumer::available`] decide to sleep: the fence lets either us see what was produced
    /// before, or the producer see our wish.
    pub fn unmask(&self, ring: &impl Slots) {
        ring.store(Index::Flags, 0, Ordering::Relaxed);
        ring.fence();
    }
}

/// The end that puts packets into a ring. There is one for each ring.
#[derive(Debug)]
pub struct Producer {
    role: Role,
    next: u16,
}

impl Producer {
    /// At a new connection.
    pub const fn new(role: Role) -> Self {
        Self { role, next: 0 }
    }

    /// Begins at 0, whatever stood there. A server does this once before it says that it is ready.
    pub fn publish_start(&self, ring: &impl Slots) {
        ring.store(self.role.own(), self.next, Ordering::Release);
    }

    /// The slot that is filled next.
    pub const fn next(&self) -> u16 {
        self.next
    }

    /// How many slots can be filled, from [`Producer::next`] on.
    ///
    /// # Errors
    /// More than there are.
    #[inline]
    pub fn free(&self, ring: &impl Slots) -> Result<u16, Broken> {
        let slots = ring.slots();
        let limit = ring.load(self.role.peers(), Ordering::Acquire).wrapping_add(self.role.ahead(slots));
        let claimed = limit.wrapping_sub(self.next);
        if claimed > slots { Err(Broken { claimed, slots }) } else { Ok(claimed) }
    }

    /// Hands the next `count` slots over, which are filled by now. True when the consumer wants to be signalled.
    #[inline]
    #[must_use]
    pub fn publish(&mut self, ring: &impl Slots, count: u16) -> bool {
        self.next = self.next.wrapping_add(count);
        ring.store(self.role.own(), self.next, Ordering::Release);
        ring.fence();
        ring.load(Index::Flags, Ordering::Relaxed) & MASK_INTERRUPT == 0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Plain([Cell<u16>; 3], u16);

    impl Slots for Plain {
        fn slots(&self) -> u16 {
            self.1
        }
        fn load(&self, index: Index, _: Ordering) -> u16 {
            self.0[index as usize].get()
        }
        fn store(&self, index: Index, value: u16, _: Ordering) {
            self.0[index as usize].set(value);
        }
        fn fence(&self) {}
    }

    proptest! {
        /// Whoever produces: all that goes in comes out, in order, and no slot is both free and full, also where indices wrap.
        #[test]
        fn slots_are_handed_over_and_back(
            from_client in any::<bool>(), log2 in 0..=14_u32, steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 1..200)
        ) {
            let (producing, consuming) = if from_client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
            let ring = Plain(Default::default(), 1 << log2);
            let (mut producer, mut consumer) = (Producer::new(producing), Consumer::new(consuming));
            consumer.publish(&ring);
            let mut inside = 0;
            for (produce, count) in steps {
                prop_assert_eq!(consumer.available(&ring).unwrap(), inside);
                prop_assert_eq!(producer.free(&ring).unwrap(), ring.slots() - inside);
                if produce {
                    let count = count.min(producer.free(&ring).unwrap());
                    let _ = producer.publish(&ring, count);
                    inside += count;
                } else {
                    let count = count.min(inside);
                    consumer.release(&ring, count);
                    inside -= count;
                }
                prop_assert_eq!(producer.next().wrapping_sub(consumer.next()), inside);
            }
        }

        #[test]
        fn a_peer_claims_at_most_the_ring(index in any::<u16>(), log2 in 0..=14_u32) {
            for role in [Role::Server, Role::Client] {
                let ring = Plain(Default::default(), 1 << log2);
                ring.store(role.peers(), index, Ordering::Relaxed);
                let counts = [Consumer::new(role).available(&ring), Producer::new(role).free(&ring)];
                for count in counts {
                    prop_assert!(count.is_err() || count.unwrap() <= ring.slots());
                }
            }
        }
    }
}
