//! `nsmctl plan`: what attaching a pod would do.

use std::io::Write;

use nsm_proto::admin::PlanRequest;
use serde_json::json;

use crate::{
    agent::Agent,
    cli::{self, Format},
    describe,
    error::Error,
    output,
};

/// Writes the steps; fails when there are problems.
pub(crate) async fn run(agent: &Agent, args: &cli::Plan, out: &mut impl Write) -> Result<(), Error> {
    let request = PlanRequest {
        network_service: args.service.clone(),
        labels: args.labels.iter().cloned().collect(),
        mechanism: args.mechanism.clone(),
        ifname: args.ifname.clone(),
        netns_path: args.netns.clone(),
    };
    let plan = agent.connect().await?.plan(agent.request(request)).await?.into_inner();
    let value = || {
        let explanation = plan.explanation.as_ref().map(describe::as_value);
        json!({ "steps": plan.steps, "problems": plan.problems, "explanation": explanation })
    };
    match args.output {
        Format::Json => output::json(&value(), out)?,
        Format::Yaml => output::yaml(&value(), out)?,
        Format::Table | Format::Wide | Format::Name => {
            for (at, step) in plan.steps.iter().enumerate() {
                writeln!(out, "{:>3}. {step}", at + 1)?;
            }
            if args.output == Format::Wide
                && let Some(explanation) = &plan.explanation
            {
                writeln!(out)?;
                describe::write_explanation(explanation, None, out)?;
            }
            for problem in &plan.problems {
                writeln!(out, "problem: {problem}")?;
            }
            if plan.problems.is_empty() {
                writeln!(out, "no problem seen; the endpoint itself was not asked")?;
            }
        }
    }
    if plan.problems.is_empty() { Ok(()) } else { Err(Error::Findings) }
}
