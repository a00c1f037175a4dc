//! `nsmctl delete`.

use std::io::Write;

use nsm_proto::admin::DeleteRequest;

use crate::{agent::Agent, apply, cli, error::Error, kind::Kind};

/// Deletes what the command line or the documents name.
pub(crate) async fn run(agent: &Agent, args: &cli::Delete, out: &mut impl Write) -> Result<(), Error> {
    let mut doomed: Vec<(Kind, String)> = Vec::new();
    if let Some(kind) = &args.kind {
        doomed = Kind::with_names(kind, &args.names)?;
    }
    for object in apply::read_all(&args.file)? {
        doomed.push((Kind::of(&object), object.name().to_owned()));
    }
    if doomed.is_empty() {
        return Err(Error::Usage("what to delete? nsmctl delete KIND NAME, or -f FILE".to_owned()));
    }
    let mut client = agent.connect().await?;
    for (kind, name) in doomed {
        let request = agent.request(DeleteRequest { kind: kind.wire(), name: name.clone() });
        match client.delete(request).await {
            Ok(_) => writeln!(out, "{} deleted", kind.qualified(&name))?,
            Err(status) if status.code() == tonic::Code::NotFound && args.ignore_not_found => {}
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(Error::NotFound { what: kind.singular(), name });
            }
            Err(status) => return Err(status.into()),
        }
    }
    Ok(())
}
