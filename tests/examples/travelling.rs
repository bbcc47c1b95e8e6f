//! The examples of ends that travel: a pipeline of programs is what `sh` makes of it, and a broker gives out files and nothing
//! else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;

use crate::support::{self, Folder, Trial, example};
use ipc::Command;

pub fn trials() -> Vec<Trial> {
    support::trials![
        a_pipeline_prints_what_sh_prints within 60,
        a_pipeline_says_how_each_program_left needs [BASH] within 60,
        a_pipeline_goes_on_without_a_program_as_sh_does,
        a_pipeline_without_its_file_starts_nothing,
        a_broker_gives_files_to_who_may_not_open_them,
        a_broker_gives_nothing_outside_its_folder,
        a_broker_gives_nothing_that_is_no_file,
        a_broker_takes_any_name_for_a_name,
        a_broker_is_not_fooled_by_a_race within 60,
    ]
}

const SCRIPT: &str = r#"sort <"$1" | uniq -c | sort -rn | head -n "$2""#;

fn shell(shell: &str, script: &str, args: &[&OsStr]) -> Command {
    Command::new(shell).args(["-c", script, shell]).args(args)
}

/// Texts for which the four programs do different things.
fn texts(folder: &Folder) -> Vec<std::path::PathBuf> {
    let repeated: Vec<u8> = (0..20_000_u32).flat_map(|i| format!("line {}\n", i * i % 977).into_bytes()).collect();
    let all_different: Vec<u8> = (0..20_000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
    vec![
        folder.file("empty", b""),
        folder.file("one line without a newline", b"alone"),
        folder.file("bytes", &(0..=255).cycle().take(10_000).collect::<Vec<u8>>()),
        folder.file("repeated", &repeated),
        folder.file("all different", &all_different),
    ]
}

fn a_pipeline_prints_what_sh_prints() {
    let folder = Folder::new();
    for text in texts(&folder) {
        for lines in ["0", "1", "5", "1000000"] {
            let args = [text.as_os_str(), OsStr::new(lines)];
            let ours = Command::new(example("pipeline")).args(args).output().unwrap();
            let theirs = shell("sh", SCRIPT, &args).output().unwrap();
            assert!(ours.stdout == theirs.stdout, "{args:?}: {ours:?}");
            assert_eq!(ours.status.code(), theirs.status.code(), "{args:?}");
        }
    }
    let text = folder.file("five", b"b\na\nb\nc\nb\na\n");
    let ours = Command::new(example("pipeline")).arg(text).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ours.stdout), "      3 b\n      2 a\n      1 c\n");
}

/// How the example said that each left, as a shell counts it.
fn statuses(output: &Output) -> Vec<i32> {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let number = |text: &str| text.split(' ').next().unwrap().parse::<i32>().unwrap();
    said.lines()
        .map(|line| match line.split_once(": ").unwrap().1 {
            status if status.starts_with("exit status: ") => number(&status["exit status: ".len()..]),
            status if status.starts_with("signal: ") => 128 + number(&status["signal: ".len()..]),
            refused => panic!("{refused}"),
        })
        .collect()
}

fn a_pipeline_says_how_each_program_left() {
    let folder = Folder::new();
    let texts = texts(&folder);
    let all_different = texts.last().unwrap().clone();
    // bash is the shell that tells, and it is to be there like the others.
    let script = format!("{SCRIPT}; echo ${{PIPESTATUS[@]}} >&2");
    let compare = |text: &Path, lines: &str| {
        let args = [text.as_os_str(), OsStr::new(lines)];
        let ours = statuses(&Command::new(example("pipeline")).args(args).output().unwrap());
        let said = String::from_utf8(shell("bash", &script, &args).output().unwrap().stderr).unwrap();
        let theirs: Vec<i32> = said.trim().split(' ').map(|code| code.parse().unwrap()).collect();
        assert_eq!(ours, theirs, "{args:?}");
        ours
    };
    for text in texts {
        assert_eq!(compare(&text, "1000000"), [0; 4]);
    }
    // The one before head has more to say than fits, and nobody to say it to.
    assert_eq!(compare(&all_different, "1"), [0, 0, 128 + libc::SIGPIPE, 0]);
}

fn a_pipeline_goes_on_without_a_program_as_sh_does() {
    let folder = Folder::new();
    let text = folder.file("text", b"b\na\nb\n");
    let path_of = |program: &str| {
        ["/usr/bin", "/bin"]
            .map(|folder| Path::new(folder).join(program))
            .into_iter()
            .find(|path| path.exists())
            .unwrap()
    };
    for missing in ["sort", "uniq", "head"] {
        let programs = folder.0.join(format!("without {missing}"));
        std::fs::create_dir(&programs).unwrap();
        for program in ["sort", "uniq", "head"].iter().filter(|program| **program != missing) {
            symlink(path_of(program), programs.join(program)).unwrap();
        }
        let args = [text.as_os_str(), OsStr::new("5")];
        let ours = Command::new(example("pipeline")).args(args).env("PATH", &programs).output().unwrap();
        let theirs = shell("/bin/sh", SCRIPT, &args).env("PATH", &programs).output().unwrap();
        assert_eq!(ours.stdout, theirs.stdout, "without {missing}");
        assert_eq!(ours.status.code(), theirs.status.code(), "without {missing}");
        let said = String::from_utf8(ours.stderr).unwrap();
        assert!(said.contains(&format!("{missing}: No such file or directory")), "{said}");
    }
}

fn a_pipeline_without_its_file_starts_nothing() {
    let output = Command::new(example("pipeline")).arg("/no/such/file").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "pipeline: /no/such/file: No such file or directory (os error 2)\n"
    );
    for args in [&[][..], &["a", "b", "c"]] {
        let output = Command::new(example("pipeline")).args(args).output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(2), &b"usage: pipeline FILE [N]\n"[..]));
    }
}

