//! The commands of the documents, as they stand there, and who runs them.

use std::fs;
use std::io::{self, Read, Seek};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use nsm_lab::runner::ended;
use nsm_lab::{Program, binary};

use crate::agent::OPERATOR;
use crate::machine::Machine;
use crate::mesh::Mesh;
use crate::pods::file;

/// What a shell is given of a document, and what the document says it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Of root on a node (`#`), or of somebody with access to the cluster (`$`).
    pub on_a_node: bool,
    /// The command, less the comment behind it.
    pub command: String,
    /// Its output, where the document shows it.
    pub shows: String,
}

impl Line {
    /// What no document says.
    pub fn of_root(command: &str) -> Self {
        Self { on_a_node: true, command: command.to_owned(), shows: String::new() }
    }
}

/// The commands of one section (by its heading), those of each block by themselves.
pub fn blocks(path: &str, heading: &str) -> anyhow::Result<Vec<Vec<Line>>> {
    let text = text(path)?;
    let section = section(&text, heading).with_context(|| format!("{path} has no section {heading:?}"))?;
    let consoles = section.split("\n```console\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    Ok(consoles.map(lines).collect())
}

/// A command within a sentence, which has it between back-ticks.
pub fn mentioned(path: &str, command: &str) -> anyhow::Result<Line> {
    ensure!(text(path)?.contains(&format!("`{command}`")), "{path} does not mention {command:?}");
    Ok(Line { on_a_node: false, command: command.to_owned(), shows: String::new() })
}

fn text(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(file(path)?).with_context(|| path.to_owned())
}

/// The first block of a language of a section.
pub fn example(path: &str, heading: &str, language: &str) -> anyhow::Result<String> {
    let text = text(path)?;
    let section = section(&text, heading).with_context(|| format!("{path} has no section {heading:?}"))?;
    let block = section.split(&format!("\n```{language}\n")).nth(1).and_then(|rest| rest.split("\n```").next());
    block.map(str::to_owned).with_context(|| format!("{heading:?} of {path} has no {language}"))
}

/// What stands under a heading, up to the next one. A `#` in a block is a prompt.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let (mut quoted, mut at, mut begin) = (false, 0, None);
    for line in text.split_inclusive('\n') {
        quoted ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !quoted && title.len() < line.len() {
            if let Some(begin) = begin {
                return Some(&text[begin..at]);
            }
            if title.trim() == heading {
                begin = Some(at);
            }
        }
        at += line.len();
    }
    begin.map(|begin| &text[begin..])
}

/// What follows a prompt is a command, what follows a command its output.
fn lines(block: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for text in block.lines() {
        let (on_a_node, words) = match (text.strip_prefix("# "), text.strip_prefix("$ ")) {
            (Some(words), _) => (true, words),
            (None, Some(words)) => (false, words),
            (None, None) => {
                lines.last_mut().into_iter().for_each(|line| line.shows.extend([text, "\n"]));
                continue;
            }
        };
        let command = words.split_once(" #").map_or(words, |(command, _)| command).trim_end().to_owned();
        lines.push(Line { on_a_node, command, shows: String::new() });
    }
    lines
}

/// For one command: agents that are replaced one after the other, on a busy machine.
const TYPED: Duration = Duration::from_mins(2);

impl Mesh {
    /// Runs a block as an administrator with this repository before them; what they see.
    pub fn follow(&self, block: &[Line]) -> anyhow::Result<String> {
        let mut seen = String::new();
        for line in block {
            ensure!(!line.on_a_node, "{:?} is for a node", line.command);
            let mut shell = shell(&line.command)?;
            shell.env("KUBECONFIG", self.cluster().file("admin.conf")).env("HOME", self.cluster().file(""));
            shell.current_dir(file("")?);
            let typed = typed(line, &mut shell, |shell| self.cluster().namespace().run(|| shell.spawn()));
            seen += &typed.map_err(|error| anyhow!("{error:#}\n{}", self.agents_log()))?;
        }
        Ok(seen)
    }
}

/// Root on a machine, in a folder of theirs that has `deploy/` in it.
#[derive(Debug)]
pub struct Desk<'a> {
    machine: &'a Machine,
    dir: PathBuf,
    exported: String,
    started: usize,
}

