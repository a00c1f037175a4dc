//! The ring's two ends under a model checker, which tries the orders in which two threads can see each other's writes:
//! `RUSTFLAGS="--cfg memif_loom" cargo test -p memif --release --test loom`.
#![cfg(memif_loom)]

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU16, Ordering, fence},
    },
    thread,
};
use memif::{
    Role,
    index::{Consumer, Index, Producer, Slots},
};

const SLOTS: u16 = 2;
const PACKETS: u32 = 3;

/// A ring, its packets and its eventfd.
struct Ring {
    fields: [AtomicU16; 3],
    /// Not atomic: the checker tells when both ends are in one slot.
    packets: [UnsafeCell<u32>; SLOTS as usize],
    raised: Mutex<bool>,
    woken: Condvar,
    fenced: bool,
}

impl Ring {
    fn new(fenced: bool) -> Arc<Self> {
        Arc::new(Self {
            fields: std::array::from_fn(|_| AtomicU16::new(0)),
            packets: std::array::from_fn(|_| UnsafeCell::new(0)),
            raised: Mutex::new(false),
            woken: Condvar::new(),
            fenced,
        })
    }

    fn packet(&self, index: u16) -> &UnsafeCell<u32> {
        &self.packets[usize::from(index % SLOTS)]
    }

    fn raise(&self) {
        *self.raised.lock().unwrap() = true;
        self.woken.notify_one();
    }

    /// Sleeps for as long as nobody raises the event: who misses a wake-up sleeps for ever.
    fn sleep(&self) {
        let mut raised = self.raised.lock().unwrap();
        while !*raised {
            raised = self.woken.wait(raised).unwrap();
        }
        *raised = false;
    }
}

impl Slots for Ring {
    fn slots(&self) -> u16 {
        SLOTS
    }
    fn load(&self, index: Index, ordering: Ordering) -> u16 {
        self.fields[index as usize].load(ordering)
    }
    fn store(&self, index: Index, value: u16, ordering: Ordering) {
        self.fields[index as usize].store(value, ordering);
    }
    fn fence(&self) {
        if self.fenced {
            fence(Ordering::SeqCst);
        }
    }
}

#[expect(unsafe_code, reason = "the checker's cells")]
fn produce(ring: &Ring, role: Role, packets: u32) {
    let mut producer = Producer::new(role);
    for number in 1..=packets {
        while producer.free(ring).unwrap() == 0 {
            thread::yield_now();
        }
        // SAFETY: the checker tells when somebody else is here.
        ring.packet(producer.next()).with_mut(|packet| unsafe { *packet = number });
        if producer.publish(ring, 1) {
            ring.raise();
        }
    }
}

#[expect(unsafe_code, reason = "the checker's cells")]
fn consume(ring: &Ring, role: Role, packets: u32) {
    let mut consumer = Consumer::new(role);
    consumer.mask(ring);
    consumer.publish(ring);
    let mut expected = 1;
    while expected <= packets {
        let available = consumer.available(ring).unwrap();
        if available == 0 {
            consumer.unmask(ring);
            if consumer.available(ring).unwrap() == 0 {
                ring.sleep();
            }
            consumer.mask(ring);
            continue;
        }
        for slot in 0..available {
            // SAFETY: the checker tells when somebody else is here.
            ring.packet(consumer.next().wrapping_add(slot)).with(|packet| assert_eq!(unsafe { *packet }, expected));
            expected += 1;
        }
        consumer.release(ring, available);
    }
}

fn model(producing: Role, consuming: Role, packets: u32, fenced: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let ring = Ring::new(fenced);
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || produce(&other, producing, packets));
        consume(&ring, consuming, packets);
        producer.join().unwrap();
    });
}

#[test]
fn from_client_to_server_nothing_is_lost_torn_or_slept_over() {
    model(Role::Client, Role::Server, PACKETS, true);
}

#[test]
fn from_server_to_client_nothing_is_lost_torn_or_slept_over() {
    model(Role::Server, Role::Client, PACKETS, true);
}

/// That the checker would tell.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_a_packet_is_slept_over() {
    model(Role::Client, Role::Server, 1, false);
}
