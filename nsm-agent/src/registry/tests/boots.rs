//! What an earlier boot of the machine leaves: nobody is there who registered it.

use super::*;

async fn open_in(dir: &TempDir, boot_id: &str) -> Registrar {
    let settings = Settings { boot_id: boot_id.into(), ..settings(dir.path()) };
    Embedded::open(settings, Arc::new(())).await.unwrap()
}

/// A pod's endpoint with a socket of its own.
async fn serve(registry: &Registrar, owner: Owner) -> Result<Registered<Entry>, Error> {
    let registered = NetworkServiceEndpoint { url: "inode://4/5".into(), ..endpoint("unix") };
    let socket = Arc::new(std::os::fd::OwnedFd::from(fs::File::open("/dev/null").unwrap()));
    registry.register_endpoint(registered, Registrant { socket: Some(socket), ..by(owner) }).await
}

#[tokio::test]
async fn names_of_endpoints_are_free_at_once_after_a_boot() {
    let dir = TempDir::new().unwrap();
    let registry = open_in(&dir, "first").await;
    serve(&registry, peer(1)).await.unwrap();
    registry.register_endpoint(endpoint("tcp"), by(peer(1))).await.unwrap();
    registry.register_endpoint(endpoint("operators"), Registrant::operator()).await.unwrap();
    registry.shutdown().await;
    drop(registry);
    // The same boot: it may come back.
    let registry = open_in(&dir, "first").await;
    assert!(matches!(serve(&registry, peer(2)).await, Err(Error::Taken { .. })));
    registry.shutdown().await;
    drop(registry);
    let registry = open_in(&dir, "second").await;
    assert!(registry.directory().endpoint("unix").is_none() && registry.directory().endpoint("tcp").is_none());
    assert!(registry.directory().endpoint("operators").is_some(), "it is nobody's in particular");
    serve(&registry, peer(2)).await.unwrap();
    registry.shutdown().await;
    drop(registry);
    let registry = open_in(&dir, "second").await;
    assert_eq!(registry.directory().endpoint("unix").unwrap().owner, peer(2));
    registry.shutdown().await;
}

#[tokio::test]
async fn services_of_an_earlier_boot_can_be_taken_over_and_go_when_they_are_idle() {
    let dir = TempDir::new().unwrap();
    let registry = open_in(&dir, "first").await;
    for name in ["taken", "left"] {
        registry.register_service(service(name), peer(1)).await.unwrap();
    }
    registry.apply_service(service("operators"), None).await.unwrap();
    registry.shutdown().await;
    drop(registry);
    let registry = open_in(&dir, "second").await;
    assert_eq!(registry.directory().service("left").unwrap().owner, Owner::Departed);
    // Whoever has that namespace's number now is another.
    let matches = vec![Match::default()];
    let taken = registry.register_service(NetworkService { matches, ..service("taken") }, peer(2)).await.unwrap();
    assert_eq!(taken.object.owner, peer(2));
    let known = || registry.directory().find_services(&NetworkService::default()).unwrap();
    tokio::time::pause();
    for _ in 0..20 {
        tokio::time::advance(Duration::from_mins(10)).await;
        tokio::time::resume();
        registry.register_service(service("taken"), peer(2)).await.unwrap();
        tokio::time::pause();
    }
    tokio::time::resume();
    timeout(SOON, async {
        while known().len() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("what nobody offers is removed");
    let names: Vec<_> = known().iter().map(|service| service.message.name.clone()).collect();
    assert_eq!(names, ["operators", "taken"]);
    registry.shutdown().await;
}
