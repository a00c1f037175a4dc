use std::io::Read;

use super::*;

/// The least of a program: a header and one segment of that kind.
fn program(machine: u16, segment: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64..68].copy_from_slice(&segment.to_le_bytes());
    bytes
}

fn builds(root: &Path) -> Vec<Build> {
    let of = |architecture: Architecture, machine| {
        let dir = root.join(architecture.name());
        fs::create_dir_all(&dir).unwrap();
        for name in PROGRAMS {
            fs::write(dir.join(name), program(machine, 1)).unwrap();
        }
        Build { architecture, dir }
    };
    vec![of(Architecture::Amd64, 62), of(Architecture::Arm64, 183)]
}

fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        let (path, mode) = (entry.path().unwrap().display().to_string(), header.mode().unwrap());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, mode, content)
    });
    entries.collect()
}

#[test]
fn what_the_index_names_is_there_and_is_what_it_says() {
    let dir = tempfile::TempDir::new().unwrap();
    let out = dir.path().join("image.tar");
    let digest = write(&out, "nsm", "1.2.3", &builds(dir.path())).unwrap();
    let files = entries(&fs::read(&out).unwrap());
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let (_, _, content) = files.iter().find(|(name, ..)| *name == path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(digest, format!("sha256:{}", layout::hex(content)));
        assert_eq!(descriptor["size"], content.len());
        content.clone()
    };
    let json = |content: &[u8]| serde_json::from_slice::<Value>(content).unwrap();
    let top = json(&files.iter().find(|(name, ..)| name == "index.json").unwrap().2);
    let named = &top["manifests"][0];
    assert_eq!(named["annotations"]["io.containerd.image.name"], "docker.io/library/nsm:1.2.3");
    assert_eq!(named["digest"], digest.as_str());
    let index = json(&blob(named));
    let platforms: Vec<&Value> = index["manifests"].as_array().unwrap().iter().collect();
    assert_eq!(platforms.len(), 2);
    for (described, architecture) in platforms.into_iter().zip(["amd64", "arm64"]) {
        assert_eq!(described["platform"]["architecture"], architecture);
        let manifest = json(&blob(described));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["architecture"], architecture);
        assert_eq!(config["config"]["User"], "65532:65532");
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let mut packed = tar::Archive::new(layer.as_slice());
        let link =
            packed.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap() == Path::new("var/run"));
        assert_eq!(link.unwrap().link_name().unwrap().as_deref(), Some(Path::new("/run")));
        let programs: Vec<(String, u32)> =
            entries(&layer).into_iter().map(|(path, mode, _)| (path, mode)).skip(5).collect();
        assert_eq!(programs, PROGRAMS.map(|name| (format!("usr/bin/{name}"), 0o755)));
    }
}

#[test]
fn the_same_programs_make_the_same_bytes() {
    let dir = tempfile::TempDir::new().unwrap();
    let outs = ["one.tar", "two.tar"].map(|name| dir.path().join(name));
    for out in &outs {
        write(out, "nsm", "1.2.3", &builds(dir.path())).unwrap();
    }
    assert_eq!(fs::read(&outs[0]).unwrap(), fs::read(&outs[1]).unwrap());
}

#[test]
fn what_could_not_start_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let out = dir.path().join("image.tar");
    for (content, why) in [
        (program(62, 3), "needs a loader"),
        (program(183, 1), "ELF machine 183: expected 62, amd64"),
        (b"#!/bin/sh\n".to_vec(), "expected a 64-bit"),
        (program(62, 1)[..80].to_vec(), ""),
        (program(62, 1)[..40].to_vec(), "truncated"),
    ] {
        let builds = builds(dir.path());
        fs::write(builds[0].dir.join("nsc"), content).unwrap();
        let made = write(&out, "nsm", "1.2.3", &builds);
        match made {
            Ok(_) => assert!(why.is_empty(), "{why}"),
            Err(error) => assert!(format!("{error:#}").contains(why), "{error:#}"),
        }
        assert_eq!(out.exists(), why.is_empty());
        fs::remove_file(&out).ok();
    }
}
