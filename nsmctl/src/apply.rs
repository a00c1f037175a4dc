//! `nsmctl apply`: all documents are read before the first is applied.

use std::{
    io::{Read, Write},
    path::Path,
};

use nsm_objects::Object;
use tonic::Code;

use crate::{agent::Agent, cli, error::Error, kind::Kind, object};

/// Applies every object, in the order of the documents.
pub(crate) async fn run(agent: &Agent, args: &cli::Apply, out: &mut impl Write) -> Result<(), Error> {
    let objects = read_all(&args.file)?;
    let mut client = agent.connect().await?;
    for object in objects {
        let name = Kind::of(&object).qualified(object.name());
        let applied = match object {
            Object::Service(service) => {
                let plain = service.access.is_default().then(|| service.message.clone());
                match (client.apply_service(agent.request(object::sent(service))).await, plain) {
                    // An older agent, which knows no access.
                    (Err(status), Some(plain)) if status.code() == Code::Unimplemented => {
                        client.apply_network_service(agent.request(plain)).await
                    }
                    (applied, _) => applied,
                }
            }
            Object::Endpoint(endpoint) => client.apply_endpoint(agent.request(endpoint)).await,
        };
        let applied = applied.map_err(|status| match Error::from(status) {
            Error::Refused(why) => Error::Refused(format!("{name}: {why}")),
            other => other,
        })?;
        let applied = applied.into_inner();
        let done = match (applied.created, applied.changed) {
            (true, _) => "created",
            (false, true) => "configured",
            (false, false) => "unchanged",
        };
        writeln!(out, "{name} {done}")?;
    }
    Ok(())
}

/// The objects of all files.
pub(crate) fn read_all(files: &[impl AsRef<Path>]) -> Result<Vec<Object>, Error> {
    let mut objects = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        let text = read(path).map_err(|error| Error::Read { path: path.to_owned(), error })?;
        let parsed = nsm_objects::parse(&text);
        objects.extend(parsed.map_err(|error| Error::Manifest { source_name: path.display().to_string(), error })?);
    }
    Ok(objects)
}

fn read(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}