impl<'a> Desk<'a> {
    /// Sits down.
    pub fn at(machine: &'a Machine) -> anyhow::Result<Self> {
        let dir = machine.place().dir().join("desk");
        if !dir.exists() {
            fs::create_dir_all(dir.join("bin"))?;
            symlink(file("deploy")?, dir.join("deploy"))?;
            // One of them is on every node.
            symlink("/bin/busybox", dir.join("bin/ping"))?;
        }
        Ok(Self { machine, dir, exported: String::new(), started: 0 })
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.dir.join(name), text).with_context(|| name.to_owned())
    }

    /// Runs a block; what they see. `export` is for the commands behind it.
    pub fn follow(&mut self, block: &[Line]) -> anyhow::Result<String> {
        let mut seen = String::new();
        for line in block {
            let mut shell = self.shell(line)?;
            seen += &typed(line, &mut shell, |shell| self.machine.place().run(|| shell.spawn()))?;
            if line.command.starts_with("export ") {
                self.exported.extend([&line.command, "\n"]);
            }
        }
        Ok(seen)
    }

    /// Starts what does not end by itself, with variables of the machine's own.
    pub fn start(&mut self, line: &Line, variables: &[(&str, &str)]) -> anyhow::Result<Program> {
        // In the place of the shell, which would end without it. `env` takes what may stand before a command.
        let mut shell = self.shell(&Line { command: format!("exec env {}", line.command), ..line.clone() })?;
        self.started += 1;
        self.machine.place().start(&format!("typed-{}", self.started), shell.envs(variables.iter().copied()))
    }

    fn shell(&self, line: &Line) -> anyhow::Result<Command> {
        ensure!(line.on_a_node, "{:?} is for no node", line.command);
        let mut shell = shell(&format!("{}{}", self.exported, line.command))?;
        shell.current_dir(&self.dir).env("KUBECONFIG", OPERATOR).env("HOME", &self.dir);
        Ok(shell)
    }
}

/// A shell that finds our programs and the tools before what the system may have of the same name.
fn shell(words: &str) -> anyhow::Result<Command> {
    let programs = binary("nsmctl")?;
    let programs = programs.parent().context("programs are in a directory")?;
    let tools = fs::canonicalize(nsm_peers::tools::dir()?)?;
    let mut shell = Command::new("/bin/sh");
    let path = format!("{}:{}:/usr/bin:/bin:/usr/sbin:/sbin:bin", programs.display(), tools.display());
    shell.env_clear().env("PATH", path).arg("-c").arg(words);
    Ok(shell)
}

/// Runs a command to its end, within [`TYPED`]; what it printed, in the order of a terminal: what the document shows, if it does.
fn typed(
    Line { command: words, shows, .. }: &Line,
    shell: &mut Command,
    spawn: impl FnOnce(&mut Command) -> anyhow::Result<io::Result<Child>>,
) -> anyhow::Result<String> {
    let began = Instant::now();
    let mut screen = tempfile::tempfile()?;
    // A group, so that what the shell has started ends with it.
    shell.stdin(Stdio::null()).stdout(screen.try_clone()?).stderr(screen.try_clone()?).process_group(0);
    let mut child = spawn(shell)?.with_context(|| words.clone())?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let status = ended(&mut child, TYPED)?;
    if status.is_none() {
        killpg(group, Signal::SIGKILL).ok();
    }
    let mut seen = Vec::new();
    screen.rewind()?;
    screen.read_to_end(&mut seen)?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    match status {
        Some(status) if status.success() => {
            let same = shows.is_empty() || seen.lines().map(str::trim_end).eq(shows.lines().map(str::trim_end));
            ensure!(same, "`{words}` prints\n{seen}\nwhere the document shows\n{shows}");
            eprintln!("{:5.1} s  {words}", began.elapsed().as_secs_f32());
            Ok(seen)
        }
        Some(status) => bail!("`{words}`: {status}\n{seen}"),
        None => bail!("`{words}` does not end within {TYPED:?}; so far it printed:\n{seen}"),
    }
}
