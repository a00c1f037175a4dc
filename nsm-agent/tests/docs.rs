//! The documents say what the programs do: names, defaults, keys, codes and examples are compared with the code, both ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::CommandFactory;
use nsm_agent::{
    config::Settings,
    metrics::{Metrics, Now, Operation, Part, ServiceCall},
};
use nsm_cni_types::{Args, Command, Conf, Error, Stdin};

#[path = "docs/commands.rs"]
mod commands;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of the tables of one section, less heading and rule, without back-ticks.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section =
        document.split("\n#").find(|section| section.trim_start_matches('#').trim_start().starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading:?}"));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cells = line.trim_end_matches('|').split(" | ");
        rows.push(cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect());
    }
    rows.split_off(1.min(rows.len()))
}

fn first(rows: &[Vec<String>]) -> BTreeSet<String> {
    rows.iter().map(|row| row[0].clone()).collect()
}

/// What stands between two marks, wherever it does.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

/// The code blocks of a language.
fn blocks<'a>(document: &'a str, language: &'a str) -> Vec<&'a str> {
    document.split("\n```").filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// Names such as `NSM_NAME` in a text.
fn variables(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_uppercase() || c == '_';
    text.split(|c| !part(c)).filter(|word| word.starts_with("NSM_") && word.len() > 4).map(str::to_owned).collect()
}

#[test]
fn agent_settings() {
    let documented: BTreeMap<String, Vec<String>> =
        rows(&read("docs/agent.md"), "Settings").into_iter().map(|row| (row[0].clone(), row)).collect();
    let command = Settings::command();
    let arguments = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let mut known = BTreeSet::new();
    for arg in arguments {
        let Some(flag) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        let flag = format!("--{flag}");
        let row = documented.get(&flag).unwrap_or_else(|| panic!("{flag} is not in docs/agent.md"));
        assert_eq!(Some(row[1].as_str()), arg.get_env().and_then(|env| env.to_str()), "{flag}");
        if let [default] = arg.get_default_values() {
            assert_eq!(row[2].as_str(), default.to_str().unwrap(), "{flag}");
        }
        known.insert(flag);
    }
    assert_eq!(documented.into_keys().collect::<BTreeSet<_>>(), known);
}

#[test]
fn agent_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, blocks(&read("docs/agent.md"), "yaml")[0]).unwrap();
    let settings = Settings::read(["nsm-agent".as_ref(), "--config".as_ref(), file.path().as_os_str()]).unwrap();
    assert_eq!(settings.nsm_socket_mode, 0o666);
    assert_eq!(settings.max_token_lifetime_seconds, 300);
}

#[test]
fn agent_metrics() {
    let metrics = Metrics::new();
    // A family shows once it has a member.
    metrics.cni(Operation::Add, true, Duration::ZERO);
    metrics.call(ServiceCall::Request, true, Duration::ZERO);
    metrics.installed(Part::Plugin, true);
    let text = metrics.text(Now::default()).unwrap();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let kinds: BTreeSet<(String, String)> = kinds
        .map(|(name, kind)| (format!("{name}{}", if kind == "counter" { "_total" } else { "" }), kind.to_owned()))
        .collect();
    let rows = rows(&read("docs/agent.md"), "Metrics and health");
    let documented = rows.into_iter().filter(|row| row[0].starts_with("nsm_"));
    assert_eq!(documented.map(|row| (row[0].clone(), row[1].clone())).collect::<BTreeSet<_>>(), kinds);
}

fn conf(json: &str) -> Result<Conf, Error> {
    Conf::parse(&Stdin::parse(json.as_bytes(), &Command::Add)?, &Args::default())
}

