//! Privileges, sockets and directories.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use nsm_proto::admin::{Finding, finding::Level};

use super::{bad, finding, good};

/// Root sees everything; others see half.
pub(super) fn privileges() -> Finding {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return good("privileges", "root");
    }
    finding(
        Level::Warning,
        "privileges",
        &format!("user {user}: some checks are not possible"),
        "run nsmctl check as root",
    )
}

/// The CNI plugin's socket: root's only, or anybody could attach to any pod.
pub(super) fn private_socket(path: &Path) -> Finding {
    let found = socket("cni socket", path);
    if found.level() != Level::Ok {
        return found;
    }
    match fs::metadata(path) {
        Ok(file) if file.permissions().mode() & 0o077 != 0 => bad(
            "cni socket",
            &format!(
                "{} has mode {:o}: others than its owner can use it",
                path.display(),
                file.permissions().mode() & 0o777
            ),
            &format!("chmod 600 {}", path.display()),
        ),
        Ok(file) if file.uid() != 0 && nix::unistd::geteuid().is_root() => finding(
            Level::Warning,
            "cni socket",
            &format!("{} belongs to user {}", path.display(), file.uid()),
            "run nsm-agent as root, or in a user namespace of its own",
        ),
        Ok(_) | Err(_) => found,
    }
}

/// A socket that somebody should listen on.
pub(super) fn socket(subject: &str, path: &Path) -> Finding {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(file) if file.file_type().is_socket() => good(subject, &shown.to_string()),
        Ok(_) => bad(subject, &format!("{shown} is no socket"), &format!("remove {shown} and restart nsm-agent")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bad(subject, &format!("{shown} does not exist"), "start nsm-agent: it makes the socket")
        }
        Err(error) => bad(subject, &format!("{shown}: {error}"), "run nsmctl check as root"),
    }
}

/// A directory that the agent must be able to write, with room on its disk.
pub(super) fn directory(subject: &str, path: &Path) -> Finding {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(file) if !file.is_dir() => bad(subject, &format!("{shown} is no directory"), &format!("remove {shown}")),
        Ok(file) if file.permissions().mode() & 0o022 != 0 => bad(
            subject,
            &format!(
                "{shown} has mode {:o}: others can change what the agent believes",
                file.permissions().mode() & 0o7777
            ),
            &format!("chmod 700 {shown}"),
        ),
        Ok(_) if nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_err() => bad(
            subject,
            &format!("{shown} cannot be written"),
            "run as root, and see that its file system is not read-only",
        ),
        Ok(_) => good(subject, &shown.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => finding(
            Level::Warning,
            subject,
            &format!("{shown} does not exist"),
            "start nsm-agent: it makes the directory",
        ),
        Err(error) => bad(subject, &format!("{shown}: {error}"), "run nsmctl check as root"),
    }
}
