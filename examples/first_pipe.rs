//! The first pipe: bytes written at one end are read at the other, and EOF arrives when the writer is closed.

use std::io::{Read, Write};

fn main() -> ipc::Result<()> {
    let (mut reader, mut writer) = ipc::pipe()?;

    writer.write_all(b"Into the pipe I go...")?;
    writer.close()?; // or the reader would wait for more

    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    println!("{text}");
    Ok(())
}