#[test]
fn cni_keys() {
    let why = conf(r#"{"cniVersion": "1.1.0", "name": "n", "networkService": "s", "nonsense": 1}"#).unwrap_err();
    let known = why.msg.split_once("expected ").unwrap().1.split(", ").map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = rows(&read("docs/cni.md"), "Keys");
    assert_eq!(first(&rows), known);
    let quoted = |row: &&Vec<String>| row[2].parse::<u32>().is_err() && row[2] != "false" && row[2] != "{}";
    let has_default = |row: &&Vec<String>| !["networkService", "mtu", "interface"].contains(&row[0].as_str());
    for row in rows.iter().filter(has_default) {
        let default = if quoted(&row) { format!("{:?}", row[2]) } else { row[2].clone() };
        let plain = match row[0].as_str() {
            "allowDns" => r#"{"cniVersion": "1.1.0", "name": "n""#,
            _ => r#"{"cniVersion": "1.1.0", "name": "n", "networkService": "s""#,
        };
        let said = conf(&format!("{plain}, {:?}: {default}}}", row[0]));
        assert_eq!(said, conf(&format!("{plain}}}")), "{}", row[0]);
    }
}

#[test]
fn cni_error_codes() {
    let source = read("crates/nsm-cni-types/src/error.rs");
    let codes = between(&source, ": u32 = ", ";").map(str::to_owned).collect::<BTreeSet<_>>();
    assert!(codes.len() > 10, "{codes:?}");
    assert_eq!(first(&rows(&read("docs/cni.md"), "Error codes")), codes);
}

#[test]
fn configurations() {
    let mut seen = 0;
    for file in fs::read_dir(root().join("deploy")).unwrap() {
        let path = file.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("conf") => drop(conf(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))),
            Some("conflist") => {
                let list: serde_json::Value = serde_json::from_str(&text).unwrap();
                for plugin in list["plugins"].as_array().unwrap().iter().filter(|plugin| plugin["type"] == "nsm-cni") {
                    let mut plugin = plugin.clone();
                    plugin["name"] = list["name"].clone();
                    plugin["cniVersion"] = list["cniVersion"].clone();
                    conf(&plugin.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                }
            }
            _ => continue,
        }
        seen += 1;
    }
    assert!(seen >= 2);
    let readme = read("README.md");
    assert_eq!(blocks(&readme, "json"), [read("deploy/10-icmp.conf").trim_end()]);
}

#[test]
fn examples_of_the_sdk_are_those_that_its_tests_run() {
    let readme = read("README.md");
    let examples = ["client", "endpoint"].map(|name| read(&format!("crates/nsm-sdk/examples/{name}.rs")));
    assert_eq!(blocks(&readme, "rust"), examples.each_ref().map(|example| example.trim_end()));
}

#[test]
fn environment_of_the_examples() {
    for name in ["icmp-responder", "nsc"] {
        let source = read(&format!("examples/{name}/src/settings.rs")) + &read("examples/program/src/settings.rs");
        let in_code: BTreeSet<String> = between(&source, "env = \"", "\"").map(str::to_owned).collect();
        let rows = rows(&read("docs/examples.md"), name);
        assert_eq!(first(&rows), in_code, "{name}");
        for row in rows {
            let field = row[1].trim_start_matches("--").replace('-', "_");
            assert!(source.contains(&format!(" {field}: Option<String>")), "{name} has no {}", row[1]);
        }
    }
}

#[test]
fn verbs_of_xtask_and_nsmctl() {
    let (xtask, nsmctl) = (read("xtask/src/main.rs"), read("nsmctl/src/cli.rs"));
    let documents = [
        "README.md",
        "CONTRIBUTING.md",
        "docs/nsmctl.md",
        "docs/troubleshooting.md",
        "docs/agent.md",
        "docs/install.md",
    ];
    let word = |text: &str| text.chars().take_while(char::is_ascii_lowercase).collect::<String>();
    let mut seen = BTreeSet::new();
    for text in documents.map(read) {
        for verb in text.split("cargo xtask ").skip(1).map(word) {
            assert!(xtask.contains(&format!("\"{verb}\" => ")), "cargo xtask {verb}");
        }
        for verb in text.split("nsmctl ").skip(1).map(word).filter(|verb| !verb.is_empty()) {
            let variant = format!("{}{}", verb[..1].to_uppercase(), &verb[1..]);
            if nsmctl.contains(&format!("    {variant}({variant}),")) {
                seen.insert(verb);
            } else {
                assert!(["shows", "takes"].contains(&verb.as_str()), "nsmctl {verb}");
            }
        }
    }
    assert_eq!(seen.len(), nsmctl.lines().filter(|line| line.starts_with("    ") && line.ends_with("),")).count());
}

