//! From what a pod has to what it selects.
//!
//! Guarantees: of what no annotation gave nothing is detached; what was asked in the same words, or in others that mean the same, stays.
//! What was begun is brought to its end, under the name under which it was begun, or detached. What was to be detached and is asked for
//! again is attached under its name: the plugin knows whether it had begun to detach it, and changes nothing where it had not.

use nsm_npwg::Selection;

use crate::networks::{Made, settled::Stage};

/// What is to be changed of a pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Interfaces' names.
    pub(super) detach: Vec<String>,
    /// In the annotation's order.
    pub(super) attach: Vec<Wanted>,
}

/// A network to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As the annotation asks for it.
    pub(super) selection: Selection,
    /// The interface under whose name that was begun.
    pub(super) begun: Option<String>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.detach.is_empty() && self.attach.is_empty()
    }
}

pub(super) fn difference(made: &[Made], wanted: &[Selection]) -> Difference {
    let mut left: Vec<&Made> = made.iter().filter(|made| made.asked.is_some()).collect();
    // What is there serves before what was begun.
    left.sort_by_key(|made| made.stage);
    let mut served: Vec<Option<&Made>> = vec![None; wanted.len()];
    // Those that name an interface choose first.
    for named in [true, false] {
        for (selection, served) in wanted.iter().zip(&mut served) {
            let fits = |made: &&Made| selection.interface.is_some() == named && is(made, selection);
            if let Some(place) = left.iter().position(fits) {
                *served = Some(left.remove(place));
            }
        }
    }
    let attach = wanted.iter().zip(served).filter(|(_, served)| served.is_none_or(|made| made.stage != Stage::Made));
    Difference {
        detach: left.into_iter().map(|made| made.ifname.clone()).collect(),
        attach: attach
            .map(|(selection, begun)| Wanted {
                selection: selection.clone(),
                begun: begun.map(|made| made.ifname.clone()),
            })
            .collect(),
    }
}

/// Whether a network is what a selection wants.
fn is(made: &Made, wanted: &Selection) -> bool {
    let plain = |selection: &Selection| Selection { interface: None, ..selection.clone() };
    let named = wanted.interface.as_ref().is_none_or(|name| *name == made.ifname);
    named && made.asked.as_ref().is_some_and(|asked| plain(asked) == plain(wanted))
}

#[cfg(test)]
mod tests {
    use nsm_npwg::NETWORKS;

    use super::*;

    fn made(ifname: &str, asked: Option<&str>) -> Made {
        let asked = asked.map(|text| Selection::parse(NETWORKS, text).unwrap().remove(0));
        Made {
            name: "n".into(),
            ifname: ifname.into(),
            default: asked.is_none(),
            entries: Vec::new(),
            asked,
            device: None,
            stage: Stage::Made,
        }
    }

    fn change(made: &[Made], wanted: &str) -> (Vec<String>, Vec<String>) {
        let wanted = if wanted.is_empty() { Vec::new() } else { Selection::parse(NETWORKS, wanted).unwrap() };
        let Difference { detach, attach } = difference(made, &wanted);
        let one = |one: Wanted| {
            one.begun.map_or(one.selection.name.clone(), |begun| format!("{}@{begun}", one.selection.name))
        };
        (detach, attach.into_iter().map(one).collect())
    }

    #[test]
    fn only_what_differs() {
        let has = [made("eth0", None), made("net1", Some("a")), made("net2", Some("b")), made("x", Some("a@x"))];
        let nothing = (vec![], vec![]);
        assert_eq!(change(&has, "a,b,a@x"), nothing);
        assert_eq!(change(&has, "a@x,a,b"), nothing, "the order does not matter");
        assert_eq!(change(&has, "b,a@net1,a"), nothing, "nor whether the name is said");
        assert_eq!(change(&has, ""), (vec!["net1".into(), "net2".into(), "x".into()], vec![]));
        assert_eq!(change(&has, "a,b"), (vec!["x".into()], vec![]), "the first one serves");
        assert_eq!(change(&has, "a,b,a@x,c"), (vec![], vec!["c".into()]));
        assert_eq!(change(&has, "a@y,b,a@x"), (vec!["net1".into()], vec!["a".into()]));
        assert_eq!(change(&[made("eth0", None)], "a"), (vec![], vec!["a".into()]));
    }

    #[test]
    fn what_is_asked_otherwise_is_made_anew() {
        let has = [made("net1", Some(r#"[{"name": "a", "ips": ["10.0.0.1"]}]"#))];
        assert_eq!(change(&has, r#"[{"name": "a", "ips": ["10.0.0.1"]}]"#), (vec![], vec![]));
        assert_eq!(change(&has, r#"[{"name": "a", "ips": ["10.0.0.2"]}]"#), (vec!["net1".into()], vec!["a".into()]));
    }

    #[test]
    fn what_was_begun_is_ended() {
        let at = |stage: Stage, ifname: &str, asked: &str| Made { stage, ..made(ifname, Some(asked)) };
        let coming = [made("eth0", None), at(Stage::Coming, "net1", "a")];
        assert_eq!(change(&coming, "a"), (vec![], vec!["a@net1".into()]), "under the name that it may have");
        assert_eq!(change(&coming, "b"), (vec!["net1".into()], vec!["b".into()]));
        assert_eq!(change(&coming, ""), (vec!["net1".into()], vec![]));
        assert_eq!(change(&coming, "a@x"), (vec!["net1".into()], vec!["a".into()]));
        let leaving = [at(Stage::Leaving, "net1", "a")];
        assert_eq!(change(&leaving, "a"), (vec![], vec!["a@net1".into()]), "it may be there, untouched");
        assert_eq!(change(&leaving, "a@x"), (vec!["net1".into()], vec!["a".into()]));
        let both = [at(Stage::Coming, "net1", "a"), at(Stage::Made, "net2", "a")];
        assert_eq!(change(&both, "a"), (vec!["net1".into()], vec![]), "what is there serves");
        assert_eq!(change(&both, "a,a"), (vec![], vec!["a@net1".into()]));
    }
}
