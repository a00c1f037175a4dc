//! `image`: the shipped programs as an OCI image archive, made without a container engine.
//!
//! Guarantee: what is called done has every architecture that was asked for by name; where none was, what this machine cannot
//! build is left out and said to be.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::cross::Cross;
use crate::place::{cargo, root, target};
use crate::run::run;

const BUILD: Duration = Duration::from_hours(1);
const PACK: Duration = Duration::from_mins(10);
/// Packages whose programs are in the image, beside the plugin's.
const PACKAGES: [&str; 4] = ["nsm-agent", "nsmctl", "nsc", "icmp-responder"];

/// A processor that the image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn parse(name: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|it| it.name() == name)
            .with_context(|| format!("--arch {name}: expected amd64 or arm64"))
    }

    /// This machine's.
    fn own() -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.cross().processor == std::env::consts::ARCH)
    }

    fn cross(self) -> Cross {
        match self {
            Self::Amd64 => Cross { processor: "x86_64", package: "gcc-x86-64-linux-gnu" },
            Self::Arm64 => Cross { processor: "aarch64", package: "gcc-aarch64-linux-gnu" },
        }
    }
}

/// The name of this machine's architecture.
pub(crate) fn own() -> anyhow::Result<&'static str> {
    Ok(Architecture::own().context("no image is made for this machine's processor")?.name())
}

struct Options {
    /// Empty: what can be built.
    architectures: Vec<Architecture>,
    quick: bool,
}

pub(crate) fn image(args: &[String]) -> anyhow::Result<bool> {
    let options = options(args)?;
    let asked =
        if options.architectures.is_empty() { Architecture::ALL.to_vec() } else { options.architectures.clone() };
    let mut made = Vec::new();
    let mut missing = Vec::new();
    for architecture in asked {
        match build(architecture, options.quick) {
            Ok(dir) => made.push(format!("{}={dir}", architecture.name())),
            Err(Failed::Tools(why)) if options.architectures.is_empty() => missing.push((architecture, why)),
            Err(Failed::Tools(why)) => bail!(why),
            Err(Failed::Build(error)) => return Err(error.context(architecture.name())),
        }
    }
    let out = target().join("nsm-image.tar");
    let mut pack = cargo(&["run", "--quiet", "-p", "nsm-image", "--"]);
    pack.arg(&out).args(["nsm", env!("CARGO_PKG_VERSION")]).args(made);
    run(&mut pack, PACK)?;
    for (architecture, why) in missing {
        let name = architecture.name();
        eprintln!("\nWARNING: {} HAS NO {name}: {why}\nIt does not run on nodes of that architecture.", out.display());
    }
    Ok(true)
}

fn options(args: &[String]) -> anyhow::Result<Options> {
    let mut options = Options { architectures: Vec::new(), quick: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--arch" => {
                let name = args.next().context("--arch: expected amd64 or arm64 after it")?;
                options.architectures.push(Architecture::parse(name)?);
            }
            other => bail!("image takes --arch ARCH and --quick, not {other}"),
        }
    }
    if options.quick && options.architectures.is_empty() {
        options
            .architectures
            .push(Architecture::own().context("--quick: no image is made for this machine's processor")?);
    }
    Ok(options)
}

enum Failed {
    /// What it would be built with cannot be had.
    Tools(String),
    Build(anyhow::Error),
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Build(error)
    }
}

/// Builds the programs; the folder that they are in.
fn build(architecture: Architecture, quick: bool) -> Result<String, Failed> {
    let cross = architecture.cross();
    let native = Architecture::own() == Some(architecture);
    if !native {
        cross.provide().map_err(Failed::Tools)?;
    }
    let triple = cross.triple();
    let cargo_in = |args: &[&str]| {
        let mut command = cargo(args);
        command.args(["--target", &triple]).env("CARGO_ENCODED_RUSTFLAGS", flags());
        for profile in ["RELEASE", "DEV"] {
            command.env(format!("CARGO_PROFILE_{profile}_STRIP"), "symbols");
        }
        if !native {
            let shout = triple.to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{shout}_LINKER"), cross.gcc());
            command.env(format!("CC_{}", triple.replace('-', "_")), cross.gcc());
        }
        command
    };
    println!("building for {}", architecture.name());
    let mut programs = cargo_in(&["build", "--bins", "--profile", if quick { "dev" } else { "release" }]);
    programs.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
    run(&mut programs, BUILD)?;
    // The plugin starts once per call: small, with a profile of its own.
    run(&mut cargo_in(&["build", "--bins", "-p", "nsm-cni", "--profile", if quick { "dev" } else { "dist" }]), BUILD)?;
    let built = target().join(&triple);
    let [programs, plugin] = if quick { ["debug", "debug"] } else { ["release", "dist"] };
    let dir = built.join("image");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    for (name, from) in PACKAGES.iter().map(|name| (*name, programs)).chain([("nsm-cni", plugin)]) {
        let from = built.join(from).join(name);
        fs::copy(&from, dir.join(name)).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(dir.to_string_lossy().into_owned())
}

/// Static, as the image has no libraries; and the same wherever the sources lie.
fn flags() -> String {
    let mut flags =
        ["-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,-z,pack-relative-relocs"].map(str::to_owned).to_vec();
    let cargo_home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    flags.extend(cargo_home.ok().map(|home| format!("--remap-path-prefix={home}=/cargo")));
    flags.push(format!("--remap-path-prefix={}=/nsm", root().display()));
    flags.join("\u{1f}")
}
