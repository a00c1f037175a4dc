//! A table of vectors: configuration and what plugins answer, against the calls that they get, the outcome of each step and what is
//! left. Sections are those of the CNI specification 1.1.0 (CNI), of the network plumbing group's 1.3 (NPWG), and of Multus's
//! configuration reference (Multus). Networks that are selected by annotation come as the agent passes them on.

use anyhow::{Context, ensure};
use nsm_lab::{Node, Outcome};
use serde_json::{Value, json};

use super::{Sandbox, calls, recorder, records, write};

/// One row.
struct Vector {
    /// Where the rule is written, and what it is.
    rule: &'static str,
    /// The configuration; `@NAME` is a plugin that is called so, `@/` the node's folder.
    keys: Value,
    /// Files below the node's folder.
    files: Value,
    /// What is called, and what comes of it: `ok`, or the code and a part of the text.
    steps: &'static [(&'static str, &'static str)],
    /// Command, interface and name of the plugin of each call.
    calls: &'static [&'static str],
    /// What a call got: which, where in it, and what.
    sees: Value,
}

const WHOLE: &[(&str, &str)] = &[("ADD", "ok"), ("CHECK", "ok"), ("DEL", "ok")];

fn vector(rule: &'static str, keys: Value) -> Vector {
    Vector { rule, keys, files: json!({}), steps: WHOLE, calls: &[], sees: json!([]) }
}

