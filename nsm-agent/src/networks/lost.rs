//! Records of the meta-plugin that are lost, as it tells them in `<cniSocket>.lost/`: each is logged, counted and removed.
//!
//! Guarantee: what was told while the agent was away is counted when it is back, and nothing twice.

use std::{
    io,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use nsm_cni_types::lost::{self, Cause, LostRecord};

use crate::{files, metrics::Metrics, state::blocking};

/// Follows what the plugin tells, until the end.
pub(super) async fn run(cni_socket: PathBuf, metrics: Metrics) {
    let folder = lost::folder(&cni_socket);
    let (opened, of_metrics) = (folder.clone(), metrics.clone());
    let watched = blocking(move || {
        files::own_folder(opened.clone())?;
        let changes = watch(&opened)?;
        // What came before the watch.
        take(&opened, &of_metrics);
        io::Result::Ok(changes)
    });
    let mut changes = match watched.await {
        Ok(changes) => changes,
        Err(error) => {
            tracing::error!(path = %folder.display(), %error, "lost records of networks are not counted before the next start");
            return;
        }
    };
    while changes.next().await.is_some() {
        let (folder, metrics) = (folder.clone(), metrics.clone());
        blocking(move || take(&folder, &metrics)).await;
    }
}

fn watch(folder: &Path) -> io::Result<inotify::EventStream<[u8; 1024]>> {
    let inotify = Inotify::init()?;
    inotify.watches().add(folder, WatchMask::MOVED_TO)?;
    inotify.into_event_stream([0; 1024])
}

/// Counts all that is there. Blocking.
fn take(folder: &Path, metrics: &Metrics) {
    let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !name.starts_with('.') && name.strip_suffix(".json").is_some()
    };
    for path in paths.filter(is_one) {
        let Ok(text) = std::fs::read(&path) else { continue };
        // Before it is counted: one that stays would be counted again and again.
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::error!(path = %path.display(), %error, "what the plugin tells of a lost record cannot be removed");
            continue;
        }
        let Some(lost) = LostRecord::parse(&text) else {
            tracing::error!(path = %path.display(), "what the plugin tells of a lost record cannot be read");
            continue;
        };
        metrics.record_lost(lost.cause);
        log(&lost);
    }
}

fn log(lost: &LostRecord) {
    let LostRecord { container_id: container, ifname, network, .. } = lost;
    let kept = lost.kept.as_deref().map(|path| path.display().to_string());
    let ended = lost.ended.join(", ");
    let what = match lost.cause {
        Cause::Damaged => "cannot be read",
        Cause::Missing => "is missing",
        // After an installation the rule, and no fault.
        Cause::Older => {
            tracing::warn!(
                container,
                ifname,
                network,
                ended,
                "a pod has ended that is older than the records of networks: the meta-plugin came later, or their folder was removed"
            );
            return;
        }
    };
    tracing::error!(
        container,
        ifname,
        network,
        kept,
        ended,
        "the record of a pod's networks {what}: the others of its networks are for GC"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once() {
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let mut lost = LostRecord {
            container_id: "a".into(),
            ifname: "eth0".into(),
            network: "n".into(),
            cause: Cause::Damaged,
            kept: Some("/x".into()),
            ended: Vec::new(),
        };
        std::fs::write(dir.path().join(lost.file_name()), lost.to_json()).unwrap();
        for (cause, container) in [(Cause::Missing, "b"), (Cause::Older, "c")] {
            (lost.cause, lost.container_id) = (cause, container.into());
            std::fs::write(dir.path().join(lost.file_name()), lost.to_json()).unwrap();
        }
        std::fs::write(dir.path().join("strange.json"), "{").unwrap();
        std::fs::write(dir.path().join(".being-written.json"), "{").unwrap();
        for _ in 0..2 {
            take(dir.path(), &metrics);
            let text = metrics.text(crate::metrics::Now::default()).unwrap();
            for cause in ["Damaged", "Missing", "Older"] {
                let line = format!("nsm_network_records_lost_total{{cause=\"{cause}\"}} 1");
                assert!(text.contains(&line), "{line}\n{text}");
            }
        }
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".being-written.json"]);
    }
}
