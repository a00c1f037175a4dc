//! Compiles the API of other versions: those that are kept, and one that is made up of today's and additions.

use std::{env, error::Error, fs, path::Path};

use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const FILES: [&str; 2] = ["cni.proto", "admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=v0.1");
    println!("cargo::rerun-if-changed=../proto");
    let frozen = protox::compile(FILES, ["v0.1"])?;
    let current = protox::compile(FILES, ["../proto"])?;
    let out = env::var("OUT_DIR")?;
    let out = Path::new(&out);
    fs::write(out.join("v0_1.bin"), frozen.encode_to_vec())?;
    fs::write(out.join("current.bin"), current.encode_to_vec())?;
    generate(frozen, &out.join("v0_1"))?;
    generate(later(current), &out.join("later"))
}

fn generate(descriptors: FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out)?;
    let config = tonic_prost_build::configure().build_transport(false).generate_default_stubs(true);
    Ok(config.btree_map(".").out_dir(out).compile_fds(descriptors)?)
}

/// The private API with a field more in each message and a method more in each service.
fn later(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut descriptors.file {
        // It has no place for what is added.
        file.source_code_info = None;
        if file.package().starts_with("nsm.") {
            file.message_type.iter_mut().for_each(extend);
            for service in &mut file.service {
                if let Some(first) = service.method.first().cloned() {
                    service.method.push(MethodDescriptorProto { name: Some("AddedLater".into()), ..first });
                }
            }
        }
    }
    descriptors
}

fn extend(message: &mut DescriptorProto) {
    message.field.push(FieldDescriptorProto {
        name: Some("added_later".into()),
        json_name: Some("addedLater".into()),
        number: Some(1000),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::String.into()),
        ..FieldDescriptorProto::default()
    });
}
