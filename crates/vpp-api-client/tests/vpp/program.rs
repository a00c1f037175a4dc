//! `vpp-api`, as a user has it.

use std::path::Path;
use std::process::{Command, Output};

use nsm_vpp::Vpp;
use serde_json::{Value, json};

fn run(vpp: &Vpp, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpp-api"));
    command.arg("--socket").arg(vpp.api_socket()).arg("--stats-socket").arg(vpp.stats_socket());
    command.args(words).output().unwrap()
}

#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn call_dump_list_events_and_stats() {
    let vpp = Vpp::start().unwrap();
    let installed = nsm_vpp::definitions().unwrap();
    for from in [Path::new("vpp"), Path::new("own"), &installed] {
        let version = lines(&run(&vpp, &["--definitions", from.to_str().unwrap(), "call", "show_version"]));
        assert_eq!(version[0]["program"], json!("vpe"));
    }
    let made = lines(&run(&vpp, &["call", "create_loopback_instance"]));
    assert_eq!(made[0]["retval"], json!(0));
    let index = made[0]["sw_if_index"].as_u64().unwrap();
    let events = std::thread::scope(|scope| {
        let events = scope.spawn(|| run(&vpp, &["--count", "1", "--timeout", "20", "events", "want_interface_events"]));
        let (mut flags, up) = (0, json!({"sw_if_index": index, "flags": 1}).to_string());
        let down = json!({"sw_if_index": index, "flags": 0}).to_string();
        // The listener says nothing when it is ready.
        while !events.is_finished() {
            lines(&run(&vpp, &["call", "sw_interface_set_flags", if flags % 2 == 0 { &up } else { &down }]));
            flags += 1;
        }
        lines(&events.join().unwrap())
    });
    assert_eq!(events[0]["sw_interface_event"]["sw_if_index"], json!(index));
    let dumped =
        lines(&run(&vpp, &["dump", "sw_interface_dump", r#"{"name_filter_valid": true, "name_filter": "loop"}"#]));
    assert_eq!((dumped.len(), &dumped[0]["interface_name"]), (1, &json!("loop0")));
    let list = run(&vpp, &["list", "memif_delete"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("memif_delete_f9e6675e"), "{list}");
    let counters = lines(&run(&vpp, &["stats"]));
    assert!(counters.iter().any(|of| of.get("loop0").is_some()), "{counters:?}");
    let system = lines(&run(&vpp, &["stats", "/sys"]));
    assert!(!system.is_empty());
    let watched = lines(&run(&vpp, &["stats", "--watch", "--count", "1"]));
    assert_eq!(watched.len(), 1);
    let refused = run(&vpp, &["call", "delete_loopback", r#"{"sw_if_index": 9999}"#]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("INVALID_SW_IF_INDEX (-2)"), "{said}");
}
