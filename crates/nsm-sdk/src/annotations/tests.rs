use proptest::prelude::*;

use super::*;

fn v1(text: &str) -> Annotations {
    Annotations { services: Some(text.into()), services_2019: None }
}

fn v2019(text: &str) -> Annotations {
    Annotations { services: None, services_2019: Some(text.into()) }
}

fn shown(wishes: &[Wish]) -> Vec<String> {
    let one = |wish: &Wish| {
        let name = wish.interface.as_ref().map(ToString::to_string).unwrap_or_default();
        let labels: Vec<String> = wish.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}/{name}?{}", wish.service, labels.join("&"))
    };
    wishes.iter().map(one).collect()
}

fn wishes(pod: Annotations, namespace: Annotations) -> Result<Vec<String>, String> {
    Asked { pod, namespace }.wishes().map(|all| shown(&all)).map_err(|error| error.to_string())
}

#[test]
fn both_forms_and_both_places_are_joined() {
    let pod = Annotations {
        services: Some("kernel://a/nsm-1?x=1, kernel://b,".into()),
        services_2019: Some("c?y=2&z=3".into()),
    };
    let namespace = Annotations { services: Some("kernel://b".into()), services_2019: Some("d".into()) };
    assert_eq!(wishes(pod, namespace).unwrap(), ["a/nsm-1?x=1", "b/?", "c/?y=2&z=3", "d/?"]);
    assert_eq!(wishes(v1("kernel://a,kernel://a"), Annotations::default()).unwrap(), ["a/?", "a/?"], "two interfaces");
    assert_eq!(wishes(v1(" , "), Annotations::default()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_mistake_names_the_annotation_and_what_is_wrong() {
    let none = Annotations::default;
    for (pod, namespace, parts) in [
        (v1("kernel://a/x,kernel://b/x"), none(), ["interface x is asked for twice", "\"a\" and for \"b\""]),
        (v1("kernel://a/x"), v1("kernel://b/x"), ["interface x is asked for twice", "name another one"]),
        (none(), v1("a"), ["annotation networkservicemesh.io of the namespace", "kernel://"]),
        (v2019("kernel://a"), none(), ["annotation ns.networkservicemesh.io of the pod", "service?label=value"]),
        (v1("memif://a"), none(), ["shared memory", "expected kernel://"]),
        (v1("kernel://a?podName=x"), none(), ["sets label podName", "the agent gives"]),
        (v1("kernel://a/way-too-long-a-name"), none(), ["annotation networkservicemesh.io of the pod", "15 bytes"]),
        (v1(&"kernel://a,".repeat(33)), none(), ["33 network services", "at most 32"]),
        (v1(&"x".repeat(LONGEST + 1)), none(), ["has 65537 bytes", "at most 65536"]),
    ] {
        let error = wishes(pod, namespace).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(first in ".{0,80}", second in ".{0,80}") {
        let _ = wishes(v1(&first), v2019(&second));
    }
}
