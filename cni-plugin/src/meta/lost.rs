//! A record that is lost is told: on stderr, which runtimes throw away, and to the agent, which logs and counts it, now or when it is back.
//!
//! Guarantees: a container that has nothing, as its ADD was refused or its DEL was here before, has lost nothing. One that is older than the
//! folder of records is told from one whose record was there.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nsm_cni_types::{
    Environment,
    lost::{self, Cause, LostRecord},
};
use nsm_npwg::Meta;

use super::{inside::Inside, network::Network};
use crate::{Call, files, netns::Netns};

/// Where the CNI library keeps what ADDs have answered, unless a runtime has another place.
const RESULTS: &str = "/var/lib/cni/results";
/// A namespace is made before the ADD that makes the folder of records, on a new node: by so much, at most.
const LONGEST_ADD: Duration = Duration::from_mins(5);

/// What is lost of a container without a record, if anything. `records`: their folder.
pub(crate) fn missed(call: &Call, records: &Path) -> Option<Cause> {
    is_missed(call).then(|| {
        let results = Path::new(RESULTS);
        if is_older(&call.env, &call.stdin.name, results, records) { Cause::Older } else { Cause::Missing }
    })
}

/// Whether the container had its network, as far as can be seen, before there were records.
fn is_older(env: &Environment, network: &str, results: &Path, records: &Path) -> bool {
    let Ok(since) = fs::metadata(records).and_then(|folder| folder.created()) else { return false };
    let changed = |path: PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    let answered = changed(results.join(format!("{network}-{}-{}", env.container_id, env.ifname)));
    let began = || changed(PathBuf::from(&env.netns)).map(|made: SystemTime| made + LONGEST_ADD);
    answered.or_else(began).is_some_and(|before| before < since)
}

/// Whether the container has, or had, its first network: the interface is there, or the runtime knows a result, which it forgets with
/// a DEL that succeeded.
fn is_missed(call: &Call) -> bool {
    let is_known = call.stdin.keys.get("prevResult").is_some_and(serde_json::Value::is_object);
    let is_there = || {
        let inside = Netns::open(&call.env).and_then(|netns| Inside::open(&netns));
        inside.is_ok_and(|inside| inside.refuse_taken([call.env.ifname.as_str()]).is_err())
    };
    is_known || is_there()
}

/// Tells what could be ended without the record.
pub(crate) fn tell(call: &Call, meta: &Meta, (cause, kept): (Cause, Option<PathBuf>), ended: &[Network]) {
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
        (None, Cause::Older) => "never was, or went with its folder: the container is older".to_owned(),
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

#[cfg(test)]
mod tests {
    use nsm_cni_types::Command;

    use super::*;

    #[test]
    fn what_is_older_than_the_records_has_lost_none() {
        let dir = tempfile::tempdir().unwrap();
        let [records, netns] = ["records", "netns"].map(|name| dir.path().join(name));
        let env = Environment {
            command: Command::Del,
            container_id: "c".into(),
            netns: netns.to_str().unwrap().into(),
            ifname: "eth0".into(),
            args: String::new(),
            netns_override: false,
        };
        let is_older = || super::is_older(&env, "n", dir.path(), &records);
        assert!(!is_older(), "nothing is known");
        fs::create_dir(&records).unwrap();
        let since = fs::metadata(&records).unwrap().created().unwrap();
        assert!(!is_older(), "nothing is known of the container");
        let made = |path: &Path, at: SystemTime| fs::File::create(path).unwrap().set_modified(at).unwrap();
        let minutes = |minutes| Duration::from_mins(minutes);
        made(&netns, since - minutes(4));
        assert!(!is_older(), "its ADD may have made the folder");
        made(&netns, since - minutes(6));
        assert!(is_older());
        // What it was answered is the better witness.
        made(&dir.path().join("n-c-eth0"), since + minutes(1));
        assert!(!is_older());
        made(&dir.path().join("n-c-eth0"), since - minutes(1));
        assert!(is_older());
    }
}
