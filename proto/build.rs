//! Compiles the .proto files with protox, so that no protoc has to be installed.

use std::error::Error;

const FILES: [&str; 7] = [
    "networkservice.proto",
    "connection.proto",
    "connectioncontext.proto",
    "registry.proto",
    "cni.proto",
    "admin.proto",
    "podresources.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().build_transport(false).btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
