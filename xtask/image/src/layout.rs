//! Blobs, named by what is in them, and the tar files that hold them: fixed order, owner, mode and time.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Something of the image.
pub(crate) struct Blob {
    media_type: &'static str,
    content: Vec<u8>,
    hex: String,
}

impl Blob {
    pub(crate) fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let hex = hex(&content);
        Self { media_type, content, hex }
    }

    pub(crate) fn json(media_type: &'static str, content: &Value) -> serde_json::Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(content)?))
    }

    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }
}

/// The SHA-256 of this, in hexadecimal.
pub(crate) fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An image layout (image-spec, image-layout.md).
#[derive(Default)]
pub(crate) struct Layout {
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    /// Keeps a blob; its descriptor.
    pub(crate) fn add(&mut self, blob: Blob) -> Value {
        let descriptor = json!({ "mediaType": blob.media_type, "digest": blob.digest(), "size": blob.content.len() });
        self.blobs.insert(blob.hex, blob.content);
        descriptor
    }

    /// Writes it as a tar file, on the disk when this returns.
    pub(crate) fn write(&self, to: &Path, index: &Value) -> io::Result<()> {
        let mut archive = Archive(Builder::new(io::BufWriter::new(File::create(to)?)));
        archive.file("oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes())?;
        archive.file("index.json", 0o644, index.to_string().as_bytes())?;
        archive.dir("blobs")?;
        archive.dir("blobs/sha256")?;
        for (hex, content) in &self.blobs {
            archive.file(&format!("blobs/sha256/{hex}"), 0o644, content)?;
        }
        archive.0.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// A layer of root's directories, symbolic links and programs.
pub(crate) fn layer(dirs: &[&str], links: &[(&str, &str)], programs: &[(String, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let mut archive = Archive(Builder::new(Vec::new()));
    for dir in dirs {
        archive.dir(dir)?;
    }
    for (path, target) in links {
        archive.link(path, target)?;
    }
    for (path, content) in programs {
        archive.file(path, 0o755, content)?;
    }
    archive.0.into_inner()
}

struct Archive<W: Write>(Builder<W>);

impl<W: Write> Archive<W> {
    fn dir(&mut self, path: &str) -> io::Result<()> {
        self.entry(&format!("{path}/"), EntryType::Directory, 0o755, &[])
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, EntryType::Regular, mode, content)
    }

    fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target)
    }

    fn entry(&mut self, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = header(kind, mode, content.len() as u64);
        self.0.append_data(&mut header, path, content)
    }
}

/// Of root, and of no time.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}
