//! Round robin: whose turn it is at one match, over all that fit, or per route as often as weights say.

use std::sync::Arc;

use super::{Route, selectors};
use crate::registry::{
    Entry,
    offers::{Offers, Selector},
};

/// Whose turn it is at one match.
#[derive(Debug, Default, Clone)]
pub(crate) struct Turn {
    /// Place of the endpoint that was chosen last, of all routes and per route.
    last: u64,
    per_route: Vec<RouteTurn>,
}

#[derive(Debug, Default, Clone)]
struct RouteTurn {
    last: u64,
    credit: i64,
}

impl Turn {
    /// The endpoint whose turn it is.
    pub(super) fn next(&mut self, offers: &Offers, routes: &[Route]) -> Option<Arc<Entry>> {
        let chosen = if routes.iter().any(|route| route.weight > 0) {
            self.weighted(offers, routes)
        } else {
            round(offers, || selectors(routes), self.last).cloned()
        };
        if let Some(chosen) = &chosen {
            self.last = chosen.place();
        }
        chosen
    }

    /// Every route with an endpoint gains its weight; the richest pays what all gained.
    fn weighted(&mut self, offers: &Offers, routes: &[Route]) -> Option<Arc<Entry>> {
        self.per_route.resize(routes.len(), RouteTurn::default());
        let mut gained = 0;
        let mut richest: Option<usize> = None;
        for (at, route) in routes.iter().enumerate() {
            if offers.next([&route.selector], 0).is_none() {
                continue;
            }
            let weight = i64::from(route.weight.max(1));
            gained += weight;
            self.per_route[at].credit += weight;
            if richest.is_none_or(|richest| self.per_route[at].credit > self.per_route[richest].credit) {
                richest = Some(at);
            }
        }
        let at = richest?;
        let turn = &mut self.per_route[at];
        turn.credit -= gained;
        let chosen = round(offers, || [&routes[at].selector], turn.last)?.clone();
        turn.last = chosen.place();
        Some(chosen)
    }
}

/// The next after `last`, or the first.
fn round<'a, 'o, I: IntoIterator<Item = &'a Selector>>(
    offers: &'o Offers,
    selectors: impl Fn() -> I,
    last: u64,
) -> Option<&'o Arc<Entry>> {
    offers.next(selectors(), last + 1).or_else(|| offers.next(selectors(), 0))
}
