use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nsm_cni_types::chained;

use super::*;

const LIST: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#;

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// A machine whose runtime has the plugin flannel, and a network of that.
    fn new() -> Self {
        let host = Self { dir: tempfile::TempDir::new().unwrap() };
        for dir in ["bin", "net.d", "image"] {
            fs::create_dir(host.path(dir)).unwrap();
        }
        host.put("bin/flannel", "flannel");
        host.put("image/nsm-cni", "version 1");
        host.put("net.d/10-flannel.conflist", LIST);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn installer(&self) -> Installer {
        Installer::new(&Settings {
            plugin: Some((self.path("bin"), self.path("image/nsm-cni"))),
            conf_dir: Some(self.path("net.d")),
            entry: chained::Entry { cni_socket: "/run/nsm/cni.sock".into(), agent_wait_seconds: 10 },
        })
    }
}

/// A look, and what is amiss after it.
fn look(installer: &mut Installer, problems: &[&str]) -> Vec<String> {
    let problems: Vec<String> = problems.iter().map(|&problem| problem.to_owned()).collect();
    let found = installer.look(&problems);
    installer.installed.show(found);
    installer.installed.problems()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn both_are_installed_once_and_then_left_alone() {
    let host = Host::new();
    fs::set_permissions(host.path("net.d/10-flannel.conflist"), fs::Permissions::from_mode(0o640)).unwrap();
    let mut installer = host.installer();
    assert!(installer.installed().problems().iter().all(|problem| problem.contains("not looked at yet")));
    assert_eq!(installer.installed().problems().len(), 2);
    assert_eq!(look(&mut installer, &[]), [""; 0]);
    assert_eq!(host.text("bin/nsm-cni"), "version 1");
    assert_eq!((mode(&host.path("bin/nsm-cni")), mode(&host.path("net.d/00-nsm.conflist"))), (0o755, 0o640));
    let files = |host: &Host| {
        ["bin/nsm-cni", "net.d/00-nsm.conflist"].map(|name| fs::metadata(host.path(name)).unwrap().modified().unwrap())
    };
    let before = files(&host);
    assert_eq!(look(&mut installer, &[]), [""; 0]);
    assert_eq!(look(&mut host.installer(), &[]), [""; 0]);
    assert_eq!(files(&host), before);
    assert_eq!(host.names("net.d"), ["00-nsm.conflist", "10-flannel.conflist"]);
    assert_eq!(host.names("bin"), ["flannel", "nsm-cni"]);
}

#[test]
fn a_plugin_that_differs_is_replaced_by_another_file() {
    let host = Host::new();
    let mut installer = host.installer();
    look(&mut installer, &[]);
    let running = fs::File::open(host.path("bin/nsm-cni")).unwrap();
    for (change, text) in [("image/nsm-cni", "version 2"), ("bin/nsm-cni", "others' own")] {
        host.put(change, text);
        fs::set_permissions(host.path("bin/nsm-cni"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(look(&mut installer, &[]), [""; 0]);
        assert_eq!(host.text("bin/nsm-cni"), "version 2");
        assert_eq!(mode(&host.path("bin/nsm-cni")), 0o755);
    }
    fs::remove_file(host.path("bin/nsm-cni")).unwrap();
    std::os::unix::fs::symlink("flannel", host.path("bin/nsm-cni")).unwrap();
    assert_eq!(look(&mut installer, &[]), [""; 0]);
    assert_eq!(host.text("bin/flannel"), "flannel");
    assert_eq!(host.text("bin/nsm-cni"), "version 2");
    assert_eq!(std::io::read_to_string(running).unwrap(), "version 1");
}

#[test]
fn no_configuration_without_the_plugin_or_while_no_add_can_be_served() {
    let host = Host::new();
    fs::remove_file(host.path("image/nsm-cni")).unwrap();
    let problems = look(&mut host.installer(), &[]);
    assert!(problems[0].contains("image/nsm-cni: No such file"), "{problems:?}");
    assert!(problems[1].contains("not written until an ADD can be served: nsm-cni is not installed"), "{problems:?}");
    host.put("image/nsm-cni", "version 1");
    let mut installer = host.installer();
    let problems = look(&mut installer, &["no veth"]);
    assert!(problems[0].contains("until an ADD can be served: no veth"), "{problems:?}");
    assert_eq!(host.names("net.d"), ["10-flannel.conflist"]);
    assert_eq!(look(&mut installer, &[]), [""; 0]);
    // It is there from an earlier agent: nothing to write, nothing to take away.
    assert_eq!(look(&mut host.installer(), &["no veth"]), [""; 0]);
}

#[test]
fn a_plugin_directory_that_the_runtime_does_not_use_gets_no_configuration() {
    let host = Host::new();
    fs::remove_file(host.path("bin/flannel")).unwrap();
    let problems = look(&mut host.installer(), &[]);
    assert!(problems[0].contains("runs flannel, portmap, and none of them is in"), "{problems:?}");
    assert_eq!(host.names("net.d"), ["10-flannel.conflist"]);
}

/// K3s: the plugins are links to a file elsewhere on the node, which the agent's container does not have.
#[test]
fn a_plugin_directory_of_links_is_the_runtimes() {
    let host = Host::new();
    fs::remove_file(host.path("bin/flannel")).unwrap();
    for name in ["flannel", "nsm-cni"] {
        std::os::unix::fs::symlink("/none/data/current/bin/cni", host.path("bin").join(name)).unwrap();
    }
    assert_eq!(look(&mut host.installer(), &[]), [""; 0]);
    assert_eq!(host.names("net.d"), ["00-nsm.conflist", "10-flannel.conflist"]);
    assert_eq!(host.text("bin/nsm-cni"), "version 1", "a file of its own in the link's place");
    assert!(fs::symlink_metadata(host.path("bin/flannel")).unwrap().is_symlink());
    // A folder is no plugin.
    fs::remove_file(host.path("bin/flannel")).unwrap();
    fs::create_dir(host.path("bin/flannel")).unwrap();
    fs::remove_file(host.path("net.d/00-nsm.conflist")).unwrap();
    assert!(look(&mut host.installer(), &[])[0].contains("none of them is in"));
}

#[test]
fn the_original_is_followed_and_ours_outlives_it() {
    let host = Host::new();
    let mut installer = host.installer();
    look(&mut installer, &[]);
    host.put("net.d/10-flannel.conflist", &LIST.replace("cbr0", "cbr1"));
    look(&mut installer, &[]);
    assert!(host.text("net.d/00-nsm.conflist").contains("\"cbr1\""));
    // A name that sorts before ours: ours moves.
    host.put("net.d/00-a.conflist", &LIST.replace("cbr0", "cbr2"));
    assert_eq!(look(&mut installer, &[]), [""; 0]);
    assert_eq!(host.names("net.d"), ["0-nsm.conflist", "00-a.conflist", "10-flannel.conflist"]);
    assert!(host.text("net.d/0-nsm.conflist").contains("\"cbr2\""));
    let ours = host.text("net.d/0-nsm.conflist");
    for (change, why) in [(Some("{"), "cannot be used"), (Some(""), "cannot be used"), (None, "no CNI configuration")] {
        match change {
            Some(text) => host.put("net.d/00-a.conflist", text),
            None => ["00-a.conflist", "10-flannel.conflist"]
                .iter()
                .for_each(|name| fs::remove_file(host.path("net.d").join(name)).unwrap()),
        }
        let problems = look(&mut installer, &[]);
        assert!(problems[0].contains(why) && problems[0].contains("0-nsm.conflist stays"), "{problems:?}");
        assert_eq!(host.text("net.d/0-nsm.conflist"), ours);
    }
}

#[test]
fn ours_is_put_back_and_not_fought_over() {
    let host = Host::new();
    let mut installer = host.installer();
    look(&mut installer, &[]);
    let ours = host.text("net.d/00-nsm.conflist");
    host.put("net.d/00-nsm.conflist", "{}");
    assert_eq!(look(&mut installer, &[]), [""; 0]);
    assert_eq!(host.text("net.d/00-nsm.conflist"), ours);
    fs::rename(host.path("net.d/00-nsm.conflist"), host.path("net.d/00-nsm.conflist.cilium_bak")).unwrap();
    let problems = look(&mut installer, &[]);
    assert!(problems[0].contains("Cilium changes or removes") && problems[0].contains("cni.exclusive"), "{problems:?}");
    assert_eq!(host.names("net.d"), ["00-nsm.conflist.cilium_bak", "10-flannel.conflist"]);
}

#[test]
fn what_a_killed_agent_left_is_no_obstacle() {
    let host = Host::new();
    host.put("bin/.nsm-cni.new", "half");
    host.put("net.d/.00-nsm.conflist.new", "{");
    host.put("net.d/0-nsm.conflist", "{");
    assert_eq!(look(&mut host.installer(), &[]), [""; 0]);
    assert_eq!(host.names("bin"), ["flannel", "nsm-cni"]);
    assert_eq!(host.names("net.d"), ["0-nsm.conflist", "10-flannel.conflist"]);
    assert!(host.text("net.d/0-nsm.conflist").contains("nsm-cni"));
}