/// What a finding of `nsmctl check` can be about, by what makes findings.
fn subjects() -> BTreeSet<String> {
    let quoted = |text: &str| text.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned);
    let mut subjects = BTreeSet::new();
    for path in [
        "nsmctl/src/check.rs",
        "nsmctl/src/check/cni.rs",
        "nsmctl/src/check/kernel.rs",
        "nsmctl/src/check/moving.rs",
        "nsmctl/src/check/moving/cluster.rs",
        "nsmctl/src/check/paths.rs",
        "nsmctl/src/check/versions.rs",
        "nsm-agent/src/install/conf.rs",
        "nsm-agent/src/install/plugin.rs",
        "nsm-agent/src/node.rs",
        "nsm-agent/src/privileges.rs",
        "nsm-agent/src/selftest.rs",
    ] {
        let source = read(path);
        let source = source.split("#[cfg(test)]").next().unwrap();
        for make in ["good(", "bad(", "socket(", "directory(", "skew(", "finding(", "subject: "] {
            subjects.extend(source.split(make).skip(1).filter_map(quoted));
        }
        for (name, text) in source.split("const ").skip(1).filter_map(|rest| rest.split_once(": &str = ")) {
            if [
                "SUBJECT",
                "CONFIGURATION",
                "DAEMON",
                "DEFINITIONS",
                "PODS",
                "RECORDS",
                "SOCKETS",
                "NAMESPACE",
                "PROCESS",
            ]
            .contains(&name)
            {
                subjects.extend(quoted(text));
            }
        }
    }
    subjects
}

#[test]
fn subjects_of_check() {
    let subjects = subjects();
    assert!(subjects.len() > 20, "{subjects:?}");
    assert_eq!(first(&rows(&read("docs/nsmctl.md"), "Check")), subjects);
}

#[test]
fn flags_of_check_and_uninstall() {
    let (document, source) = (read("docs/nsmctl.md"), read("nsmctl/src/cli.rs"));
    for (heading, name) in [("Flags of check", "Check"), ("Uninstall", "Uninstall")] {
        let fields = |name: &str| between(&source, &format!("struct {name} {{"), "\n}").next().unwrap().to_owned();
        let own = fields(name);
        assert!(own.contains("paths: Paths"), "{name}");
        let fields = own + &fields("Paths");
        let mut known = BTreeSet::new();
        for field in fields.split("    /// ").skip(1) {
            let value = |key: &str| between(field, key, "\"").next().unwrap_or("none").to_owned();
            let flag = between(field, "pub(crate) ", ":").next().unwrap().replace('_', "-");
            let default =
                if field.contains("Format::Table") { "table".to_owned() } else { value("default_value = \"") };
            known.insert((format!("--{flag}"), value("env = \""), default));
        }
        let rows = rows(&document, heading).into_iter();
        let documented: BTreeSet<_> = rows.map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
        assert_eq!(documented, known, "{heading}");
    }
}

#[test]
fn variables_exist() {
    let mut known = BTreeSet::new();
    for source in [
        "nsm-agent/src/config.rs",
        "nsm-agent/src/failpoint.rs",
        "nsmctl/src/cli.rs",
        "examples/icmp-responder/src/settings.rs",
        "examples/nsc/src/settings.rs",
        "examples/program/src/settings.rs",
        "conformance/kube/src/bin/nsm-kube-bench/chain.rs",
        "conformance/kube/src/bin/nsm-kube-bench/ready.rs",
        "conformance/kube/src/bin/nsm-kube-bench/running.rs",
    ] {
        known.extend(variables(&read(source)));
    }
    let documents = [
        "README.md",
        "CONTRIBUTING.md",
        "docs/cni.md",
        "docs/nsmctl.md",
        "docs/troubleshooting.md",
        "deploy/nsm-agent.service",
    ];
    for document in documents {
        let unknown: Vec<String> = variables(&read(document)).difference(&known).cloned().collect();
        // The last ones are the tests' own.
        let is_else =
            |name: &String| name == "NSM_NAME" || name.starts_with("NSM_LAB_") || name.starts_with("NSM_BENCH_");
        assert!(unknown.iter().all(is_else), "{document}: {unknown:?}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut documents: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|file| file.unwrap().path()).collect();
    documents.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in between(&text, "](", ")").filter(|link| !link.starts_with("http")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", document.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap().to_lowercase();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| line.trim_start_matches('#').trim().replace(' ', "-"));
                assert!(anchors.any(|known| known == anchor), "{}: {link}", document.display());
            }
        }
    }
}

#[test]
fn events_on_pods() {
    let documented = first(&rows(&read("docs/kubernetes.md"), "Events"));
    let known: BTreeSet<String> = nsm_agent::pods::Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(documented, known);
}
