//! containerd on a machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Program, eventually};

use crate::images::PAUSE;
use crate::place::Place;

/// Until it answers.
const READY: Duration = Duration::from_secs(30);

/// Where configurations of networks are.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Where plugins are.
pub const BIN_DIR: &str = "/opt/cni/bin";

/// Which containerd.
#[derive(Debug, Clone)]
pub enum Release {
    /// The distribution's.
    Packaged,
    /// That of a directory, which has its shim and `ctr` too.
    In(PathBuf),
}

/// A running containerd. Its containers outlive it.
#[derive(Debug)]
pub(crate) struct Runtime {
    program: Program,
}

impl Release {
    /// containerd 2, which calls more of a plugin.
    pub fn newer() -> anyhow::Result<Self> {
        let dir = nsm_peers::tools::dir()?.join("containerd-2");
        ensure!(dir.join("ctr").is_file(), "{} is missing: `cargo xtask test kubelet` builds it", dir.display());
        Ok(Self::In(dir))
    }

    /// The newest version of CNI that it speaks.
    pub(crate) const fn cni_version(&self) -> &'static str {
        match self {
            Self::Packaged => "1.0.0",
            Self::In(_) => "1.1.0",
        }
    }

    fn program(&self, name: &str) -> PathBuf {
        match self {
            Self::Packaged => name.into(),
            Self::In(dir) => dir.join(name),
        }
    }

    /// Shims are looked for in the path.
    fn path(&self) -> String {
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        match self {
            Self::Packaged => usual.to_owned(),
            Self::In(dir) => format!("{}:{usual}", dir.display()),
        }
    }

    /// Its client for hands, for the containers of Kubernetes.
    pub(crate) fn ctr(&self, place: &Place) -> Command {
        let mut command = Command::new(self.program("ctr"));
        command
            .env_clear()
            .env("PATH", self.path())
            .arg("--address")
            .arg(socket(place))
            .args(["--namespace", "k8s.io"]);
        command
    }
}

pub(crate) fn socket(place: &Place) -> PathBuf {
    place.dir().join("containerd.sock")
}

impl Runtime {
    /// Starts it and waits until it answers.
    pub(crate) fn start(place: &Place, release: &Release) -> anyhow::Result<Self> {
        let config = place.dir().join("containerd.toml");
        std::fs::write(&config, settings(place.dir()))?;
        let mut command = Command::new(release.program("containerd"));
        command.env_clear().env("PATH", release.path()).arg("--config").arg(&config);
        let mut program = place.start("containerd", &mut command)?;
        let answers = || {
            program.still_runs()?;
            place.output(release.ctr(place).arg("version"))
        };
        eventually("containerd", READY, answers, |_| true).map(drop)?;
        Ok(Self { program })
    }

    /// SIGKILL; containers go on.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.program.kill()
    }
}

/// Imports archives of images.
pub(crate) fn import(place: &Place, release: &Release, archives: &[PathBuf]) -> anyhow::Result<()> {
    for archive in archives {
        place
            .output(release.ctr(place).args(["images", "import"]).arg(archive))
            .with_context(|| archive.display().to_string())?;
    }
    Ok(())
}

fn settings(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/containerd/root"
state = "{dir}/containerd/state"
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{BIN_DIR}"
    conf_dir = "{CONF_DIR}"
"#
    )
}
