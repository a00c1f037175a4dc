//! `nsmctl`, of which the library of that name is all.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nsmctl::main()
}
