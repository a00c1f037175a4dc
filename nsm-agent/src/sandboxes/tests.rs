use std::{os::unix::fs::MetadataExt, path::PathBuf};

use nsm_cni_types::pods::Annotations;

use super::*;

/// A file in the place of a namespace: its numbers are what counts.
fn netns(dir: &Path, name: &str) -> (PathBuf, NetnsId) {
    let path = dir.join(name);
    std::fs::write(&path, "").unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    (path, NetnsId { dev: metadata.dev(), ino: metadata.ino() })
}

fn leave(sandboxes: &Sandboxes, container: &str, netns: &(PathBuf, NetnsId)) {
    let sandbox = nsm_cni_types::Attachment { container_id: container.into(), ifname: "eth0".into() };
    let mut record = PodRecord::new(sandbox, "n".into(), netns.0.clone());
    record.pod_uid = "uid".into();
    record.pod_name = "p".into();
    record.pod_namespace = "ns".into();
    record.allow_default_route = true;
    std::fs::write(sandboxes.path.join(records::file_name(netns.1.dev, netns.1.ino)), record.to_json()).unwrap();
}

/// As whoever ends pods does.
fn prune(sandboxes: &Sandboxes) {
    let all = sandboxes.all().unwrap();
    for gone in all.iter().filter(|sandbox| sandbox.is_gone()) {
        let _ = sandboxes.remove(gone);
    }
}

fn open(dir: &Path) -> Sandboxes {
    Sandboxes::open(&dir.join("cni.sock")).unwrap()
}

#[test]
fn a_pod_is_found_while_its_namespace_stands() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = open(dir.path());
    let old = netns(dir.path(), "old");
    let new = netns(dir.path(), "new");
    leave(&sandboxes, "a", &old);
    leave(&sandboxes, "b", &new);
    std::fs::write(sandboxes.path.join("4-5"), "{").unwrap();
    let found = sandboxes.by_netns(old.1).unwrap();
    assert_eq!((found.pod().name.as_str(), found.call().to_string()), ("p", "a/eth0".into()));
    assert!(crate::attach::PodSpec::of(&found).routes.default_route);
    assert_eq!(sandboxes.all().unwrap().len(), 2);
    // Another one in its place.
    std::fs::remove_file(&old.0).unwrap();
    assert_eq!(sandboxes.by_netns(old.1), None);
    let newest = |uid: &str| sandboxes.newest(|pod| pod.uid == uid && pod.name == "p" && pod.namespace == "ns");
    assert_eq!(newest("uid").unwrap().record.container_id, "b");
    assert!(newest("other").is_none());
}

#[test]
fn what_is_gone_is_removed_and_what_cannot_be_seen_stays() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = open(dir.path());
    let gone = netns(dir.path(), "gone");
    leave(&sandboxes, "a", &gone);
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let unseen = netns(dir.path(), "elsewhere/x");
    leave(&sandboxes, "b", &unseen);
    std::fs::remove_file(&gone.0).unwrap();
    std::fs::remove_dir_all(dir.path().join("elsewhere")).unwrap();
    prune(&sandboxes);
    let left: Vec<String> =
        sandboxes.all().unwrap().iter().map(|sandbox| sandbox.record.container_id.clone()).collect();
    assert_eq!(left, ["b"]);
}

#[test]
fn a_record_that_is_gone_is_not_marked() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = open(dir.path());
    let (here, gone) = (netns(dir.path(), "here"), netns(dir.path(), "gone"));
    leave(&sandboxes, "a", &here);
    let mark = |netns: NetnsId| {
        let marked = sandboxes.mark_blocking(netns).unwrap();
        assert_eq!(sandboxes.path.join(records::mark_name(netns.dev, netns.ino)).exists(), marked);
        marked
    };
    assert!(mark(here.1) && mark(here.1));
    assert!(!mark(gone.1));
    assert_eq!(sandboxes.all().unwrap().len(), 1, "a mark is no record");
}

#[test]
fn namespaces_are_there_for_the_next_agent() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Namespaces::open(&dir.path().join("cni.sock")).unwrap();
    let asks = Annotations { services: Some("kernel://a".into()), services_2019: None };
    open().put("team", &asks).unwrap();
    assert!(open().put("../x", &asks).is_err());
    assert_eq!(open().annotations_blocking("team").unwrap(), Some(asks));
    assert_eq!(open().annotations_blocking("other").unwrap(), None);
    open().complete().unwrap();
    for silent in ["other", "../x"] {
        assert_eq!(open().annotations_blocking(silent).unwrap(), Some(Annotations::default()));
    }
    assert_eq!(open().all().unwrap(), ["team"]);
    open().put("team", &Annotations::default()).unwrap();
    assert!(open().all().unwrap().is_empty());
}

fn attachment(container: &str, netns: &(PathBuf, NetnsId)) -> Attachment {
    let key = AttachmentKey { container_id: container.into(), ifname: "nsm-1".into() };
    Attachment {
        client_id: key.client_id(),
        key,
        interface: nsm_netlink::IfName::new("nsm-1").unwrap(),
        source: crate::state::Source::Configuration,
        network: "n".into(),
        netns_path: netns.0.clone(),
        netns: netns.1,
        network_service: "s".into(),
        labels: [].into(),
        pod: Some(Pod { name: container.into(), namespace: "attached".into(), uid: container.into() }),
        mac: nsm_netlink::Mac([2, 0, 0, 0, 0, 1]),
        ips: Vec::new(),
        mtu: None,
        routes: crate::state::RoutePolicy { default_route: false, overlap: false },
    }
}

#[tokio::test]
async fn an_attachments_word_counts_while_its_path_names_the_namespace_and_after_the_sandboxs() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = open(dir.path());
    let attachments = Records::open(dir.path(), "boot").unwrap().0;
    let known = Known { attachments: attachments.clone(), sandboxes: sandboxes.clone(), watched: None };
    let (ended, lives) = (netns(dir.path(), "ended"), netns(dir.path(), "lives"));
    let pod_of = async |netns: NetnsId| {
        let pod = known.pod_of(InodeId { dev: netns.dev, ino: netns.ino }).await;
        pod.map(|pod| format!("{}/{}", pod.namespace, pod.name))
    };
    // A pod that ended without DEL, whose number another's namespace was given.
    std::fs::remove_file(&ended.0).unwrap();
    attachments.put_blocking(attachment("ended", &(ended.0.clone(), lives.1))).unwrap();
    assert_eq!(pod_of(lives.1).await, None);
    attachments.put_blocking(attachment("lives", &lives)).unwrap();
    assert_eq!(pod_of(lives.1).await.as_deref(), Some("attached/lives"));
    leave(&sandboxes, "recorded", &lives);
    assert_eq!(pod_of(lives.1).await.as_deref(), Some("ns/p"));
}

#[test]
fn a_record_that_was_written_anew_is_not_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = open(dir.path());
    let gone = netns(dir.path(), "gone");
    leave(&sandboxes, "a", &gone);
    assert_eq!(sandboxes.all().unwrap().len(), 1);
    std::fs::remove_file(&gone.0).unwrap();
    let record = sandboxes.path.join(records::file_name(gone.1.dev, gone.1.ino));
    let since = SystemTime::now() + Duration::from_secs(9);
    std::fs::File::options().write(true).open(&record).unwrap().set_modified(since).unwrap();
    prune(&sandboxes);
    assert!(record.exists());
}