fn one(name: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [format!("@{name}")]})
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<Vector> {
    vec![
        Vector {
            calls: &["ADD eth0 a", "ADD eth0 b", "CHECK eth0 a", "CHECK eth0 b", "DEL eth0 b", "DEL eth0 a"],
            sees: json!([
                [0, "/conf/name", "n"],
                [1, "/conf/prevResult/interfaces/0/name", "eth0"],
                [0, "/conf/prevResult", null],
                [4, "/conf/prevResult/interfaces/0/name", "eth0"]
            ]),
            ..vector(
                "CNI 3, lifecycle: in order, with the previous result; DEL in reverse",
                json!({"delegates": [{"cniVersion": "1.0.0", "name": "n", "plugins": ["@a", "@b"]}]}),
            )
        },
        Vector {
            calls: &["ADD eth0 a", "ADD net1 b", "CHECK eth0 a", "CHECK net1 b", "DEL net1 b", "DEL eth0 a"],
            ..vector("NPWG 7.2: the default network first, DEL of all", json!({"delegates": [one("a"), one("b")]}))
        },
        Vector {
            steps: &[("ADD", "11 network \"bad\", interface net1"), ("DEL", "ok")],
            // Nothing is recorded by then: DEL ends what every pod gets.
            calls: &[
                "ADD eth0 a",
                "ADD net1 bad",
                "DEL net1 bad",
                "DEL eth0 a",
                "DEL net2 c",
                "DEL net1 bad",
                "DEL eth0 a",
            ],
            ..vector(
                "NPWG 7.2: one fails, the rest is not attempted, nothing is left",
                json!({"delegates": [one("a"),
                    {"cniVersion": "1.0.0", "name": "bad", "plugins": [{"@": "bad", "says": {"ADD": {"error": {"code": 11, "msg": "x"}}}}]},
                    one("c")]}),
            )
        },
        Vector {
            calls: &["ADD eth0 a", "ADD net1 b", "CHECK eth0 a", "CHECK net1 b", "DEL net1 b", "DEL eth0 a"],
            sees: json!([
                [0, "/conf/runtimeConfig/portMappings/0/hostPort", 8080],
                [1, "/conf/runtimeConfig", null],
                [5, "/conf/runtimeConfig/portMappings/0/hostPort", 8080]
            ]),
            ..vector(
                "NPWG 7.5: the runtime's runtimeConfig is the default network's alone, at DEL too",
                json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}, "portMappings": [{"hostPort": 8080}]},
                    "delegates": [
                        {"cniVersion": "1.0.0", "name": "a", "plugins": [{"@": "a", "capabilities": {"portMappings": true}}]},
                        {"cniVersion": "1.0.0", "name": "b", "plugins": [{"@": "b", "capabilities": {"portMappings": true}}]}]}),
            )
        },
        Vector {
            calls: &["ADD eth0 a", "CHECK eth0 a", "DEL eth0 a"],
            sees: json!([[0, "/conf/runtimeConfig", null]]),
            ..vector(
                "CNI, conventions: a capability that is not declared, or declared false, is not passed",
                json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}, "portMappings": [{"hostPort": 8080}]},
                    "delegates": [{"cniVersion": "1.0.0", "name": "a", "plugins": [{"@": "a", "capabilities": {"portMappings": false}}]}]}),
            )
        },
        Vector {
            steps: WHOLE,
            calls: &["ADD eth0 a", "DEL eth0 a"],
            ..vector(
                "CNI 1, disableCheck",
                json!({"delegates": [{"cniVersion": "1.0.0", "name": "n", "disableCheck": true, "plugins": ["@a"]}]}),
            )
        },
        Vector {
            calls: &["ADD eth0 a", "DEL eth0 a"],
            sees: json!([[0, "/conf/cniVersion", "0.3.1"], [1, "/conf/prevResult", null]]),
            ..vector(
                "CNI, versions: no CHECK and no previous result at DEL before 0.4.0",
                json!({"delegates": [{"cniVersion": "0.3.1", "name": "n", "plugins": ["@a"]}]}),
            )
        },
        Vector {
            calls: &["ADD eth0 a", "CHECK eth0 a", "DEL eth0 a"],
            sees: json!([[0, "/conf/cniVersion", "1.1.0"]]),
            ..vector(
                "CNI 1, cniVersions: the newest that is known",
                json!({"delegates": [{"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "9.0.0"], "name": "n", "plugins": ["@a"]}]}),
            )
        },
        Vector {
            files: json!({"net/10.conflist": {"cniVersion": "1.0.0", "name": "n", "plugins": ["@a"]}, "net/n/5.conf": "@b"}),
            calls: &["ADD eth0 a", "ADD eth0 b", "CHECK eth0 a", "CHECK eth0 b", "DEL eth0 b", "DEL eth0 a"],
            ..vector(
                "CNI 1, loadOnlyInlinedPlugins absent: plugins of the folder follow",
                json!({"clusterNetwork": "@/net/10.conflist"}),
            )
        },
        Vector {
            files: json!({"net/10.conflist": {"cniVersion": "1.0.0", "name": "n", "loadOnlyInlinedPlugins": true, "plugins": ["@a"]},
                "net/n/5.conf": "@b"}),
            calls: &["ADD eth0 a", "CHECK eth0 a", "DEL eth0 a"],
            ..vector("CNI 1, loadOnlyInlinedPlugins", json!({"clusterNetwork": "@/net/10.conflist"}))
        },
        Vector {
            files: json!({"net/00-self.conf": {"name": "m", "type": "multus", "clusterNetwork": "x"},
                "net/10.conf": {"@": "a", "cniVersion": "1.0.0", "name": "n"}}),
            calls: &["ADD eth0 a", "CHECK eth0 a", "DEL eth0 a"],
            ..vector("Multus, clusterNetwork: the first file of a directory", json!({"clusterNetwork": "@/net"}))
        },
        Vector {
            files: json!({"net/10.conf": {"@": "a", "cniVersion": "1.0.0", "name": "n"}}),
            calls: &["ADD eth0 b", "CHECK eth0 b", "DEL eth0 b"],
            ..vector(
                "Multus, clusterNetwork null is none: delegates",
                json!({"clusterNetwork": null, "delegates": [one("b")]}),
            )
        },
        Vector {
            files: json!({"net/10.conf": {"@": "a", "cniVersion": "1.0.0", "name": "n"}}),
            calls: &["ADD eth0 a", "CHECK eth0 a", "DEL eth0 a"],
            ..vector(
                "Multus, clusterNetwork wins over delegates",
                json!({"clusterNetwork": "@/net/10.conf", "delegates": [one("b")]}),
            )
        },
        Vector {
            files: json!({"x/10.conf": {"@": "x", "cniVersion": "1.0.0", "name": "x"}}),
            calls: &["ADD eth0 a", "ADD net1 x", "CHECK eth0 a", "CHECK net1 x", "DEL net1 x", "DEL eth0 a"],
            ..vector("Multus, defaultNetworks", json!({"delegates": [one("a")], "defaultNetworks": ["@/x/10.conf"]}))
        },
        Vector {
            files: json!({"x/10.conf": {"@": "x", "cniVersion": "1.0.0", "name": "x"}}),
            calls: &["ADD eth0 a", "CHECK eth0 a", "DEL eth0 a"],
            ..vector(
                "Multus, systemNamespaces: without defaultNetworks",
                json!({"delegates": [one("a")], "defaultNetworks": ["@/x/10.conf"], "systemNamespaces": ["team"]}),
            )
        },
        Vector {
            steps: &[("ADD", "11 readinessindicatorfile"), ("DEL", "ok")],
            calls: &["DEL eth0 a"],
            ..vector(
                "Multus, readinessindicatorfile",
                json!({"delegates": [one("a")], "readinessindicatorfile": "@/none"}),
            )
        },
        Vector {
            steps: &[("ADD", "ok"), ("DEL", "5 busy"), ("DEL", "5 busy")],
            calls: &["ADD eth0 a", "ADD net1 b", "DEL net1 b", "DEL eth0 a", "DEL net1 b"],
            ..vector(
                "Multus, retryDeleteOnError, always: what failed is repeated, the rest is not",
                json!({"delegates": [one("a"),
                    {"cniVersion": "1.0.0", "name": "b", "plugins": [{"@": "b", "says": {"DEL": {"error": {"code": 5, "msg": "busy"}}}}]}]}),
            )
        },
        Vector {
            steps: &[("ADD", "ok"), ("ADD", "102 nothing was changed"), ("DEL", "ok")],
            calls: &["ADD eth0 a", "DEL eth0 a"],
            ..vector("CNI 4, ADD: not twice", json!({"delegates": [one("a")]}))
        },
        Vector {
            steps: &[("ADD", "7 plugins []")],
            ..vector("CNI 1, plugins: at least one", json!({"delegates": [{"name": "n", "plugins": []}]}))
        },
        Vector {
            steps: &[("ADD", "7 meta-plugin")],
            ..vector("NPWG 7.4: no meta-plugin below another", json!({"delegates": [{"name": "n", "type": "multus"}]}))
        },
        Vector {
            steps: &[("ADD", "7 in none of")],
            ..vector(
                "CNI 3: a plugin that is not installed, before others run",
                json!({"delegates": [one("a"), {"name": "n", "type": "lost"}]}),
            )
        },
    ]
}

/// Puts plugins and paths in place of their names.
fn filled(node: &Node, value: &Value) -> Value {
    let plugin = |name: &str| {
        let mut plugin = recorder(node);
        plugin["is"] = name.into();
        plugin
    };
    match value {
        Value::String(text) => match text.strip_prefix('@') {
            Some(path) if path.starts_with('/') => format!("{}{path}", node.dir().display()).into(),
            Some(name) => plugin(name),
            None => value.clone(),
        },
        Value::Array(values) => values.iter().map(|value| filled(node, value)).collect(),
        Value::Object(keys) => {
            let mut all = keys.get("@").and_then(Value::as_str).map_or_else(|| json!({}), plugin);
            for (key, value) in keys.iter().filter(|(key, _)| *key != "@") {
                all[key] = filled(node, value);
            }
            all
        }
        other => other.clone(),
    }
}

fn holds(vector: &Vector) -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    for (name, content) in vector.files.as_object().into_iter().flatten() {
        write(&node.dir().join(name), &filled(&node, content))?;
    }
    let sandbox = Sandbox::of(&node, &pod, &filled(&node, &vector.keys))?;
    let mut added = Value::Null;
    for (command, expected) in vector.steps {
        let outcome: Outcome = match *command {
            "ADD" => sandbox.add()?,
            "CHECK" => sandbox.check(&added)?,
            _ => sandbox.del()?,
        };
        match expected.split_once(' ') {
            None => {
                let outcome = outcome.ok().with_context(|| (*command).to_owned())?;
                added = if *command == "ADD" { outcome.json } else { added };
            }
            Some((code, text)) => {
                let told = outcome.refused(code.parse()?).with_context(|| (*command).to_owned())?;
                ensure!(told.contains(text), "{command}: {told}");
            }
        }
    }
    let calls = calls(&node)?;
    let part = |call: &Value, key: &str| call.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let heard: Vec<String> =
        calls.iter().map(|call| ["/command", "/ifname", "/conf/is"].map(|key| part(call, key)).join(" ")).collect();
    ensure!(heard == vector.calls, "{heard:?}");
    for seen in vector.sees.as_array().into_iter().flatten() {
        let place = seen[0].as_u64().and_then(|place| usize::try_from(place).ok()).context("place")?;
        let found = calls[place].pointer(seen[1].as_str().unwrap_or_default()).unwrap_or(&Value::Null);
        ensure!(*found == seen[2], "call {place}, {}: {found}", seen[1]);
    }
    let failed = vector.steps.last().is_some_and(|(command, expected)| *command == "DEL" && *expected != "ok");
    ensure!(records(&node).is_empty() != failed, "left: {:?}", records(&node));
    Ok(())
}

/// Every row holds; all that do not are shown.
pub(crate) fn rule_by_rule() -> anyhow::Result<()> {
    let wrong: Vec<String> = table()
        .iter()
        .filter_map(|vector| holds(vector).err().map(|error| format!("{}: {error:#}", vector.rule)))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
