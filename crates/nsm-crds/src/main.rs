//! Prints `deploy/crds.yaml`.
#![forbid(unsafe_code)]

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::io::stdout().write_all(nsm_crds::yaml()?.as_bytes())?;
    Ok(())
}
