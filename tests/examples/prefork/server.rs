//! The server under test, and its files.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipc::{Child, Command, PipeReader};

use super::client::{Client, Response, request};
use super::support::{SOON, children_of, poll_until, process_state};

/// Content that has every byte, and no pattern.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// More than any socket takes.
pub const HUGE: u64 = 24 << 20;

/// A folder for one test, removed with it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prefork-{}", std::process::id()));
        if path.exists() {
            // A test that was killed has left it, a process with this number long ago.
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::create_dir_all(path.join("root")).unwrap();
        let folder = Self(path);
        folder.file("index.html", b"<h1>home</h1>");
        folder
    }

    /// What is served.
    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn file(&self, name: &str, content: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// See [`Server::begin_huge`].
    pub fn huge_file(&self) {
        File::create(self.root().join("huge")).unwrap().set_len(HUGE).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The example that cargo has built beside this test.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("examples/prefork");
    assert!(path.exists(), "{} is not built: `cargo build --examples` builds it", path.display());
    path
}

pub struct Server {
    pub folder: Folder,
    pub address: SocketAddr,
    pub child: Child,
    stdout: PipeReader,
}

impl Server {
    pub fn start(folder: Folder, options: &[&str]) -> Self {
        Self::start_with(Command::new(program()), folder, options)
    }

    /// With a file for [`begin_huge`](Self::begin_huge).
    pub fn with_huge_file(options: &[&str]) -> Self {
        let folder = Folder::new();
        folder.huge_file();
        Self::start(folder, options)
    }

    /// With a command of its own, that the options are added to.
    pub fn start_with(command: Command, folder: Folder, options: &[&str]) -> Self {
        let (stdout, writer) = ipc::pipe().unwrap();
        let log = File::create(folder.0.join("log")).unwrap();
        let command = command.args(["--listen", "127.0.0.1:0", "--root"]).arg(folder.root()).args(options);
        let child = command.stdout(writer).stderr(log).spawn().unwrap();
        let line = line(&stdout).unwrap_or_else(|| panic!("{}", log_of(&folder)));
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("an address, and not {line:?}"));
        assert!(line.contains(&format!("process {} ", child.id())), "{line}");
        Self { folder, address, child, stdout }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// A client that has asked for the huge file. Until it reads, the answer is under way.
    pub fn begin_huge(&self) -> Client {
        let mut client = self.connect();
        rustix::net::sockopt::set_socket_recv_buffer_size(client.stream(), 64 << 10).unwrap();
        client.send(request("GET", "/huge")).unwrap();
        client
    }

    /// On a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.connect().get(path).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it has said on its stderr.
    pub fn log(&self) -> String {
        log_of(&self.folder)
    }

    #[track_caller]
    pub fn await_log(&self, text: &str) {
        poll_until(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// Its children, from the oldest to the youngest.
    pub fn workers(&self) -> Vec<u32> {
        children_of(self.child.id())
    }

    /// Waits for its successor to serve, and says which process that is.
    #[track_caller]
    pub fn successor(&self) -> u32 {
        let line = line(&self.stdout).unwrap_or_else(|| panic!("no successor: {}", self.log()));
        assert!(line.contains(&self.address.to_string()), "{line}");
        line.split("process ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("its process")
    }

    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        super::support::exit_code(&self.child)
    }

    /// Stops it in good order.
    #[track_caller]
    pub fn stop(self) {
        self.child.signal(libc::SIGTERM).unwrap();
        assert_eq!(self.exit_code(), 0, "{}", self.log());
    }
}

/// How many descriptors the process has.
pub fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Whether the process has that file open.
pub fn has_open(process: u32, file: &Path) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    descriptors.flatten().any(|descriptor| std::fs::read_link(descriptor.path()).is_ok_and(|target| target == file))
}

pub fn send_signal(process: u32, signal: libc::c_int) {
    // SAFETY: two numbers.
    assert_eq!(unsafe { libc::kill(process as libc::pid_t, signal) }, 0, "{}", std::io::Error::last_os_error());
}

/// Waits until the process is gone, whoever its parent is by now.
#[track_caller]
pub fn await_end(process: u32) {
    poll_until("the process is gone", || {
        // SAFETY: no status is asked for. One that is no child of this process is none of its business.
        unsafe { libc::waitpid(process as libc::pid_t, std::ptr::null_mut(), libc::WNOHANG) };
        process_state(process).is_none()
    });
}

fn log_of(folder: &Folder) -> String {
    std::fs::read_to_string(folder.0.join("log")).unwrap()
}

/// The next line of it. `None`: it has ended.
pub fn line(stdout: &PipeReader) -> Option<String> {
    let deadline = Instant::now() + SOON;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        let left = deadline.saturating_duration_since(Instant::now());
        match stdout.read_timeout(&mut byte, left).expect("a line in time") {
            0 => return None,
            _ => line.push(byte[0]),
        }
    }
    Some(String::from_utf8(line).unwrap())
}
