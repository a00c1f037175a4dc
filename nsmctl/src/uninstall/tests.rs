use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::cli::{Cli, Command};

const LIST: &str = r#"{"name": "cbr0", "cniVersion": "1.0.0", "plugins": [{"type": "flannel"}]}"#;

/// What an agent leaves on a node.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { dir: TempDir::new().unwrap() };
        for dir in [
            "net.d",
            "bin",
            "cni/results",
            "run/state/attachments",
            "run/cni.sock.pods",
            "run/cni.sock.owed",
            "run/cni.sock.lost",
            "nsm",
            "lib",
        ] {
            fs::create_dir_all(host.path(dir)).unwrap();
        }
        host.put("net.d/10-flannel.conflist", LIST);
        let entry = chained::Entry { cni_socket: "/run/nsm/cni.sock".into(), agent_wait_seconds: 10 };
        let file = chained::File { name: "10-flannel.conflist".into(), content: Ok(LIST.into()) };
        host.put("net.d/00-nsm.conflist", &chained::choose(&[file], &entry).unwrap().text);
        for file in ["bin/nsm-cni", "bin/flannel", "run/cni.sock.pods/1-2.json", "nsm/registry.redb"] {
            host.put(file, "x");
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A connection of a pod, recorded in this boot or in that one.
    fn attach(&self, boot: Option<&str>) {
        let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let record = serde_json::json!({"format": 1, "boot_id": boot.unwrap_or(own.trim()), "record": {
            "key": {"container_id": "c", "ifname": "nsm-1"}, "interface": "nsm-1", "network_service": "secure",
            "pod": {"name": "web-0", "namespace": "shop", "uid": "u"}}});
        self.put("run/state/attachments/c.json", &record.to_string());
    }

    /// All files, and the directories that hold none.
    fn left(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, left: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, left);
                } else {
                    left.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut left = Vec::new();
        walk(self.dir.path(), self.dir.path(), &mut left);
        left.sort();
        left
    }

    fn cli(&self, flags: &[&str]) -> (Cli, cli::Uninstall) {
        let mut args = vec!["nsmctl".to_owned(), "uninstall".to_owned()];
        for (flag, path) in [
            ("--cni-socket", "run/cni.sock"),
            ("--cni-conf-dir", "net.d"),
            ("--cni-plugin-dir", "bin"),
            ("--cni-cache", "cni"),
            ("--run-dir", "run/state"),
            ("--state-dir", "nsm"),
            ("--nsm-socket", "lib/nsm.io.sock"),
        ] {
            args.extend([flag.to_owned(), self.path(path).display().to_string()]);
        }
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let cli = Cli::parse_from(&args);
        let Command::Uninstall(args) = Cli::parse_from(&args).command else { panic!("{args:?}") };
        (cli, args)
    }

    async fn uninstall(&self, flags: &[&str]) -> Result<String, String> {
        let (cli, args) = self.cli(flags);
        let mut out = Vec::new();
        let agent = Agent::new(cli.cni_socket, Duration::from_secs(1));
        let done = run(&agent, &args, &mut out).await;
        let out = String::from_utf8(out).unwrap();
        done.map(|()| out.clone()).map_err(|error| format!("{out}{error}"))
    }
}

#[tokio::test]
async fn everything_of_ours_goes_once_and_nothing_else() {
    let host = Host::new();
    let before = host.left();
    let planned = host.uninstall(&["--dry-run"]).await.unwrap();
    assert!(planned.contains("would remove") && planned.contains("00-nsm.conflist"), "{planned}");
    assert_eq!(host.left(), before);
    host.uninstall(&[]).await.unwrap();
    assert_eq!(host.left(), ["bin/flannel", "net.d/10-flannel.conflist"]);
    assert!(!host.path("run").exists() && !host.path("lib").exists());
    assert_eq!(host.uninstall(&[]).await.unwrap(), "nothing to remove\n");
}

#[tokio::test]
async fn pods_that_hold_connections_are_named_first() {
    let host = Host::new();
    host.attach(None);
    let before = host.left();
    let refused = host.uninstall(&[]).await.unwrap_err();
    assert!(refused.contains("pod shop/web-0 holds interface nsm-1 of network service secure"), "{refused}");
    assert!(refused.contains("--yes"), "{refused}");
    assert_eq!(host.left(), before);
    assert!(host.uninstall(&["--yes"]).await.unwrap().contains("shop/web-0"));
    let host = Host::new();
    host.attach(Some("an earlier boot"));
    host.uninstall(&[]).await.unwrap();
}

#[tokio::test]
async fn the_last_configuration_stays() {
    for (change, why) in [
        (None, "the node's last CNI configuration"),
        (Some("{"), "cannot be used"),
        (
            Some(
                r#"{"name": "m", "plugins": [{"type": "multus", "clusterNetwork": "/etc/cni/net.d/00-nsm.conflist"}]}"#,
            ),
            "main network",
        ),
    ] {
        let host = Host::new();
        match change {
            Some(text) => host.put("net.d/10-flannel.conflist", text),
            None => fs::remove_file(host.path("net.d/10-flannel.conflist")).unwrap(),
        }
        let before = host.left();
        let refused = host.uninstall(&["--yes"]).await.unwrap_err();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(host.left(), before);
    }
}

#[tokio::test]
async fn the_plugin_stays_while_something_names_it() {
    let host = Host::new();
    let by_hand = r#"{"name": "x", "plugins": [{"type": "nsm-cni", "networkService": "s"}]}"#;
    host.put("net.d/50-mine.conflist", by_hand);
    let said = host.uninstall(&[]).await.unwrap();
    assert!(said.contains("kept") && said.contains("50-mine.conflist runs it"), "{said}");
    assert!(host.path("bin/nsm-cni").exists());
    fs::remove_file(host.path("net.d/50-mine.conflist")).unwrap();
    let entry = serde_json::json!({"kind": "cniCacheV1", "config": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, by_hand)});
    host.put("cni/results/x-c-eth0", &entry.to_string());
    let said = host.uninstall(&[]).await.unwrap();
    assert!(said.contains("1 containers were started with it"), "{said}");
    host.uninstall(&["--remove-plugin"]).await.unwrap();
    assert!(!host.path("bin/nsm-cni").exists());
}

/// Somebody installs again between the steps.
#[test]
fn the_plugin_stays_when_ours_is_back() {
    let host = Host::new();
    assert!(matches!(plugin(&host.cli(&[]).1).unwrap(), Step::Keep(_, why) if why.contains("00-nsm.conflist runs it")));
    assert!(matches!(plugin(&host.cli(&["--dry-run"]).1).unwrap(), Step::File(_)));
}
