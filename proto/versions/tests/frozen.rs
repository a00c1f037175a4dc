//! What a version spoke, the next one speaks: the private API only grows.

use std::collections::BTreeMap;

use nsm_proto_versions::{CURRENT, V0_1};
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// What an API consists of: what it is called, and what about it matters on the wire.
type Parts = BTreeMap<String, String>;

fn parts(descriptors: &FileDescriptorSet) -> Parts {
    let mut parts = Parts::new();
    for file in descriptors.file.iter().filter(|file| !file.package().starts_with("google.")) {
        let package = file.package();
        file.message_type.iter().for_each(|message| of_message(package, message, &mut parts));
        file.enum_type.iter().for_each(|values| of_enum(package, values, &mut parts));
        for service in &file.service {
            for method in &service.method {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                let shape = format!(
                    "({}{}) returns ({}{})",
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type()
                );
                parts.insert(format!("method {package}.{}/{}", service.name(), method.name()), shape);
            }
        }
    }
    parts
}

fn of_message(scope: &str, message: &DescriptorProto, parts: &mut Parts) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        parts.insert(format!("field {} of {name}", field.number()), of_field(field));
    }
    message.nested_type.iter().for_each(|nested| of_message(&name, nested, parts));
    message.enum_type.iter().for_each(|values| of_enum(&name, values, parts));
}

fn of_field(field: &FieldDescriptorProto) -> String {
    let presence = if field.proto3_optional() { "optional" } else { "plain" };
    format!("{} ({presence}, {:?} {:?} {})", field.name(), field.label(), field.r#type(), field.type_name())
}

fn of_enum(scope: &str, values: &EnumDescriptorProto, parts: &mut Parts) {
    for value in &values.value {
        parts.insert(format!("value {} of {scope}.{}", value.number(), values.name()), value.name().to_owned());
    }
}

/// What a peer of the older version would miss, one line each.
fn lost(old: &Parts, new: &Parts) -> Vec<String> {
    let changed = old.iter().filter(|(what, shape)| new.get(*what) != Some(*shape));
    changed
        .map(|(what, was)| {
            let is = new.get(what).map_or("gone", String::as_str);
            format!("{what} was {was}, is {is}")
        })
        .collect()
}

fn set(bytes: &[u8]) -> FileDescriptorSet {
    FileDescriptorSet::decode(bytes).unwrap()
}

#[test]
fn version_0_1_is_understood() {
    let lost = lost(&parts(&set(V0_1)), &parts(&set(CURRENT)));
    assert!(
        lost.is_empty(),
        "the private API of version 0.1 is not what it was:\n  {}\n\
        nsm-cni, nsmctl and nsm-agent are upgraded one after another and must work one version apart. Put these back into \
        proto/proto/ as they were and add what is new beside them, under numbers and names that were never used; say in a \
        comment what no longer counts. Do not change proto/versions/v0.1.",
        lost.join("\n  ")
    );
}

#[test]
fn what_is_lost_is_noticed() {
    let old = parts(&set(V0_1));
    let changed = |change: fn(&mut FileDescriptorSet)| {
        let mut set = set(V0_1);
        change(&mut set);
        lost(&old, &parts(&set))
    };
    fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
        set.file.iter_mut().flat_map(|file| &mut file.message_type).find(|message| message.name() == name).unwrap()
    }
    assert_eq!(changed(|_| ()), Vec::<String>::new());
    assert_eq!(changed(|set| message(set, "DelRequest").field[0].number = Some(9)).len(), 1, "another number");
    assert_eq!(changed(|set| message(set, "DelRequest").field[1].name = Some("net".into())).len(), 1, "another name");
    assert_eq!(changed(|set| message(set, "AddRequest").field[10].r#type = Some(4)).len(), 1, "another type");
    assert_eq!(changed(|set| message(set, "GcRequest").field.clear()).len(), 2, "no fields");
    let renamed = changed(|set| {
        let services = set.file.iter_mut().flat_map(|file| &mut file.service);
        services.filter(|service| service.name() == "Cni").for_each(|service| service.name = Some("Cni2".into()));
    });
    assert_eq!(renamed.len(), 5, "{renamed:?}");
    assert!(renamed[0].starts_with("method nsm.cni.v1.Cni/Add was (.nsm.cni.v1.AddRequest)"), "{renamed:?}");
    let value = changed(|set| {
        let values = set.file.iter_mut().flat_map(|file| &mut file.enum_type);
        values.for_each(|values| drop(values.value.pop()));
    });
    assert!(value.contains(&"value 3 of nsm.admin.v1.Kind was CONNECTION, is gone".to_owned()), "{value:?}");
}
