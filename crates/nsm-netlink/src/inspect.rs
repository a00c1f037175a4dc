//! What of a [`LinkConfig`] is not so in the kernel: findings for people, one sentence each.

use crate::change::has_neighbour;
use crate::{Error, IfIndex, LinkConfig, LinkState, Mac, NetnsSocket};

impl NetnsSocket {
    /// Compares a link with its configuration. No findings: it is as configured. What the link has beyond that does not matter.
    ///
    /// # Errors
    /// Only when the kernel cannot be asked; a link that is missing is a finding.
    pub fn inspect(&mut self, index: IfIndex, mac: Mac, config: &LinkConfig) -> Result<Vec<String>, Error> {
        let Some(link) = self.link(index)? else {
            return Ok(vec![format!("interface {index} does not exist")]);
        };
        let mut findings = link_findings(&link, mac, config);
        let name = &link.name;

        let addresses = self.addresses()?;
        for wanted in &config.addresses {
            match addresses.iter().find(|found| found.index == index && found.network == *wanted) {
                None => findings.push(format!("address {wanted} is missing on {name}")),
                Some(found) if found.tentative => {
                    findings.push(format!("address {wanted} on {name} is not usable yet"));
                }
                Some(_) => {}
            }
        }
        if !config.routes.is_empty() {
            let routes = self.routes_through(Some(index))?;
            let missing =
                config.routes.iter().filter(|wanted| !routes.iter().any(|found| wanted.is_met_by(&found.route)));
            findings.extend(missing.map(|route| format!("route {route} through {name} is missing")));
        }
        if !config.neighbours.is_empty() {
            let known = self.neighbours()?;
            let missing =
                config.neighbours.iter().filter(|wanted| !has_neighbour(&known, index, wanted.ip, wanted.mac));
            findings.extend(missing.map(|neighbour| format!("neighbour {neighbour} on {name} is missing")));
        }
        if !config.rules.is_empty() {
            let rules = self.rules()?;
            let missing = config.rules.iter().filter(|wanted| !rules.iter().any(|found| wanted.is_met_by(found)));
            findings.extend(missing.map(|rule| format!("rule {rule} is missing")));
        }
        Ok(findings)
    }
}

fn link_findings(link: &LinkState, mac: Mac, config: &LinkConfig) -> Vec<String> {
    let name = &link.name;
    let mut findings = Vec::new();
    if link.mac != Some(mac) {
        let found = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        findings.push(format!("{name} has Ethernet address {found}; expected {mac}"));
    }
    if config.alias.is_some() && link.alias != config.alias {
        findings.push(format!(
            "{name} has alias {:?}; expected {:?}",
            link.alias.as_deref().unwrap_or(""),
            config.alias.as_deref().unwrap_or("")
        ));
    }
    if let Some(mtu) = config.mtu.filter(|mtu| mtu.get() != link.mtu) {
        findings.push(format!("{name} has MTU {}; expected {mtu}", link.mtu));
    }
    match (config.up, link.up, link.running) {
        (true, false, _) => findings.push(format!("{name} is down; expected up")),
        (true, true, false) => findings.push(format!("{name} is up, but its other end is not")),
        (true, true, true) | (false, _, _) => {}
    }
    findings
}
