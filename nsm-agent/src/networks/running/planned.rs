//! What is to be attached is planned, under names that are free.

use std::collections::BTreeSet;

use nsm_npwg::{Annotations, Attach, Selection};
use tokio::time::Instant;

use super::{ATTACHING, Place, Running, difference::Wanted};
use crate::networks::{Made, Refusal, Settled, read};

impl Running {
    /// The networks to attach, planned, with names that are free.
    pub(super) async fn planned(
        &self,
        place: &Place,
        asked: &Annotations,
        settled: Option<&Settled>,
        wanted: Vec<Wanted>,
    ) -> Vec<(Selection, Result<Attach, Refusal>)> {
        let until = Instant::now() + ATTACHING / 2;
        let all_alike = |wanted: Vec<Wanted>, refusal: &Refusal| {
            wanted.into_iter().map(|one| (one.selection, Err(refusal.clone()))).collect()
        };
        let meta = match read(&place.call.configuration) {
            Ok(meta) => meta,
            Err(error) => return all_alike(wanted, &Refusal::NotNow(error.to_string())),
        };
        let Some(settled) = settled else {
            // Names as its ADD would have given them.
            let planned = self.networks.plan_for(&meta, &place.key.ifname, Some(&place.pod), asked, until).await;
            return match planned {
                Ok(planned) => {
                    let before = planned.len().saturating_sub(wanted.len());
                    let planned = planned.iter().skip(before).map(|one| Ok(Attach::from(one)));
                    wanted.into_iter().map(|one| one.selection).zip(planned).collect()
                }
                Err(refusal) => all_alike(wanted, &refusal),
            };
        };
        // What was begun keeps its name, and may have its device.
        let is_begun = |made: &&Made| wanted.iter().any(|one| one.begun.as_ref() == Some(&made.ifname));
        let others: Vec<&Made> = settled.networks.iter().filter(|made| !is_begun(made)).collect();
        let mut taken: BTreeSet<String> = [place.key.ifname.clone()].into();
        for made in &others {
            taken.insert(made.ifname.clone());
            taken.extend(made.entries.iter().map(|entry| entry.interface.clone()));
        }
        let as_begun = |one: &Wanted| match &one.begun {
            Some(ifname) => Selection { interface: Some(ifname.clone()), ..one.selection.clone() },
            None => one.selection.clone(),
        };
        let selections: Vec<Selection> = wanted.iter().map(as_begun).collect();
        let names = nsm_npwg::names_for(&selections, &taken);
        let with_name = selections.iter().zip(&names).filter_map(|(selection, name)| {
            let interface = Some(name.clone()?);
            Some(Selection { interface, ..selection.clone() })
        });
        let to_plan: Vec<Selection> = with_name.collect();
        let used = others.iter().filter_map(|made| made.device.clone()).collect();
        let planned = self.networks.plan_added(&meta, &place.pod, used, &to_plan, until).await;
        let mut planned = planned.into_iter().map(|planned| planned.map(|planned| Attach::from(&planned)));
        let with = |(one, name): (Wanted, Option<String>)| {
            let planned = if name.is_some() { planned.next() } else { None };
            let planned = planned.unwrap_or_else(|| {
                let taken = one.selection.interface.as_deref().unwrap_or_default();
                Err(Refusal::NotNow(format!("interface {taken:?} is the pod's already: name another one")))
            });
            (one.selection, planned)
        };
        wanted.into_iter().zip(names).map(with).collect()
    }
}
