//! What names the plugin: configurations, and the calls that a runtime has yet to end with what it began with.

use std::{fs, io, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use nsm_cni_types::chained::{self, File};
use serde_json::Value;

use crate::{cli, error::Error};

/// What a runtime sees in its configuration directory; nothing, if there is none.
pub(crate) fn configurations(dir: &Path) -> Result<Vec<File>, Error> {
    match nsm_cni_dir::configurations(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| Error::Read { path: dir.to_owned(), error }),
    }
}

/// Why the plugin has to stay, with ours gone.
pub(super) fn of_plugin(others: &[File], args: &cli::Uninstall) -> Option<String> {
    if let Some(file) = others.iter().find(|file| chained::mentions_us(file)) {
        return Some(format!("{} runs it", args.paths.cni_conf_dir.join(&file.name).display()));
    }
    let pods = if args.remove_plugin { 0 } else { cached(&args.cni_cache) };
    (pods > 0).then(|| {
        format!(
            "{pods} containers were started with it, and CRI-O ends them with the configuration that they were started with; again when \
             they are gone, or --remove-plugin: containerd ends them with the one that is there then"
        )
    })
}

/// How many calls libcni remembers whose configuration has the plugin.
fn cached(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir.join("results")) else { return 0 };
    let names_us = |path: &Path| -> Option<bool> {
        let entry: Value = serde_json::from_slice(&nsm_cni_dir::read(path).ok()?).ok()?;
        let content = STANDARD.decode(entry["config"].as_str()?).map_err(|error| error.to_string());
        Some(chained::mentions_us(&File { name: String::new(), content }))
    };
    entries.filter_map(Result::ok).filter(|entry| names_us(&entry.path()) == Some(true)).count()
}
