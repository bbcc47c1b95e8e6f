//! The most frequent lines of a file, found as a shell finds them: `sort <FILE | uniq -c | sort -rn | head -n N`. Four
//! programs, with three pipes between them that this process holds no end of.
//!
//! The last one prints to stdout. The status of each is printed to stderr; a shell keeps these to itself.

use std::env;
use std::fs::File;
use std::io;
use std::process::ExitCode;

use ipc::{Child, Command, Error, Result, Stdio};

const HELP: &str = "usage: pipeline FILE [N]";

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let (path, lines) = match &args[..] {
        [path] => (path, "5".into()),
        [path, lines] => (path, lines.clone()),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    let names = ["sort", "uniq", "sort", "head"];
    let args = [vec![], vec!["-c".into()], vec!["-rn".into()], vec!["-n".into(), lines]];
    let commands = names.into_iter().zip(args).map(|(name, args)| Command::new(name).args(args));

    let started = File::open(path).map_err(Error::from).and_then(|file| pipeline(file, commands));
    match started {
        Ok(children) => see_them_off(&names, children),
        Err(error) => {
            eprintln!("pipeline: {}: {}", path.display(), io::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

/// Starts the programs, each of which reads what the one before it writes. The first reads the file, and the last writes to
/// this process's standard output.
///
/// One that cannot be started is left out, as a shell does it: its neighbours get EOF, or have no reader.
fn pipeline(file: File, commands: impl IntoIterator<Item = Command>) -> Result<Vec<Result<Child>>> {
    let mut input = Stdio::from(file);
    let mut commands = commands.into_iter().peekable();
    let mut children = Vec::new();
    while let Some(command) = commands.next() {
        let command = command.stdin(input);
        let (command, next) = match commands.peek() {
            Some(_) => {
                let (reader, writer) = ipc::pipe()?;
                (command.stdout(writer), Stdio::from(reader))
            }
            None => (command, Stdio::null()),
        };
        // A command that was refused comes back inside the error, and still holds its ends. They are let go here, or the
        // next program would wait for them.
        children.push(command.spawn().map_err(|refused| refused.error));
        input = next;
    }
    Ok(children)
}

/// Waits for all of them, and leaves as the last one did. 127 is one that could not be started, as in a shell.
fn see_them_off(names: &[&str], children: Vec<Result<Child>>) -> ExitCode {
    let mut code = 0;
    for (name, child) in names.iter().zip(children) {
        code = match child.and_then(|child| child.wait()) {
            Ok(status) => {
                eprintln!("{name}: {status}");
                status.code().unwrap_or(1)
            }
            Err(error) => {
                eprintln!("{name}: {}", io::Error::from(error));
                127
            }
        };
    }
    ExitCode::from(code as u8)
}
