//! Looking at the ring for a while before sleeping.
//!
//! Guarantees: a wait looks for at most as long as the user said, and not at all where packets are further apart than that: an idle queue
//! costs nothing.

use std::time::{Duration, Instant};

/// How long to look, and whether that pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spin {
    most: Duration,
    pays: bool,
}

impl Spin {
    /// Never, where `most` is zero.
    pub(crate) const fn new(most: Duration) -> Self {
        Self { most, pays: false }
    }

    /// A wait begins: until when to look, if that is expected to pay. (What is never done costs no look at the clock.)
    #[inline]
    pub(crate) fn begin(self) -> Option<Waited> {
        (!self.most.is_zero()).then(|| {
            let began = Instant::now();
            Waited { began, until: if self.pays { began + self.most } else { began } }
        })
    }

    /// It has ended: looking pays if it would have found what came.
    #[inline]
    pub(crate) fn end(&mut self, waited: Option<Waited>, came: bool) {
        self.pays = waited.is_some_and(|waited| came && waited.began.elapsed() <= self.most);
    }
}

/// A wait that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    began: Instant,
    until: Instant,
}

impl Waited {
    /// Looks until something is there, or it is time to sleep, or the wait is over.
    #[inline]
    pub(crate) fn look<E>(self, deadline: Instant, mut there: impl FnMut() -> Result<bool, E>) -> Result<(), E> {
        /// Looks between two looks at the clock.
        const LOOKS: u32 = 16;
        let until = self.until.min(deadline);
        while Instant::now() < until {
            for _ in 0..LOOKS {
                if there()? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn looks(spin: Spin) -> bool {
        let mut looked = false;
        let mut there = || {
            looked = true;
            Ok::<_, ()>(true)
        };
        if let Some(waited) = spin.begin() {
            waited.look(Instant::now() + LONG, &mut there).unwrap();
        }
        looked
    }

    #[test]
    fn what_comes_soon_is_looked_for_and_nothing_else() {
        let mut spin = Spin::new(LONG);
        assert!(!looks(spin), "nothing has come yet");
        spin.end(spin.begin(), true);
        assert!(looks(spin));
        spin.end(spin.begin(), false);
        assert!(!looks(spin), "nothing came");

        let mut short = Spin::new(Duration::from_nanos(1));
        short.end(short.begin(), true);
        assert!(!looks(short), "it came later than that");
        let mut none = Spin::new(Duration::ZERO);
        none.end(none.begin(), true);
        assert!(!looks(none));
    }

    #[test]
    fn looking_has_an_end() {
        let (now, short) = (Instant::now(), Duration::from_millis(1));
        // Its own, and that of the wait.
        for (most, deadline) in [(short, now + LONG), (LONG, now + short)] {
            let spin = Spin { most, pays: true };
            spin.begin().unwrap().look(deadline, || Ok::<_, ()>(false)).unwrap();
        }
        assert!(now.elapsed() < LONG);
    }
}
