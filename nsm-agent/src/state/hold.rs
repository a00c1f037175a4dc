//! One agent at a time works with a run directory.

use std::{fs::File, io, path::Path};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::Error;

/// The run directory is this process's until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "held until it is dropped")] Flock<File>);

impl Hold {
    /// Takes the directory, which is made if it is not there. Blocking, but for nobody.
    ///
    /// # Errors
    /// [`Error::Held`] when another process has it.
    pub fn take(run_dir: &Path) -> Result<Self, Error> {
        let path = run_dir.join("lock");
        let failed = |source: io::Error| Error::Io { action: "open", path: path.clone(), source };
        std::fs::create_dir_all(run_dir).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::Held { path: run_dir.to_owned() }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let held = Hold::take(&run_dir).unwrap();
        let refused = Hold::take(&run_dir).unwrap_err().to_string();
        assert!(refused.contains(&run_dir.display().to_string()) && refused.contains("--run-dir"), "{refused}");
        drop(held);
        Hold::take(&run_dir).unwrap();
    }
}