/// What the worker prints, without the line that says who it is.
#[track_caller]
fn broker<N: AsRef<OsStr>>(folder: &Path, names: &[N]) -> Vec<String> {
    let output = Command::new(example("broker")).arg(folder).args(names).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{text}");
    // SAFETY: no conditions.
    let user = unsafe { libc::geteuid() };
    let (first, rest) = text.split_once('\n').unwrap();
    assert_eq!(first, format!("the worker is user {}", if user == 0 { 65_534 } else { user }));
    rest.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_refused<N: AsRef<OsStr>>(folder: &Path, names: &[N]) {
    let said = broker(folder, names);
    assert_eq!(said.len(), names.len(), "{said:?}");
    for (name, line) in names.iter().zip(said) {
        let expected = format!("{}: refused: ", name.as_ref().display());
        assert!(line.starts_with(&expected) && line.len() > expected.len(), "{line}");
    }
}

/// What a broker may give out, and beside it what it may not.
fn allowed() -> (Folder, std::path::PathBuf) {
    let folder = Folder::new();
    folder.file("secret", b"not for you");
    let allowed = folder.0.join("allowed");
    std::fs::create_dir_all(allowed.join("below")).unwrap();
    folder.file("allowed/notes", b"some notes");
    folder.file("allowed/below/more", b"more");
    // For root, who becomes nobody, this is what the broker is there for.
    for path in [&folder.0, &allowed] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    (folder, allowed)
}

fn a_broker_gives_files_to_who_may_not_open_them() {
    let (_folder, allowed) = allowed();
    symlink("below/more", allowed.join("link")).unwrap();
    symlink("../notes", allowed.join("below/back")).unwrap();
    let names = ["notes", "below/more", "link", "below/back", "below/../notes", "./notes", "below//more"];
    let sizes = [10, 4, 4, 10, 10, 10, 4];
    let expected: Vec<_> = names.iter().zip(sizes).map(|(name, size)| format!("{name}: {size} bytes")).collect();
    assert_eq!(broker(&allowed, &names), expected);
    let none: [&str; 0] = [];
    assert_eq!(broker(&allowed, &none), expected[..0]);
}

fn a_broker_gives_nothing_outside_its_folder() {
    let (folder, allowed) = allowed();
    let secret = folder.0.join("secret");
    symlink(&secret, allowed.join("absolute")).unwrap();
    symlink("../secret", allowed.join("relative")).unwrap();
    symlink("..", allowed.join("up")).unwrap();
    symlink("relative", allowed.join("twice")).unwrap();
    symlink("/proc/self/root", allowed.join("magic")).unwrap();
    symlink("round", allowed.join("round")).unwrap();
    // Absolute, though it would be inside.
    symlink(allowed.join("notes"), allowed.join("absolute inside")).unwrap();
    let names = [
        secret.to_str().unwrap(),
        "../secret",
        "below/../../secret",
        "./../allowed/notes",
        "..",
        "absolute",
        "relative",
        "up/secret",
        "up/allowed/notes",
        "twice",
        "magic/etc/passwd",
        "round",
        "absolute inside",
        "/etc/passwd",
        "/",
        allowed.join("notes").to_str().unwrap(),
    ]
    .map(str::to_owned);
    assert_refused(&allowed, &names);
}

fn a_broker_gives_nothing_that_is_no_file() {
    let (_folder, allowed) = allowed();
    let fifo = std::ffi::CString::new(allowed.join("fifo").as_os_str().as_bytes()).unwrap();
    // SAFETY: a nul-terminated path.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    // A socket's path has to be short.
    std::env::set_current_dir(&allowed).unwrap();
    let _socket = UnixListener::bind("socket").unwrap();
    assert_refused(&allowed, &["below", ".", "fifo", "socket", "notes/", "notes/more", "missing"]);
}

fn a_broker_takes_any_name_for_a_name() {
    let (_folder, allowed) = allowed();
    let long = "x".repeat(100_000);
    std::fs::write(allowed.join(OsStr::from_bytes(b"\xff odd\n")), b"odd").unwrap();
    let names = [OsStr::new(""), OsStr::new(&long), OsStr::from_bytes(b"\xff"), OsStr::new("notes")];
    let said = broker(&allowed, &names);
    assert!(said[..3].iter().all(|line| line.contains(": refused: ")), "{said:?}");
    assert_eq!(said[3], "notes: 10 bytes");
    let said = broker(&allowed, &[OsStr::from_bytes(b"\xff odd\n")]);
    assert_eq!(said.concat(), "\u{fffd} odd: 3 bytes");
}

/// A folder that turns into a link, and back, all the time.
fn a_broker_is_not_fooled_by_a_race() {
    let (folder, allowed) = allowed();
    let (below, hidden) = (allowed.join("below"), allowed.join("hidden"));
    folder.file("more", b"not for you, and longer");
    symlink("..", allowed.join("up")).unwrap();
    let swap = ipc::fork((), |()| -> std::io::Result<()> {
        loop {
            std::fs::rename(&below, &hidden)?;
            std::fs::rename(allowed.join("up"), &below)?;
            std::fs::rename(&below, allowed.join("up"))?;
            std::fs::rename(&hidden, &below)?;
        }
    })
    .unwrap();
    let names = ["below/more"; 500];
    let said = broker(&allowed, &names);
    swap.kill().unwrap();
    assert_eq!(swap.try_wait().unwrap().and_then(|status| status.code()), None, "it ran to the end");
    swap.wait().unwrap();
    assert_eq!(said.len(), names.len());
    assert!(said.iter().all(|line| line == "below/more: 4 bytes" || line.contains(": refused: ")), "{said:?}");
}
