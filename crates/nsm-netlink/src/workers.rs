//! Threads for calls that sleep in the kernel.
//!
//! # Guarantees
//!
//! - There are at most [`WORKERS`]; beyond this, callers wait for one.
//! - One that has nothing to do ends after [`IDLE`], all of them with their owner: between jobs they hold nothing open.
//!
//! A thread that waits takes a job at once. A new one has to find a processor first, which takes milliseconds when all are busy.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::events::lock;

/// Workers at a time. They sleep in the kernel and share its barrier.
const WORKERS: usize = 128;

/// A worker is a few calls deep.
const WORKER_STACK: usize = 256 * 1024;

/// How long a worker waits for its next job.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of workers, started when they are needed.
#[derive(Default)]
pub(crate) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A job has come, or the end.
    work: Condvar,
    /// A worker waits, or has ended.
    freed: Condvar,
}

#[derive(Default)]
struct State {
    workers: usize,
    /// Those that wait. There are never more jobs than that.
    waiting: usize,
    jobs: VecDeque<Job>,
    closed: bool,
}

impl State {
    fn is_full(&self) -> bool {
        self.workers >= WORKERS && self.waiting <= self.jobs.len()
    }
}

impl Workers {
    /// Has a worker do the job; false when none was free until then.
    pub(crate) fn run(&self, until: Instant, job: impl FnOnce() + Send + 'static) -> Result<bool, Error> {
        let left = until.saturating_duration_since(Instant::now());
        let (mut state, waited) = self
            .0
            .freed
            .wait_timeout_while(lock(&self.0.state), left, |state| state.is_full())
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Ok(false);
        }
        if state.waiting > state.jobs.len() {
            state.jobs.push_back(Box::new(job));
            drop(state);
            self.0.work.notify_one();
            return Ok(true);
        }
        state.workers += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("link-deletion".into())
            .stack_size(WORKER_STACK)
            .spawn(move || shared.work(Box::new(job)));
        match started {
            Ok(_) => Ok(true),
            Err(error) => {
                lock(&self.0.state).workers -= 1;
                self.0.freed.notify_one();
                Err(Error::io("start a thread", error))
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.work.notify_all();
    }
}

impl Shared {
    fn work(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next {
            // Who waits for it has a deadline; the worker must not be lost to the others.
            let _ = catch_unwind(AssertUnwindSafe(job));
            next = self.next();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        state.waiting += 1;
        self.freed.notify_one();
        let (mut state, _) = self
            .work
            .wait_timeout_while(state, IDLE, |state| state.jobs.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.workers -= 1;
            self.freed.notify_one();
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn is_busy(workers: &Workers) -> bool {
        let state = lock(&workers.0.state);
        state.waiting <= state.jobs.len()
    }

    #[test]
    fn a_worker_takes_the_next_job_also_after_a_panic() {
        let workers = Workers::default();
        let (tell, told) = mpsc::channel();
        let until = soon();
        for turn in 0..3 {
            let tell = tell.clone();
            let job = move || {
                tell.send(thread::current().id()).unwrap();
                assert!(turn != 0, "a job that fails");
            };
            assert!(workers.run(until, job).unwrap());
            // Until it waits again.
            while is_busy(&workers) {
                assert!(Instant::now() < until, "the worker does not come back");
                thread::yield_now();
            }
        }
        let by: Vec<_> = told.try_iter().collect();
        assert!(by.len() == 3 && by.iter().all(|thread| *thread == by[0]), "{by:?}");
    }

    #[test]
    fn beyond_the_bound_callers_wait() {
        let workers = Workers::default();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..WORKERS {
            let held = held.clone();
            assert!(
                workers
                    .run(soon(), move || {
                        let _ = lock(&held).recv();
                    })
                    .unwrap()
            );
        }
        assert!(!workers.run(Instant::now() + Duration::from_millis(10), || {}).unwrap());
        release.send(()).unwrap();
        assert!(workers.run(soon(), || {}).unwrap());
        drop(release);
    }
}
