//! What is a network namespace and what is not; work inside one.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nsm_netlink::{Error, Netlink, Netns};

fn links_here() -> PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn work_inside_leaves_the_caller_where_it_was() {
    let (pod, here) = (Netns::create().unwrap(), links_here());
    let there = pod.run(links_here).unwrap();
    assert_eq!(there.to_str().unwrap(), format!("net:[{}]", pod.id().ino));
    assert_ne!(there, here);

    let panicked = pod.run(|| panic!("inside {}", 7)).unwrap_err();
    assert!(matches!(&panicked, Error::Panicked { message } if message == "inside 7"), "{panicked}");
    assert_eq!(links_here(), here);
}

#[test]
fn a_namespace_is_opened_from_path_and_descriptor() {
    let pod = Netns::create().unwrap();
    let descriptor: OwnedFd = pod.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(Netns::from_file(descriptor).unwrap().id(), pod.id());

    // O_PATH, as a peer may pass it.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pod.as_fd()));
    let only_a_path = OpenOptions::new().read(true).custom_flags(0o10_000_000).open(&path).unwrap();
    let reopened = Netns::from_file(only_a_path).unwrap();
    assert_eq!(reopened.id(), pod.id());
    assert_eq!(reopened.run(links_here).unwrap(), pod.run(links_here).unwrap());
    assert_eq!(Netns::open(&path).unwrap().id(), pod.id());
}

#[test]
fn anything_else_is_refused() {
    let refused = |result: Result<Netns, Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotNetns { .. }), "{error}");
    };
    refused(Netns::open("/proc/self/ns/mnt"));
    refused(Netns::open("/dev/null"));
    refused(Netns::open("/proc/self/status"));
    refused(Netns::from_file(File::open("/").unwrap()));
    refused(Netns::from_file(File::open("/proc/self/ns/pid").unwrap()));
    assert!(Netns::open("/nowhere/net").unwrap_err().is_gone());

    // A FIFO without a writer: opening it would wait for ever.
    let directory = std::env::temp_dir().join(format!("nsm-netlink-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let fifo = directory.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let result = Netns::open(&fifo);
    fs::remove_dir_all(&directory).unwrap();
    refused(result);
}

/// Of a file system whose server never answers, here of FUSE: whoever asks it anything waits.
#[test]
fn a_file_whose_server_is_silent_is_refused_at_once() {
    let server = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let directory = std::env::temp_dir().join(format!("nsm-netlink-fuse-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&server);
    let mounted = std::thread::scope(|scope| {
        let in_private = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing = None::<&str>;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
            mount(Some("silent"), &directory, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
            nix::fcntl::open(&directory, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
        };
        scope.spawn(in_private).join().unwrap()
    });
    fs::remove_dir_all(&directory).unwrap();
    let (answer, answered) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || answer.send(Netns::from_file(mounted.unwrap())));
    let result = answered.recv_timeout(Duration::from_secs(5));
    // Its end answers everybody who still waits.
    drop(server);
    asking.join().unwrap().ok();
    assert!(matches!(result.expect("an answer without the server's"), Err(Error::NotNetns { .. })));
}

#[test]
fn a_number_stays_while_the_namespace_lives() {
    let agent = Netlink::open_in(&Netns::create().unwrap()).unwrap();
    let (one, two) = (Netns::create().unwrap(), Netns::create().unwrap());
    let first = agent.nsid(&one).unwrap();
    assert_ne!(agent.nsid(&two).unwrap(), first);
    assert_eq!(agent.nsid(&one).unwrap(), first);
    assert!(agent.nsid(agent.netns()).is_ok(), "its own namespace has one too");
}
