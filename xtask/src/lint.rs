//! `lint`: what needs no test to be run.

use crate::suites;
use crate::test::{Options, run_suites};

pub(crate) fn lint() -> bool {
    run_suites(&suites::LINTS.iter().collect::<Vec<_>>(), Options { install: true })
}
