//! Networks that are files of the host: by the name in them, by directory, by path; with the plugins that lie in a folder of the
//! network's name beside a list.
//!
//! Guarantee: the meta-plugin's own configuration, which as a rule lies in the same directory, is never taken for a network.

use std::path::{Path, PathBuf};

use nsm_cni_types::{Error, code};
use nsm_npwg::{List, Meta};
use serde_json::{Map, Value, json};

/// Finds the network that a configuration or a definition names: `text` with a `/` is the path of a file, or of a directory
/// whose first file it is; else it is the name in one of the files of `confDir`.
pub(crate) fn find(meta: &Meta, text: &str) -> Result<List, Error> {
    let path = Path::new(text);
    if !text.contains('/') {
        return named(meta, text);
    }
    if !path.is_dir() {
        let keys = read(path).map_err(|why| missing(text, format!("{}: {why}", path.display())))?;
        return list(meta, text, path, keys);
    }
    let (found, broken) = configurations(path).map_err(|why| missing(text, why))?;
    let none = || missing(text, format!("{} has no configuration of a network{}", path.display(), told(&broken)));
    // A runtime would not start before its first file can be read either.
    let (file, keys) = found.into_iter().next().ok_or_else(none)?;
    list(meta, text, &file, keys)
}

/// The plugins in the folder of a network beside its file, as libcni adds them.
pub(crate) fn beside(dir: &Path, name: &str) -> Result<Vec<Value>, Error> {
    let folder = dir.join(name);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let wrong = |why: String| missing(name, why);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map_err(|error| wrong(format!("{}: {error}", folder.display())))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .collect();
    files.sort();
    let plugins = files.iter().map(|file| read(file).map_err(|why| wrong(format!("{}: {why}", file.display()))));
    plugins.map(|plugin| plugin.map(Value::Object)).collect()
}

fn named(meta: &Meta, name: &str) -> Result<List, Error> {
    let dir = &meta.conf_dir;
    let wanted = |keys: &Map<String, Value>| keys.get("name").and_then(Value::as_str) == Some(name);
    let (found, broken) = configurations(dir).unwrap_or_else(|why| (Vec::new(), vec![why]));
    let Some((file, keys)) = found.into_iter().find(|(_, keys)| wanted(keys)) else {
        let why = format!("no file in {} has \"name\": {name:?}{}", dir.display(), told(&broken));
        return Err(missing(name, format!("{why}; expected one, or a NetworkAttachmentDefinition of that name")));
    };
    list(meta, name, &file, keys)
}

type Named = (PathBuf, Map<String, Value>);

/// The networks of a directory in a runtime's order, and what cannot be read.
fn configurations(dir: &Path) -> Result<(Vec<Named>, Vec<String>), String> {
    let files = nsm_cni_dir::configurations(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        let keys = file.content.and_then(|text| object(&text));
        match keys {
            Ok(keys) if Meta::is(&keys) || is_list_of_ours(&keys) => {}
            Ok(keys) => found.push((dir.join(&file.name), keys)),
            Err(why) => broken.push(format!("{}: {why}", file.name)),
        }
    }
    Ok((found, broken))
}

/// Whether a list runs a meta-plugin.
fn is_list_of_ours(keys: &Map<String, Value>) -> bool {
    let plugins = keys.get("plugins").and_then(Value::as_array).into_iter().flatten();
    plugins.filter_map(Value::as_object).any(Meta::is)
}

fn list(meta: &Meta, network: &str, file: &Path, mut keys: Map<String, Value>) -> Result<List, Error> {
    let inlined = nsm_npwg::flag(&keys, "loadOnlyInlinedPlugins")
        .map_err(|why| missing(network, format!("{}: {why}", file.display())))?;
    let name = keys.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_list = file.extension().is_some_and(|end| end == "conflist");
    if let (true, false, Some(dir)) = (is_list && !name.is_empty() && !name.contains('/'), inlined, file.parent()) {
        let more = beside(dir, &name)?;
        if !more.is_empty() {
            match keys.entry("plugins").or_insert_with(|| json!([])) {
                Value::Array(plugins) => plugins.extend(more),
                other => return Err(missing(network, format!("plugins {other}: expected a list"))),
            }
        }
    }
    let text = Value::Object(keys).to_string();
    List::of_host(network, &meta.name, &text).map_err(|error| Error::new(code::INVALID_CONFIG, error.to_string()))
}

