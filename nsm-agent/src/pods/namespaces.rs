//! The namespaces that ask for network services, on the host for the plugin.
//!
//! Guarantees: once the namespaces have been read the folder has exactly those that ask. While the API server is away nothing is
//! removed.

use std::{collections::BTreeSet, io, time::Duration};

use nsm_cni_types::pods::Annotations;
use tokio::sync::watch;

use super::seen::Asking;
use crate::{sandboxes::Namespaces, state::blocking};

/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps the folder as it is to be.
pub(super) async fn keep(folder: Namespaces, mut asking: watch::Receiver<Option<Asking>>) {
    let mut failed = false;
    loop {
        let wanted = asking.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let folder = folder.clone();
            match blocking(move || set(&folder, &wanted)).await {
                Ok(()) => failed = false,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::error!(
                            %error,
                            "the plugin cannot be told which namespaces ask: their pods start without network services"
                        );
                    }
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
        }
        if asking.changed().await.is_err() {
            return;
        }
    }
}

/// Makes the folder hold these and no others. Blocking.
fn set(folder: &Namespaces, wanted: &Asking) -> io::Result<()> {
    let known: BTreeSet<String> = folder.all()?.into_iter().collect();
    for name in known.iter().filter(|name| !wanted.contains_key(name.as_str())) {
        folder.put(name, &Annotations::default())?;
    }
    for (name, annotations) in wanted {
        if !known.contains(&**name) || folder.annotations_blocking(name).ok().flatten().as_ref() != Some(annotations) {
            folder.put(name, annotations)?;
        }
    }
    folder.complete()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_those_that_ask() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Namespaces::open(&dir.path().join("cni.sock")).unwrap();
        let names = || folder.all().unwrap().into_iter().collect::<BTreeSet<_>>();
        let asks = |service: &str| Annotations { services: Some(format!("kernel://{service}")), services_2019: None };
        assert_eq!(folder.annotations_blocking("a").unwrap(), None, "nothing has been read");
        set(&folder, &Asking::from([("a".into(), asks("s")), ("b".into(), asks("s"))])).unwrap();
        assert_eq!(names(), BTreeSet::from(["a".into(), "b".into()]));
        set(&folder, &Asking::from([("b".into(), asks("t"))])).unwrap();
        assert_eq!(names(), BTreeSet::from(["b".into()]));
        assert_eq!(folder.annotations_blocking("b").unwrap(), Some(asks("t")));
        assert_eq!(folder.annotations_blocking("a").unwrap(), Some(Annotations::default()));
    }
}
