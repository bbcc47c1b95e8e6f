//! The programs of `docs/ring.md`, in C and Python, take either side of a ring.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use ipc::{Child, Command, RingReader, RingWriter, StreamSocket, stream_pair};

use crate::support::{self, Folder, Trial, bytes, exit_code, memory_file, read_all};

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_writer_in_c_is_read needs [CC] within 120,
        a_writer_in_python_is_read needs [PYTHON] within 120,
        a_reader_in_c_reads needs [CC] within 120,
        a_reader_in_c_refuses_what_is_no_ring needs [CC] within 120,
        a_reader_in_python_reads needs [PYTHON] within 120,
        programs_take_both_sides needs [CC, PYTHON] within 120,
        programs_notice_that_the_other_side_is_gone needs [CC, PYTHON] within 120,
    ]
}

/// The code blocks of the page, in that language.
fn blocks(language: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ring.md");
    let page = std::fs::read_to_string(page).unwrap();
    page.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}

fn c_program(folder: &Folder, name: &str, source: &str) -> Command {
    let source = folder.file(format!("{name}.c"), source.as_bytes());
    let program = folder.0.join(name);
    let compile = Command::new("cc").args(["-Wall", "-Wextra", "-Werror", "-O2", "-o"]).arg(&program).arg(&source);
    assert!(compile.status().unwrap().success());
    Command::new(program)
}

fn c_writer(folder: &Folder) -> Command {
    c_program(folder, "writer", &blocks("c")[0])
}

fn c_reader(folder: &Folder) -> Command {
    c_program(folder, "reader", &blocks("c")[1])
}

fn python(script: &Path) -> Command {
    Command::new(support::python()).arg(script)
}

fn python_reader(folder: &Folder) -> Command {
    python(&folder.file("reader.py", blocks("python")[0].as_bytes()))
}

fn python_writer(folder: &Folder) -> Command {
    let [reader, writer] = &blocks("python")[..] else { panic!("a reader and a writer") };
    let (functions, _) = reader.split_once("link = socket.socket(").unwrap();
    python(&folder.file("writer.py", format!("{functions}{writer}").as_bytes()))
}

fn start(program: Command, socket: StreamSocket, input: &[u8]) -> Child {
    let mut file: File = memory_file();
    file.write_all(input).unwrap();
    file.rewind().unwrap();
    program.stdin(OwnedFd::from(file)).give_at(9, socket).arg("9").spawn().unwrap()
}

fn assert_is_read(program: impl Fn() -> Command) {
    for len in [0, 1, 65_536, 300_003] {
        let pair = stream_pair().unwrap();
        let child = start(program(), pair.child, &bytes(len));
        let mut ring = RingReader::new(pair.parent).unwrap();
        let (mut data, mut buf) = (Vec::new(), [0; 5000]);
        loop {
            // Small reads, so that the writer waits too.
            match ring.read(&mut buf).unwrap() {
                0 => break,
                count => data.extend_from_slice(&buf[..count]),
            }
        }
        assert!(data == bytes(len), "{len}: {} bytes arrived", data.len());
        assert_eq!(exit_code(&child), 0);
    }
}

fn a_writer_in_c_is_read() {
    let folder = Folder::new();
    drop(c_writer(&folder));
    assert_is_read(|| Command::new(folder.0.join("writer")));
}

fn a_writer_in_python_is_read() {
    let folder = Folder::new();
    drop(python_writer(&folder));
    assert_is_read(|| python(&folder.0.join("writer.py")));
}

fn assert_reads(program: impl Fn() -> Command) {
    for len in [0, 1, 65_536, 300_003] {
        let pair = stream_pair().unwrap();
        let (output, writer) = ipc::pipe().unwrap();
        let child = program().stdout(writer).give_at(9, pair.child).arg("9").spawn().unwrap();
        let feeder = ipc::fork(pair.parent, |socket| {
            let mut ring = RingWriter::with_capacity(socket, 8192).unwrap();
            ring.write_all(&bytes(len)).unwrap();
        });
        assert!(read_all(output) == bytes(len), "{len}");
        assert_eq!(exit_code(&child), 0);
        assert_eq!(exit_code(&feeder.unwrap()), 0);
    }
}

fn a_reader_in_c_reads() {
    let folder = Folder::new();
    drop(c_reader(&folder));
    assert_reads(|| Command::new(folder.0.join("reader")));
}

fn a_reader_in_python_reads() {
    let folder = Folder::new();
    drop(python_reader(&folder));
    assert_reads(|| python(&folder.0.join("reader.py")));
}

fn programs_take_both_sides() {
    let folder = Folder::new();
    drop((c_writer(&folder), c_reader(&folder), python_writer(&folder), python_reader(&folder)));
    for writer in ["writer", "writer.py"] {
        for reader in ["reader", "reader.py"] {
            let program = |name: &str| match name.ends_with(".py") {
                true => python(&folder.0.join(name)),
                false => Command::new(folder.0.join(name)),
            };
            let pair = stream_pair().unwrap();
            let (output, stdout) = ipc::pipe().unwrap();
            let reads = program(reader).stdout(stdout).give_at(9, pair.child).arg("9").spawn().unwrap();
            let writes = start(program(writer), pair.parent, &bytes(300_003));
            assert!(read_all(output) == bytes(300_003), "{writer} {reader}");
            assert_eq!((exit_code(&writes), exit_code(&reads)), (0, 0), "{writer} {reader}");
        }
    }
}

fn a_reader_in_c_refuses_what_is_no_ring() {
    let folder = Folder::new();
    drop(c_reader(&folder));
    let hello = |page: u32, capacity: u64| {
        [&b"ipc ring"[..], &1_u32.to_le_bytes(), &page.to_le_bytes(), &capacity.to_le_bytes(), &[0; 8]].concat()
    };
    // Its own page is none of these sizes; and nothing is a capacity that does not come with sealed memory.
    for told in [hello(0, 65_536), vec![b'x'; 32], vec![b'x'; 7], hello(4096, 65_536), hello(4096, 5000)] {
        let pair = stream_pair().unwrap();
        let child = Command::new(folder.0.join("reader")).stderr(support::disk_file()).give_at(9, pair.child).arg("9");
        let child = child.spawn().unwrap();
        pair.parent.send_with(&told, memory_file()).unwrap();
        drop(pair.parent);
        assert_eq!(exit_code(&child), 1, "{told:?}");
    }
}

fn programs_notice_that_the_other_side_is_gone() {
    let folder = Folder::new();
    drop((c_writer(&folder), c_reader(&folder), python_writer(&folder), python_reader(&folder)));
    for program in [Command::new(folder.0.join("writer")), python(&folder.0.join("writer.py"))] {
        let pair = stream_pair().unwrap();
        let child = start(program, pair.child, &bytes(300_003));
        let mut ring = RingReader::new(pair.parent).unwrap();
        ring.read_exact(&mut [0; 10]).unwrap();
        drop(ring);
        assert_eq!(exit_code(&child), 2);
    }
    for program in [Command::new(folder.0.join("reader")), python(&folder.0.join("reader.py"))] {
        let pair = stream_pair().unwrap();
        let child = program.give_at(9, pair.child).arg("9").spawn().unwrap();
        let mut ring = RingWriter::with_capacity(pair.parent, 1).unwrap();
        child.kill().unwrap();
        assert_eq!(ring.write_all(&bytes(100_000)).unwrap_err().kind(), ErrorKind::BrokenPipe);
        child.wait().unwrap();
    }
}
