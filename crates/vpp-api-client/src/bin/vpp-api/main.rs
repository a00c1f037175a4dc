//! `vpp-api`: any message of a running VPP from the command line, its events, its statistics.
//!
//! Results go to standard output, one JSON value a line; everything else goes to standard error. Exit code 0: done; 1: VPP did not do it; 2: the command
//! line is wrong.

mod arguments;
mod run;
mod watch;

use std::io::{self, Read};
use std::process::ExitCode;

use arguments::{Arguments, USAGE, Wanted};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1), input) {
        Ok(Wanted::Done(arguments)) => arguments,
        Ok(Wanted::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Wanted::Version) => {
            println!("vpp-api {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("vpp-api: {problem}\nvpp-api --help tells how it is called");
            return ExitCode::from(2);
        }
    };
    match run::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        // `vpp-api … | head`: who wanted this has enough.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vpp-api: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Standard input, of which nobody means more than this.
fn input() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(16 << 20).read_to_string(&mut text)?;
    Ok(text)
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
