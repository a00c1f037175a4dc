//! Prints `deploy/crds.yaml`.
#![forbid(unsafe_code)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", nsm_crds::yaml()?);
    Ok(())
}
