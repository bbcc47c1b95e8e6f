//! A pipe between two processes: the child writes, the parent reads until the end.

use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;

fn main() -> ipc::Result<ExitCode> {
    let (reader, writer) = ipc::pipe()?;

    // The writer moves into the child, and the reader is severed there: nothing to close by hand.
    let child = ipc::fork(writer, |mut writer| -> std::io::Result<()> {
        for _ in 0..10 {
            // heavy lifting
            writeln!(writer, "Another one bites the dust")?;
        }
        Ok(())
    })?;

    for message in BufReader::new(reader).lines() {
        println!("{}", message?);
    }
    let status = child.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
