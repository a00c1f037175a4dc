//! Which interface each wish gets.
//!
//! Guarantees: names are told apart; a name of its own is a wish's in any case, else the one that it has already, else the lowest
//! `nsm-N` that nobody has. The order is that of the wishes.

use std::collections::{BTreeMap, BTreeSet};

use nsm_cni_types::RESERVED_LABELS;
use nsm_netlink::IfName;
use nsm_sdk::annotations::not_taken;

use super::{Error, Wish};
use crate::state::Attachment;

/// A wish with its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The interface to make.
    pub interface: IfName,
    /// The network service.
    pub service: String,
    /// The client's labels, without those that the agent gives.
    pub labels: BTreeMap<String, String>,
}

impl Named {
    /// Whether an attachment is what is wished for.
    pub fn is(&self, attachment: &Attachment) -> bool {
        self.interface == attachment.interface
            && self.service == attachment.network_service
            && same_labels(&self.labels, attachment)
    }
}

/// Names the wishes of a pod. `attached`: what annotations have given it so far; `taken`: the other names that it has, CNI_IFNAME
/// among them.
///
/// # Errors
/// [`Error::Taken`], where a wish's own name is among `taken`.
pub fn named<'a>(
    wishes: &[Wish],
    attached: impl IntoIterator<Item = &'a Attachment>,
    taken: &BTreeSet<IfName>,
) -> Result<Vec<Named>, Error> {
    not_taken(wishes, |name| taken.iter().any(|taken| taken.as_str() == name))?;
    let mut used = taken.clone();
    for wish in wishes {
        if let Some(name) = own(wish) {
            used.insert(name);
        }
    }
    let mut attached: Vec<&Attachment> = attached.into_iter().filter(|one| !used.contains(&one.interface)).collect();
    attached.sort_by(|a, b| a.interface.cmp(&b.interface));
    let kept: Vec<Option<IfName>> = wishes
        .iter()
        .map(|wish| {
            if wish.interface.is_some() {
                return None;
            }
            let is = |one: &&Attachment| one.network_service == wish.service && same_labels(&wish.labels, one);
            let place = attached.iter().position(is)?;
            let name = attached.remove(place).interface.clone();
            used.insert(name.clone());
            Some(name)
        })
        .collect();
    let mut numbers = 1_u32..;
    let mut lowest =
        || numbers.by_ref().find_map(|n| IfName::new(format!("nsm-{n}")).ok().filter(|name| used.insert(name.clone())));
    let mut all = Vec::with_capacity(wishes.len());
    for (wish, kept) in wishes.iter().zip(kept) {
        // The numbers do not end before the wishes do.
        let Some(interface) = own(wish).or(kept).or_else(&mut lowest) else { continue };
        all.push(Named { interface, service: wish.service.clone(), labels: wish.labels.clone() });
    }
    Ok(all)
}

/// The name that a wish says. Both types have the same rule.
fn own(wish: &Wish) -> Option<IfName> {
    wish.interface.as_ref().and_then(|name| IfName::new(name.as_str()).ok())
}

fn same_labels(wished: &BTreeMap<String, String>, attachment: &Attachment) -> bool {
    let own = attachment.labels.iter().filter(|(name, _)| !RESERVED_LABELS.contains(&name.as_str()));
    own.eq(wished.iter())
}
