//! `nsmctl describe`: one object and everything about it.

use std::io::Write;

use nsm_proto::admin::{ExplainRequest, Explanation};
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    cli::{self, Format},
    error::Error,
    get,
    kind::Kind,
    labels, object, output, rows,
};

/// Describes one object.
pub(crate) async fn run(agent: &Agent, args: &cli::Describe, out: &mut impl Write) -> Result<(), Error> {
    let mut named = Kind::with_names(&args.kind, args.name.as_slice())?.into_iter();
    let (Some((kind, name)), None) = (named.next(), named.next()) else {
        return Err(Error::Usage("describe one: nsmctl describe KIND NAME, or KIND/NAME".to_owned()));
    };
    if kind != Kind::Service && !args.labels.is_empty() {
        return Err(Error::Usage("--labels are those of a client that asks for a network service".to_owned()));
    }
    let mut client = agent.connect().await?;
    if kind == Kind::Service {
        let labels = args.labels.iter().cloned().collect();
        let request = agent.request(ExplainRequest { network_service: name.clone(), labels });
        let explanation = match client.explain(request).await {
            Ok(explanation) => explanation.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(Error::NotFound { what: kind.singular(), name: name.clone() });
            }
            Err(status) => return Err(status.into()),
        };
        return match args.output {
            Format::Json => Ok(output::json(&as_value(&explanation), out)?),
            Format::Yaml => Ok(output::yaml(&as_value(&explanation), out)?),
            Format::Table | Format::Wide | Format::Name => {
                let of = labels::joined(&args.labels.iter().cloned().collect());
                Ok(write_explanation(&explanation, Some(&of), out)?)
            }
        };
    }
    let event = get::list(agent, &mut client, kind, &name).await?;
    let listed = rows::listed(&event).into_iter().find(|listed| listed.name == name);
    let listed = listed.ok_or_else(|| Error::NotFound { what: kind.singular(), name: name.clone() })?;
    match args.output {
        Format::Json => output::json(&listed.object, out)?,
        Format::Yaml => output::yaml(&listed.object, out)?,
        Format::Table | Format::Wide | Format::Name => {
            let lines = rows::headings(kind).0.iter().zip(&listed.row);
            let lines: Vec<_> = lines.map(|(heading, cell)| vec![format!("{heading}:"), cell.clone()]).collect();
            output::table(None, &lines, out)?;
            writeln!(out)?;
            output::yaml(&listed.object["spec"], out)?;
            if let Some(why) = listed.object["status"]["reason"].as_str().filter(|why| !why.is_empty()) {
                writeln!(out, "\nnot reachable: {why}")?;
            }
        }
    }
    Ok(())
}

/// An explanation for programs.
pub(crate) fn as_value(explanation: &Explanation) -> Value {
    let matches = explanation.matches.iter().map(|found| json!({ "selected": found.selected, "reason": found.reason }));
    let endpoints = explanation.endpoints.iter().map(|endpoint| {
        json!({
            "name": endpoint.name, "candidate": endpoint.candidate, "reason": endpoint.reason, "weight": endpoint.weight,
        })
    });
    json!({
        "network_service": explanation.network_service.as_ref().map(|found| object::service(found, explanation.access.as_ref())),
        "matches": matches.collect::<Vec<_>>(),
        "decided_by": explanation.decided_by,
        "endpoints": endpoints.collect::<Vec<_>>(),
        "summary": explanation.summary,
    })
}

/// An explanation for people.
pub(crate) fn write_explanation(
    explanation: &Explanation,
    client: Option<&str>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    if let Some(service) = &explanation.network_service {
        let mut lines =
            vec![vec!["Name:".to_owned(), service.name.clone()], vec!["Payload:".to_owned(), service.payload.clone()]];
        if let Some(access) = &explanation.access {
            lines.push(vec!["Clients' namespaces:".to_owned(), rows::namespaces(access.clients.as_ref())]);
            lines.push(vec!["Endpoints' namespaces:".to_owned(), rows::namespaces(access.endpoints.as_ref())]);
        }
        if let Some(client) = client {
            lines.push(vec!["Client labels:".to_owned(), client.to_owned()]);
        }
        output::table(None, &lines, out)?;
        if !service.matches.is_empty() {
            writeln!(out, "\nMatches:")?;
        }
        let mut lines = Vec::new();
        for (at, (found, verdict)) in service.matches.iter().zip(&explanation.matches).enumerate() {
            let to = found.routes.iter().map(|route| match route.weight {
                0 => labels::joined(&route.destination_selector),
                weight => format!("{} (weight {weight})", labels::joined(&route.destination_selector)),
            });
            let to = to.collect::<Vec<_>>().join(" or ");
            lines.push(vec![
                format!("  {}{at}", if verdict.selected { "* " } else { "  " }),
                format!("from {}", labels::joined(&found.source_selector)),
                format!("to {}", if to.is_empty() { "-" } else { &to }),
                verdict.reason.clone(),
            ]);
        }
        output::table(None, &lines, out)?;
    }
    if !explanation.endpoints.is_empty() {
        writeln!(out, "\nEndpoints:")?;
    }
    let lines = explanation.endpoints.iter().map(|endpoint| {
        let mark = if endpoint.candidate { "  * " } else { "    " };
        vec![format!("{mark}{}", endpoint.name), endpoint.reason.clone()]
    });
    output::table(None, &lines.collect::<Vec<_>>(), out)?;
    writeln!(out, "\n{}", explanation.summary)
}
