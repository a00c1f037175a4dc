//! A record that is lost is told: on stderr, which runtimes throw away, and to the agent, which logs and counts it, now or when it is back.
//!
//! Guarantee: a container that has nothing, as its ADD was refused or its DEL was here before, has lost nothing.

use nsm_cni_types::lost::{self, Cause, LostRecord};
use nsm_npwg::Meta;

use super::{inside::Inside, network::Network};
use crate::{Call, files, netns::Netns};

/// Whether the container has, or had, its first network: the interface is there, or the runtime knows a result, which it forgets with
/// a DEL that succeeded.
pub(crate) fn is_missed(call: &Call) -> bool {
    let is_known = call.stdin.keys.get("prevResult").is_some_and(serde_json::Value::is_object);
    let is_there = || {
        let inside = Netns::open(&call.env).and_then(|netns| Inside::open(&netns));
        inside.is_ok_and(|inside| inside.refuse_taken([call.env.ifname.as_str()]).is_err())
    };
    is_known || is_there()
}

/// Tells what could be ended without the record.
pub(crate) fn tell(call: &Call, meta: &Meta, (cause, kept): (Cause, Option<std::path::PathBuf>), ended: &[Network]) {
    let lost = LostRecord {
        container_id: call.env.container_id.clone(),
        ifname: call.env.ifname.clone(),
        network: call.stdin.name.clone(),
        cause,
        kept,
        ended: ended.iter().map(|network| network.name.clone()).collect(),
    };
    let names = if lost.ended.is_empty() { "nothing".to_owned() } else { lost.ended.join(", ") };
    let how = match (&lost.kept, cause) {
        (Some(kept), _) => format!("cannot be read and is kept as {}", kept.display()),
        (None, Cause::Damaged) => "cannot be read".to_owned(),
        (None, Cause::Missing) => "is missing".to_owned(),
    };
    eprintln!(
        "nsm-cni: the record of container {} {how}: of its networks {names} is ended; what it had besides is for GC",
        lost.container_id
    );
    let folder = lost::folder(&meta.socket);
    if let Err(error) = files::put(&folder, &lost.file_name(), lost.to_json()) {
        eprintln!("nsm-cni: {}: the agent is not told: {error}", folder.display());
    }
}