fn read(path: &Path) -> Result<Map<String, Value>, String> {
    nsm_cni_dir::read(path).map_err(|error| error.to_string()).and_then(|text| object(&text))
}

fn object(text: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(text).map_err(|error| format!("expected a JSON object: {error}"))
}

fn told(broken: &[String]) -> String {
    if broken.is_empty() { String::new() } else { format!(" (cannot be read: {})", broken.join("; ")) }
}

fn missing(network: &str, why: impl std::fmt::Display) -> Error {
    Error::new(code::INVALID_CONFIG, format!("network {network:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nsm_cni_types::{Command, Stdin};

    use super::*;

    fn meta(conf_dir: &Path) -> Meta {
        let json =
            json!({"cniVersion": "1.0.0", "name": "m", "type": "multus", "clusterNetwork": "x", "confDir": conf_dir});
        Meta::parse(&Stdin::parse(json.to_string().as_bytes(), &Command::Add).unwrap()).unwrap()
    }

    #[test]
    fn by_name_by_directory_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, json: Value| fs::write(dir.path().join(name), json.to_string()).unwrap();
        put("00-multus.conf", json!({"name": "m", "type": "multus", "clusterNetwork": "x"}));
        put("05-list.conflist", json!({"name": "m2", "plugins": [{"type": "nsm-cni", "delegates": []}]}));
        put("10-a.conflist", json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "ptp"}]}));
        put("20-b.conf", json!({"cniVersion": "1.0.0", "name": "b", "type": "bridge"}));
        fs::write(dir.path().join("30-broken.conf"), "{").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/20-y.conf"), r#"{"type":"y"}"#).unwrap();
        fs::write(dir.path().join("a/10-x.conf"), r#"{"type":"x"}"#).unwrap();
        fs::write(dir.path().join("a/notes"), "").unwrap();
        let meta = meta(dir.path());
        let kinds = |text: &str| {
            let list = find(&meta, text).unwrap();
            (list.name().to_owned(), list.plugins().iter().map(|plugin| plugin["type"].clone()).collect::<Vec<_>>())
        };
        let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let a = ("a".to_owned(), vec![json!("ptp"), json!("x"), json!("y")]);
        assert_eq!(kinds(&text("")), a);
        assert_eq!(kinds(&text("10-a.conflist")), a);
        assert_eq!(kinds("a"), a);
        assert_eq!(kinds("b"), ("b".to_owned(), vec![json!("bridge")]));
        let told = |text: &str| find(&meta, text).unwrap_err().msg;
        assert!(told("c").contains("30-broken.conf"), "{}", told("c"));
        assert!(told(&text("00-multus.conf")).contains("meta-plugin"), "{}", told(&text("00-multus.conf")));
        assert!(told("/nowhere/x").contains("/nowhere/x"));

        put("10-a.conflist", json!({"name": "a", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "ptp"}]}));
        assert_eq!(kinds("a").1, [json!("ptp")]);
        put("10-a.conflist", json!({"name": "a", "loadOnlyInlinedPlugins": "true", "plugins": [{"type": "ptp"}]}));
        assert_eq!(kinds("a").1, [json!("ptp")]);
        put("10-a.conflist", json!({"name": "a", "loadOnlyInlinedPlugins": "no", "plugins": [{"type": "ptp"}]}));
        assert!(told("a").contains("10-a.conflist: loadOnlyInlinedPlugins \"no\": expected true or false"));
    }
}
