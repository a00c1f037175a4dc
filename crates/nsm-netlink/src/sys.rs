//! The system calls that no library wraps safely: reading a netlink datagram with its ancillary data, filtering datagrams, asking
//! a namespace's descriptor which kind it is, and a file on which device it is. The only module of the crate with `unsafe`.

#![expect(
    unsafe_code,
    reason = "recvmsg with a netlink control message, a socket filter, an ioctl and statx; wrapped safely here"
)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// One datagram, read into the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Bytes of it in the buffer.
    pub(crate) len: usize,
    /// The buffer was too small: the rest is lost.
    pub(crate) truncated: bool,
    /// It came from the kernel. Any process may send to a netlink socket.
    pub(crate) from_kernel: bool,
    /// The namespace it is about, for a socket that listens to all; `None`: the socket's own.
    pub(crate) nsid: Option<i32>,
}

/// Reads one datagram; never waits (`WouldBlock` when there is none).
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Room for one control message with an int, aligned as the header wants it.
    let mut control = [0_u64; 8];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: both are plain C structs for which all zeroes is a valid value.
    let (mut sender, mut header) = unsafe { (mem::zeroed::<libc::sockaddr_nl>(), mem::zeroed::<libc::msghdr>()) };
    header.msg_name = (&raw mut sender).cast();
    header.msg_namelen = socklen::<libc::sockaddr_nl>();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(&control);
    // SAFETY: every pointer in `header` is to memory that lives until the end of this function, of the length given with it.
    let read =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let len = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;

    let mut nsid = None;
    // SAFETY: the kernel filled `header`; the macros stay within msg_controllen.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(found) = message.as_ref() {
            let wanted = mem::size_of::<libc::c_int>();
            if found.cmsg_level == libc::SOL_NETLINK
                && found.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID
                && found.cmsg_len >= libc::CMSG_LEN(u32::try_from(wanted).unwrap_or(4)) as usize
            {
                nsid = Some(libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned());
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok(Received { len, truncated: header.msg_flags & libc::MSG_TRUNC != 0, from_kernel: sender.nl_pid == 0, nsid })
}

/// Which kind of namespace a descriptor is of, as a `CLONE_NEW…` flag. Asks only: `file` must be known to be a namespace, as
/// the request number may mean anything to another kind of file.
pub(crate) fn namespace_type(file: BorrowedFd<'_>) -> io::Result<i32> {
    /// `_IO(0xb7, 0x3)`, see `ioctl_ns(2)`.
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument; the descriptor is borrowed, hence open.
    #[allow(clippy::useless_conversion, reason = "the request's type differs between C libraries")]
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE.try_into().unwrap_or_default()) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// The device that a file is on, from what the kernel has: a file of a FUSE or network file system whose server does not answer must
/// not stop us, and peers choose what they pass.
pub(crate) fn device(file: BorrowedFd<'_>) -> io::Result<libc::dev_t> {
    // SAFETY: a statx of zeroes is a valid value.
    let mut found: libc::statx = unsafe { mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty C string and `found` is written by the kernel.
    let done = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, 0, &raw mut found) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::makedev(found.stx_dev_major, found.stx_dev_minor))
}

/// Lets only messages of these kinds through to a netlink socket: others wake nobody.
pub(crate) fn let_through(socket: BorrowedFd<'_>, kinds: &[u16]) -> io::Result<()> {
    // Classic BPF, see `networking/filter.rst` of the kernel; these codes are of its `uapi/linux/bpf_common.h`.
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where a netlink header has its kind, which the filter's load takes for a number in network order.
    const KIND_AT: u32 = 4;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = vec![step(LOAD_HALF, 0, KIND_AT)];
    for (at, kind) in kinds.iter().enumerate() {
        let left = u8::try_from(kinds.len() - at).map_err(io::Error::other)?;
        program.push(step(JUMP_IF_EQUAL, left, u16::from_be_bytes(kind.to_ne_bytes()).into()));
    }
    program.push(step(RETURN, 0, 0));
    program.push(step(RETURN, 0, u32::MAX));
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: `filter` says how long `program` is; the kernel copies both during the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            socklen::<libc::sock_fprog>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

/// A netlink socket's descriptor, for calls that want a borrowed one.
pub(crate) fn descriptor(socket: &netlink_sys::Socket) -> BorrowedFd<'_> {
    // SAFETY: the socket owns the descriptor and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
