//! The meta-plugin: several networks of one pod, each by plugins of its own, from Multus's configuration and annotations.
//!
//! Guarantees: of each attachment a durable record is there before anything is made and until all of it is gone; DEL, CHECK and GC
//! work from it, whatever configuration, agent and cluster say by then. For a pod that asks nothing, of a configuration without
//! objects, no runtime is started and nobody asked.

mod add;
mod check;
mod del;
mod exec;
mod gc;
mod hostfiles;
mod inside;
mod network;
mod plan;
mod record;
mod settled;
mod status;
mod undo;

use std::path::Path;

use nsm_cni_types::{Command, Error, code};
use nsm_npwg::Meta;

use crate::Call;
use exec::SearchPath;

/// What the call answers on stdout.
pub(crate) fn run(call: &Call) -> Result<Option<String>, Error> {
    let strict = || {
        let meta = Meta::parse(&call.stdin)?;
        for warning in &meta.without_effect {
            eprintln!("nsm-cni: {warning}");
        }
        Ok(meta)
    };
    let lenient = || {
        let (meta, warnings) = Meta::lenient(&call.stdin);
        for warning in &warnings {
            eprintln!("nsm-cni: goes on in spite of: {warning}");
        }
        meta
    };
    match &call.env.command {
        Command::Add => add::run(call, &strict()?).map(Some),
        Command::Check => check::run(call, &strict()?).map(|()| None),
        Command::Del => del::run(call, &lenient()).map(|()| None),
        Command::Gc => gc::run(call, &lenient()).map(|()| None),
        Command::Status => status::run(&strict()?).map(|()| None),
        Command::Version | Command::Unknown(_) => {
            Err(Error::new(code::INTERNAL, "no call of the meta-plugin: expected ADD, DEL, CHECK, GC or STATUS"))
        }
    }
}

/// Where plugins are looked for: `binDir`, then what the runtime says.
fn search(bin_dir: &Path) -> SearchPath {
    SearchPath::new(bin_dir, &std::env::var_os("CNI_PATH").unwrap_or_default())
}
