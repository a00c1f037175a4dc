//! A CNI plugin for tests: it writes down how it was called and answers what its configuration says.
//!
//! | key | value |
//! |---|---|
//! | `log` | file that gets a line of JSON for each call: command, container, netns, ifname, args, conf, pid |
//! | `says` | by command: `{"error": {"code", "msg"}}`, `{"hang": true}`, `{"after": FILE}` (once that is there, as without a word), or the result of ADD |
//!
//! Without a word for ADD it answers `prevResult`, else an interface that it does not make.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            println!("{}", json!({"code": 999, "msg": format!("{error:#}")}));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let command = variable("CNI_COMMAND");
    if command == "VERSION" {
        println!("{}", json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let conf: Value = serde_json::from_str(&text)?;
    if let Some(log) = conf["log"].as_str() {
        let call = json!({
            "command": command, "container": variable("CNI_CONTAINERID"), "netns": variable("CNI_NETNS"),
            "ifname": variable("CNI_IFNAME"), "args": variable("CNI_ARGS"), "conf": conf,
            "pid": std::process::id(),
        });
        // One write: several of these may run at once.
        OpenOptions::new().create(true).append(true).open(log)?.write_all(format!("{call}\n").as_bytes())?;
    }
    let says = &conf["says"][&command];
    if let Some(error) = says.get("error") {
        println!("{error}");
        return Ok(ExitCode::FAILURE);
    }
    if says["hang"] == true {
        loop {
            std::thread::park();
        }
    }
    let after = says["after"].as_str().map(Path::new);
    while after.is_some_and(|file| !file.exists()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    if command == "ADD" {
        let made = json!({
            "cniVersion": conf["cniVersion"],
            "interfaces": [{"name": variable("CNI_IFNAME"), "mac": "02:00:00:00:00:77", "sandbox": variable("CNI_NETNS")}],
        });
        let before = conf.get("prevResult").cloned();
        println!("{}", if says.is_object() && after.is_none() { says.clone() } else { before.unwrap_or(made) });
    }
    Ok(ExitCode::SUCCESS)
}
