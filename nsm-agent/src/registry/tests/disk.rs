//! The database's file: damage, other versions, other agents, a full disk.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::{super::store::Store, *};

#[tokio::test]
async fn a_damaged_database_is_set_aside() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    registry.register_service(service("s"), peer(1)).await.unwrap();
    registry.shutdown().await;
    drop(registry);
    fs::write(dir.path().join("registry.redb"), b"these are not the pages of a database".repeat(1000)).unwrap();
    let registry = open(&dir).await;
    assert_eq!(registry.directory().counts().0, 0);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().contains("damaged")), "{names:?}");
    registry.register_service(service("t"), peer(1)).await.unwrap();
    registry.shutdown().await;
}

#[tokio::test]
async fn a_newer_format_and_a_second_agent_are_refused() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let second = Embedded::open(settings(dir.path()), Arc::new(())).await.map(|_| ()).unwrap_err();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    registry.shutdown().await;
    drop(registry);
    let database = Database::open(dir.path().join("registry.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Embedded::open(settings(dir.path()), Arc::new(())).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("format 7, this version knows 1"), "{error}");
}

/// A disk that can be filled.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("registry.redb");
    let full = Arc::new(AtomicBool::new(false));
    let opener: store::Opener = Box::new({
        let (path, full) = (path.clone(), full.clone());
        move || {
            let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            let disk = Disk { file: FileBackend::new(file)?, full: full.clone() };
            Database::builder().create_with_backend(disk)
        }
    });
    let (store, contents) = Store::open_with(path, opener).unwrap();
    let (access, pods) = (ServiceAccess::AnyNamespace, Arc::new(()));
    let registry = Embedded::start(
        store,
        contents,
        "boot".into(),
        registrar::Rules { max_life: Duration::from_mins(1), access, pods },
    )
    .await;
    registry.register_service(service("before"), peer(1)).await.unwrap();
    full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = registry.register_service(service("during"), peer(1)).await.unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        assert_eq!(error.kind(), Kind::Exhausted);
        assert!(registry.directory().service("during").is_none());
    }
    assert!(registry.unregister_service("before", peer(1)).await.is_err());
    assert!(registry.directory().service("before").is_some());
    full.store(false, Ordering::SeqCst);
    registry.register_service(service("after"), peer(1)).await.unwrap();
    let known = |registry: &Registrar| -> Vec<String> {
        let all = registry.directory().find_services(&NetworkService::default()).unwrap();
        all.iter().map(|service| service.message.name.clone()).collect()
    };
    assert_eq!(known(&registry), ["after", "before"]);
    registry.shutdown().await;
    drop(registry);
    let registry = open(&dir).await;
    assert_eq!(known(&registry), ["after", "before"], "the disk agrees");
    registry.shutdown().await;
}
