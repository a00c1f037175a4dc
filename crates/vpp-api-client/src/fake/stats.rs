//! A statistics segment, laid out as VPP does.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::JoinHandle;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept, bind, listen, sendmsg, socket_with,
};

/// Where VPP would have the segment: a vector's pointer counts from there.
const BASE: u64 = 0x13_0000_0000;
/// Of the header, and some room behind it.
const FIRST: usize = 4096;
const ENTRY: usize = 144;
const NAME: usize = 127;

/// A segment that grows by what is added to it; the order is that of the directory.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    bytes: Vec<u8>,
    directory: Vec<u8>,
}

impl Segment {
    /// One number.
    pub fn scalar(&mut self, name: &str, value: u64) {
        self.entry(1, value, name);
    }

    /// A counter for each index, for each thread.
    pub fn simple(&mut self, name: &str, threads: &[&[u64]]) {
        self.counters(2, 8, threads, name);
    }

    /// Packets and bytes, one after the other, for each index, for each thread.
    pub fn combined(&mut self, name: &str, threads: &[&[u64]]) {
        self.counters(3, 16, threads, name);
    }

    /// Names by index; an empty one is a null pointer.
    pub fn names(&mut self, name: &str, names: &[&str]) {
        let pointers: Vec<u64> =
            names.iter().map(|of| if of.is_empty() { 0 } else { self.vector(of.as_bytes(), of.len()) }).collect();
        let value = self.words(&pointers, 8);
        self.entry(4, value, name);
    }

    /// Another name for one index of the entry of that number.
    pub fn link(&mut self, name: &str, entry: u32, index: u32) {
        self.entry(6, u64::from(entry) | u64::from(index) << 32, name);
    }

    /// A name without a value.
    pub fn empty(&mut self, name: &str) {
        self.entry(5, 0, name);
    }

    /// A place that nobody uses any more.
    pub fn unused(&mut self) {
        self.entry(0, 0, "");
    }

    /// VPP's pointer to a new vector.
    fn vector(&mut self, elements: &[u8], length: usize) -> u64 {
        let at = self.bytes.len().max(FIRST).next_multiple_of(64);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend_from_slice(&[1, 0, 0, 0]);
        self.bytes.extend_from_slice(elements);
        BASE + at as u64 + 8
    }

    fn words(&mut self, words: &[u64], element: usize) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.vector(&bytes, words.len() * 8 / element)
    }

    fn counters(&mut self, kind: u32, element: usize, threads: &[&[u64]], name: &str) {
        let pointers: Vec<u64> = threads.iter().map(|of| self.words(of, element)).collect();
        let value = self.words(&pointers, 8);
        self.entry(kind, value, name);
    }

    /// A name too long for its room is cut.
    fn entry(&mut self, kind: u32, value: u64, name: &str) {
        let mut entry = [0; ENTRY];
        let name = &name.as_bytes()[..name.len().min(NAME)];
        entry[..4].copy_from_slice(&kind.to_ne_bytes());
        entry[8..16].copy_from_slice(&value.to_ne_bytes());
        entry[16..16 + name.len()].copy_from_slice(name);
        self.directory.extend_from_slice(&entry);
    }

    /// As memory that others may read.
    ///
    /// # Errors
    /// There is none.
    pub fn file(mut self) -> io::Result<File> {
        let directory = std::mem::take(&mut self.directory);
        let pointer = self.vector(&directory, directory.len() / ENTRY);
        for (at, word) in [2, BASE, 1, 0, pointer].into_iter().enumerate() {
            self.bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_ne_bytes());
        }
        let file = File::from(memfd_create("stats", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&self.bytes, 0)?;
        Ok(file)
    }
}

/// Listens there, and hands the files to the next who connects, on a thread that then ends.
///
/// # Errors
/// The socket cannot be made.
pub fn hand_out(path: &Path, files: Vec<File>) -> io::Result<JoinHandle<io::Result<()>>> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 1)?;
    std::thread::Builder::new().name("fake-stats".into()).spawn(move || {
        let peer = accept(&socket)?;
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let borrowed: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other("at most four files are handed out"));
        }
        sendmsg(&peer, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
        Ok(())
    })
}
