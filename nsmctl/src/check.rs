//! `nsmctl check`: what would keep the agent from working, each finding with its fix. Works without an agent too.

mod cni;
mod kernel;
mod moving;
mod paths;
mod versions;

use std::io::Write;

use nsm_proto::admin::{Finding, InfoRequest, InfoResponse, SelfTestRequest, finding::Level};
use serde_json::json;

use crate::{
    agent::Agent,
    cli::{self, Format},
    error::Error,
    output,
};

/// Writes all findings; fails when one is an error.
pub(crate) async fn run(agent: &Agent, args: &cli::Check, out: &mut impl Write) -> Result<(), Error> {
    if args.moving {
        return told(&moving::all(args)?, args, out);
    }
    let mut findings = vec![paths::privileges()];
    let info = ask(agent, &mut findings).await;
    let version = info.as_ref().map(|info| info.version.as_str());
    let plugin = cni::plugin(args, info.as_ref());
    findings.push(versions::of_installed(&plugin, version).await);
    findings.push(cni::directory(args, info.as_ref(), &plugin));
    findings.push(paths::private_socket(&agent.socket));
    let (nsm_socket, state_dir, run_dir) = match &info {
        Some(info) => ((&info.nsm_socket).into(), (&info.state_dir).into(), (&info.run_dir).into()),
        None => (args.paths.nsm_socket.clone(), args.paths.state_dir.clone(), args.paths.run_dir.clone()),
    };
    findings.push(paths::socket("nsm socket", &nsm_socket));
    findings.push(cni::one_agent(&agent.socket, &nsm_socket));
    findings.push(paths::directory("state directory", &state_dir));
    findings.push(paths::directory("run directory", &run_dir));
    findings.extend(kernel::all());
    told(&findings, args, out)
}

fn told(findings: &[Finding], args: &cli::Check, out: &mut impl Write) -> Result<(), Error> {
    write(findings, args.output, out)?;
    if findings.iter().any(|finding| finding.level() == Level::Error) { Err(Error::Findings) } else { Ok(()) }
}

/// What the agent says about itself.
async fn ask(agent: &Agent, findings: &mut Vec<Finding>) -> Option<InfoResponse> {
    let fix = "start nsm-agent (systemctl start nsm-agent), or name its socket with --cni-socket";
    let told = |status: tonic::Status| Error::from(status).at(&agent.socket).to_string();
    let mut client = match agent.connect().await {
        Ok(client) => client,
        Err(error) => {
            findings.push(bad("agent", &error.to_string(), fix));
            return None;
        }
    };
    let info = match client.info(agent.request(InfoRequest {})).await {
        Ok(info) => info.into_inner(),
        Err(status) => {
            findings.push(bad("agent", &told(status), fix));
            return None;
        }
    };
    let running = format!(
        "version {} on node {}, process {}, registry {}",
        info.version, info.node_name, info.pid, info.registry
    );
    findings.push(good("agent", &running));
    findings.push(versions::of_agent(&info.version));
    findings.push(versions::of_callers(&info));
    match client.self_test(agent.request(SelfTestRequest {})).await {
        Ok(test) => findings.extend(test.into_inner().findings),
        Err(status) => findings.push(bad("self-test", &told(status), "look into the agent's log")),
    }
    Some(info)
}

fn write(findings: &[Finding], format: Format, out: &mut impl Write) -> Result<(), Error> {
    let word = |finding: &Finding| match finding.level() {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let value = || {
        let all = findings.iter().map(|finding| {
            json!({ "level": word(finding), "subject": finding.subject, "detail": finding.detail, "fix": finding.fix })
        });
        json!({ "findings": all.collect::<Vec<_>>() })
    };
    match format {
        Format::Json => output::json(&value(), out)?,
        Format::Yaml => output::yaml(&value(), out)?,
        Format::Table | Format::Wide | Format::Name => {
            let mut lines = Vec::new();
            for finding in findings {
                lines.push(vec![word(finding).to_owned(), finding.subject.clone(), finding.detail.clone()]);
                if !finding.fix.is_empty() {
                    lines.push(vec![String::new(), String::new(), format!("fix: {}", finding.fix)]);
                }
            }
            output::table(None, &lines, out)?;
        }
    }
    Ok(())
}

fn finding(level: Level, subject: &str, detail: &str, fix: &str) -> Finding {
    Finding { level: level.into(), subject: subject.to_owned(), detail: detail.to_owned(), fix: fix.to_owned() }
}

fn good(subject: &str, detail: &str) -> Finding {
    finding(Level::Ok, subject, detail, "")
}

fn bad(subject: &str, detail: &str, fix: &str) -> Finding {
    finding(Level::Error, subject, detail, fix)
}
