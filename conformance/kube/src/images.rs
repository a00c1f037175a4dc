//! Container images without an engine: archives as `docker save` writes them, which runtimes import.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ring::digest::{SHA256, digest};
use serde_json::json;
use tar::{Builder, EntryType, Header};

/// busybox, with all its commands.
pub const BUSYBOX: &str = "docker.io/local/busybox:1";
/// What holds a sandbox's namespaces.
pub(crate) const PAUSE: &str = "docker.io/local/pause:1";

/// What an image has.
#[derive(Debug, Default)]
pub struct Image {
    files: Vec<(String, PathBuf)>,
    links: Vec<(String, String)>,
    command: Vec<String>,
}

impl Image {
    /// Of one program, which it runs.
    pub fn running(command: &[&str]) -> Self {
        Self { command: command.iter().map(|word| (*word).to_owned()).collect(), ..Self::default() }
    }

    /// With a program of the host's.
    #[must_use]
    pub fn with(mut self, path: &str, program: &Path) -> Self {
        self.files.push((path.to_owned(), program.to_owned()));
        self
    }

    /// With a symbolic link.
    #[must_use]
    pub fn linking(mut self, path: &str, target: &str) -> Self {
        self.links.push((path.to_owned(), target.to_owned()));
        self
    }

    /// Writes it, named `name`.
    pub fn save(&self, name: &str, to: &Path) -> anyhow::Result<()> {
        let layer = self.layer()?;
        let hash = hex(&layer);
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": { "Cmd": self.command, "Env": ["PATH=/bin:/usr/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
        })
        .to_string();
        let [config_name, layer_name] = [format!("{}.json", hex(config.as_bytes())), format!("{hash}/layer.tar")];
        let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": [layer_name] }]).to_string();
        let mut archive = Builder::new(File::create(to).with_context(|| to.display().to_string())?);
        put(&mut archive, &config_name, config.as_bytes(), 0o644)?;
        put(&mut archive, &layer_name, &layer, 0o644)?;
        put(&mut archive, "manifest.json", manifest.as_bytes(), 0o644)?;
        archive.finish()?;
        Ok(())
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        for dir in ["bin/", "tmp/", "etc/", "proc/", "sys/"] {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            header.set_mode(if dir == "tmp/" { 0o1777 } else { 0o755 });
            header.set_cksum();
            layer.append_data(&mut header, dir, std::io::empty())?;
        }
        for (path, program) in &self.files {
            let bytes = std::fs::read(program).with_context(|| program.display().to_string())?;
            put(&mut layer, path, &bytes, 0o755)?;
        }
        for (path, target) in &self.links {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            layer.append_link(&mut header, path, target)?;
        }
        Ok(layer.into_inner()?)
    }
}

/// The images that every machine has, written into `dir`.
pub(crate) fn basic(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let busybox = Path::new("/bin/busybox");
    let listed = std::process::Command::new(busybox).arg("--list").output().context("/bin/busybox")?;
    let names = String::from_utf8(listed.stdout)?;
    // Ends when told to, as process 1 does only if it says so.
    let mut shell = Image::running(&["/bin/sh", "-c", IDLE]).with("bin/busybox", busybox);
    for name in names.lines().filter(|name| *name != "busybox") {
        shell = shell.linking(&format!("bin/{name}"), "busybox");
    }
    let pause = Image::running(&["/bin/busybox", "sleep", "2147483647"]).with("bin/busybox", busybox);
    let paths = [dir.join("busybox.tar"), dir.join("pause.tar")];
    shell.save(BUSYBOX, &paths[0])?;
    pause.save(PAUSE, &paths[1])?;
    Ok(paths.into())
}

/// A shell's program that does nothing until SIGTERM.
pub const IDLE: &str = "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait; done";

fn put(archive: &mut Builder<impl Write>, name: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_cksum();
    archive.append_data(&mut header, name, bytes)?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
