//! STATUS and VERSION.

use anyhow::ensure;
use nsm_lab::Node;

use crate::SERVICE;

pub(crate) fn of_an_agent_that_serves() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    // A service without endpoints is no failure.
    node.cni().status(&node.conf(SERVICE))?.ok()?;
    let mut old = node.conf(SERVICE);
    old["cniVersion"] = "1.0.0".into();
    node.cni().status(&old)?.refused(1)?;
    Ok(())
}

pub(crate) fn of_no_agent() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let status = node.cni().status(&node.conf(SERVICE))?;
    ensure!(
        status.exit != 0 && [50, 51].contains(&status.json["code"].as_i64().unwrap_or_default()),
        "{}",
        status.json
    );
    Ok(())
}

pub(crate) fn version_needs_no_agent() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let version = node.cni().version()?.ok()?;
    let supported = version.json["supportedVersions"].as_array().cloned().unwrap_or_default();
    for wanted in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        ensure!(supported.iter().any(|version| version == wanted), "{wanted} is not in {}", version.json);
    }
    Ok(())
}
