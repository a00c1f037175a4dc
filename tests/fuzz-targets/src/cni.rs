//! What a runtime gives the CNI plugin: environment, standard input, and in it the result of a plugin before.

use nsm_cni_types::{Answer, Args, Command, Conf, Environment, Error, Lenient, Mode, Stdin, Version};
use serde_json::{Value, json};

const COMMANDS: [Command; 5] = [Command::Add, Command::Check, Command::Del, Command::Gc, Command::Status];

/// Standard input of every operation. What ADD takes it takes in each `cniVersion`, and understands the same.
pub fn cni_call(data: &[u8]) {
    for command in COMMANDS {
        let stdin = match Stdin::parse(data, &command) {
            Ok(stdin) => stdin,
            Err(error) => return sound(&error),
        };
        let lenient = Lenient::parse(&stdin);
        assert!(lenient.socket.is_absolute() && (1..=120).contains(&lenient.timeout.as_secs()), "{lenient:?}");
        if let Err(error) = Lenient::valid_attachments(&stdin) {
            sound(&error);
        }
        match Conf::parse(&stdin, &Args::default()) {
            Ok(conf) => in_every_version(&stdin, &conf),
            Err(error) => sound(&error),
        }
    }
}

fn in_every_version(stdin: &Stdin, conf: &Conf) {
    assert!(conf.socket.is_absolute() && conf.agent_wait.as_secs() <= 60);
    match &conf.mode {
        Mode::Attach(attach) => {
            assert!((1..=253).contains(&attach.network_service.len()));
            assert!(attach.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
        }
        Mode::Pod(pod) => {
            let given = pod.annotations.iter().flat_map(|own| [&own.services, &own.services_2019]).flatten();
            assert!(given.into_iter().all(|text| !text.trim().is_empty()));
        }
    }
    for version in Version::ALL {
        let mut keys = stdin.keys.clone();
        keys.insert("cniVersion".into(), version.as_str().into());
        let before = conf.prev_result.clone().map(|result| result.convert(version));
        match before.as_ref().map(Answer::to_json) {
            None => {}
            Some(Ok(result)) => drop(keys.insert("prevResult".into(), result)),
            // The oldest versions cannot say every result.
            Some(Err(error)) => {
                assert!(version <= Version::V0_2_0, "{error}");
                continue;
            }
        }
        let again = Stdin { version, keys, name: stdin.name.clone() };
        let read = Conf::parse(&again, &Args::default()).expect("it is taken in each version");
        assert_eq!(
            Conf { prev_result: None, ..read.clone() },
            Conf { prev_result: None, ..conf.clone() },
            "{}",
            version.as_str()
        );
        assert_eq!(read.prev_result.map(|result| result.to_json()), before.map(|result| result.to_json()));
    }
}

/// The environment, as lines of `NAME=VALUE`. What was accepted is what the specification allows.
pub fn cni_environment(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let get = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().to_owned()
    };
    match Environment::read(get) {
        Err(error) => sound(&error),
        Ok(None) => {}
        Ok(Some(env)) => {
            if matches!(env.command, Command::Add | Command::Check | Command::Del) {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
                assert!(!env.container_id.is_empty() && env.container_id.chars().all(plain), "{env:?}");
                assert!((1..=15).contains(&env.ifname.len()) && !env.ifname.contains(['/', ':', ' ']), "{env:?}");
            }
            arguments(&env.args);
        }
    }
    arguments(&text);
}

fn arguments(text: &str) {
    match Args::parse(text) {
        Err(error) => sound(&error),
        Ok(args) => {
            assert!(!args.labels.contains_key(""), "a label without a name");
            let stdin = Stdin::parse(br#"{"name":"n","networkService":"s"}"#, &Command::Add).expect("sound");
            match Conf::parse(&stdin, &args) {
                Ok(Conf { mode: Mode::Attach(conf), .. }) => {
                    assert!(args.mac.is_none() || conf.mac.is_some_and(|mac| mac.len() == 17));
                }
                Ok(Conf { mode: Mode::Pod(_), .. }) => panic!("a service is named"),
                Err(error) => sound(&error),
            }
        }
    }
}

/// A result of any version. What is printed reads as the same; extending it loses nothing of it.
pub fn cni_result(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    for assumed in Version::ALL {
        let answer = match Answer::parse(&value, assumed) {
            Ok(answer) => answer,
            Err(error) => {
                sound(&error);
                continue;
            }
        };
        for version in Version::ALL {
            let converted = answer.clone().convert(version);
            let Ok(json) = converted.to_json() else {
                assert!(version <= Version::V0_2_0 && answer.ips.is_empty(), "{}", version.as_str());
                continue;
            };
            assert_eq!(json["cniVersion"], version.as_str());
            let again = Answer::parse(&json, Version::NEWEST).expect("what was printed can be read");
            assert_eq!(again.to_json(), Ok(json));
        }
        let mut extended = answer.clone();
        extended.extend(made());
        assert_eq!(extended.ips.len(), answer.ips.len() + 1);
        assert_eq!(extended.ips[..answer.ips.len()], answer.ips[..]);
        let part = extended.convert(Version::NEWEST).part_of("nsm-1");
        assert!(part.interfaces.len() <= 1 && part.ips.iter().all(|ip| ip.interface == Some(0)));
    }
}

fn made() -> Answer {
    let made = json!({
        "interfaces": [{"name": "nsm-1", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}],
        "ips": [{"address": "172.16.0.1/32", "interface": 0}],
        "routes": [{"dst": "172.16.0.0/32"}]
    });
    Answer::parse(&made, Version::NEWEST).expect("sound")
}

/// An error is an object that the runtime can read, in each version.
fn sound(error: &Error) {
    assert!(error.code > 0 && !error.msg.is_empty(), "{error:?}");
    let text = error.to_json(Version::NEWEST);
    let json: Value = serde_json::from_str(&text).expect("an error is JSON");
    assert_eq!((&json["code"], &json["msg"]), (&json!(error.code), &json!(error.msg)));
    assert!(!text.contains('\n'), "an error is one line");
}
