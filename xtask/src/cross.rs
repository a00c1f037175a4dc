//! What builds static programs for another processor than this machine's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::place::root;
use crate::run::run;
use crate::tools::{answers, install_debian_package};

const INSTALL: Duration = Duration::from_mins(30);

/// Another processor, with glibc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cross {
    /// As Rust and GNU call it.
    pub(crate) processor: &'static str,
    /// The C compiler and linker, with a static C library, in Debian. Elsewhere they have names that say a version, or no library.
    pub(crate) package: &'static str,
}

impl Cross {
    pub(crate) fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.processor)
    }

    pub(crate) fn gcc(self) -> String {
        format!("{}-linux-gnu-gcc", self.processor)
    }

    /// Sees to it that both compilers are there; otherwise why not.
    pub(crate) fn provide(self) -> Result<(), String> {
        if !self.has_rust() {
            let install = format!("rustup target add {}", self.triple());
            println!("Rust for {} is missing. Installing it: {install}", self.processor);
            let mut rustup = Command::new("rustup");
            run(rustup.args(["target", "add", &self.triple()]).current_dir(root()), INSTALL)
                .map_err(|error| format!("{install}: {error:#}"))?;
        }
        if !answers(&self.gcc(), &["--version"]) {
            println!("{} is missing. Installing it: apt-get install -y {}", self.gcc(), self.package);
            install_debian_package(self.package)
                .map_err(|error| format!("no {}; Debian's package {} has it: {error:#}", self.gcc(), self.package))?;
        }
        Ok(())
    }

    /// Whether the compiler in use has the standard library for it: any compiler, not only rustup's.
    fn has_rust(self) -> bool {
        let print = ["--print", "target-libdir", "--target", &self.triple()];
        let asked = Command::new("rustc").args(print).current_dir(root()).output();
        asked.is_ok_and(|asked| Path::new(String::from_utf8_lossy(&asked.stdout).trim()).is_dir())
    }
}
