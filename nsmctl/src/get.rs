//! `nsmctl get`: lists and watches.

use std::{collections::BTreeMap, io::Write};

use nsm_proto::admin::{ListRequest, WatchEvent, WatchRequest, admin_client::AdminClient};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

use crate::{
    agent::Agent,
    cli::{self, Format},
    error::Error,
    kind::Kind,
    output,
    rows::{self, Listed},
};

/// Least width of a watch's columns: it knows its first rows only.
const WATCHED: usize = 16;

/// Writes what there is, and with `--watch` what it becomes.
pub(crate) async fn run(agent: &Agent, args: &cli::Get, out: &mut impl Write) -> Result<(), Error> {
    let named = Kind::with_names(&args.kind, &args.names)?;
    let kind = named.first().map_or_else(|| args.kind.parse(), |(kind, _)| Ok(*kind))?;
    if named.iter().any(|(other, _)| *other != kind) {
        return Err(Error::Usage("get takes objects of one kind at a time".to_owned()));
    }
    let args = &cli::Get { names: named.into_iter().map(|(_, name)| name).collect(), ..args.clone() };
    let mut client = agent.connect().await?;
    if args.watch {
        return watch(&mut client, kind, args, out).await;
    }
    let listed = wanted(rows::listed(&list(agent, &mut client, kind, "").await?), kind, &args.names)?;
    if listed.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        eprintln!("no {}s", kind.singular());
        return Ok(());
    }
    write(kind, &listed, args, !args.no_headers, out)
}

/// The list of a kind.
pub(crate) async fn list(
    agent: &Agent,
    client: &mut AdminClient<Channel>,
    kind: Kind,
    name: &str,
) -> Result<WatchEvent, Error> {
    let request = agent.request(ListRequest { name: name.to_owned() });
    let mut event = WatchEvent::default();
    match kind {
        Kind::Service => event.network_services = Some(client.list_network_services(request).await?.into_inner()),
        Kind::Endpoint => event.endpoints = Some(client.list_endpoints(request).await?.into_inner()),
        Kind::Connection => event.connections = Some(client.list_connections(request).await?.into_inner()),
    }
    Ok(event)
}

fn wanted(listed: Vec<Listed>, kind: Kind, names: &[String]) -> Result<Vec<Listed>, Error> {
    if let Some(name) = names.iter().find(|name| !listed.iter().any(|listed| listed.name == **name)) {
        return Err(Error::NotFound { what: kind.singular(), name: name.clone() });
    }
    Ok(listed.into_iter().filter(|listed| names.is_empty() || names.contains(&listed.name)).collect())
}

fn write(kind: Kind, listed: &[Listed], args: &cli::Get, headings: bool, out: &mut impl Write) -> Result<(), Error> {
    let whole = || -> Value {
        match listed {
            [one] if args.names.len() == 1 => one.object.clone(),
            all => nsm_objects::list(&all.iter().map(|listed| listed.object.clone()).collect::<Vec<_>>()),
        }
    };
    let (all, narrow) = rows::headings(kind);
    let table = |columns: usize, out| {
        let rows: Vec<Vec<String>> = listed.iter().map(|listed| listed.row[..columns].to_vec()).collect();
        let least: Vec<usize> =
            if args.watch { all.iter().map(|heading| heading.len().max(WATCHED)).collect() } else { Vec::new() };
        output::wide_table(&least, headings.then_some(&all[..columns]), &rows, out)
    };
    match args.output {
        Format::Table => table(narrow, out)?,
        Format::Wide => table(all.len(), out)?,
        Format::Json => output::json(&whole(), out)?,
        Format::Yaml => output::yaml(&whole(), out)?,
        Format::Name => {
            for listed in listed {
                writeln!(out, "{}", kind.qualified(&listed.name))?;
            }
        }
    }
    Ok(())
}

/// Each object at first and whenever it changed. What is gone is named on standard error, so that output stays a list.
async fn watch(
    client: &mut AdminClient<Channel>,
    kind: Kind,
    args: &cli::Get,
    out: &mut impl Write,
) -> Result<(), Error> {
    let request = WatchRequest { kind: kind.wire(), name: String::new() };
    let mut events = client.watch(request).await?.into_inner();
    let mut seen = BTreeMap::<String, Value>::new();
    let mut headings = !args.no_headers;
    while let Some(event) = events.next().await {
        let mut listed = rows::listed(&event?);
        listed.retain(|listed| args.names.is_empty() || args.names.contains(&listed.name));
        for name in seen.keys().filter(|name| !listed.iter().any(|listed| listed.name == **name)) {
            eprintln!("{} deleted", kind.qualified(name));
        }
        let changed: Vec<Listed> =
            listed.iter().filter(|listed| seen.get(&listed.name) != Some(&listed.object)).cloned().collect();
        seen = listed.into_iter().map(|listed| (listed.name, listed.object)).collect();
        match args.output {
            Format::Json | Format::Yaml => {
                for one in &changed {
                    if args.output == Format::Yaml {
                        writeln!(out, "---")?;
                        output::yaml(&one.object, out)?;
                    } else {
                        output::json(&one.object, out)?;
                    }
                }
            }
            Format::Table | Format::Wide | Format::Name => {
                if headings || !changed.is_empty() {
                    write(kind, &changed, args, headings, out)?;
                }
                headings = false;
            }
        }
        out.flush()?;
    }
    Ok(())
}
