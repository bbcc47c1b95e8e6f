//! The machine: which cores to run on, and what it is, for the results.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::process::Command;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Where a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Where this program runs, and measures.
    Here,
    /// On the other one.
    There,
    /// Wherever the kernel likes, as programs usually run.
    Any,
}

/// The cores that this program was started on.
static CORES: OnceLock<Vec<usize>> = OnceLock::new();

/// Looks which cores there are. Fails if it is one: then nothing here can be measured.
pub fn find_cores() -> io::Result<()> {
    // SAFETY: zeroed bytes are an empty set, which the kernel fills.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &mut set) != 0 {
            return Err(io::Error::last_os_error());
        }
        set
    };
    // SAFETY: numbers below the size of the set.
    let cores = (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) });
    let cores = CORES.get_or_init(|| cores.collect());
    if cores.len() < 2 { Err(io::Error::other("two processes on two cores: this needs two cores")) } else { Ok(()) }
}

/// Runs this process there from here on.
pub fn pin(core: Core) -> io::Result<()> {
    let cores = CORES.get().expect("the cores were looked for first");
    let wanted = match core {
        Core::Here => &cores[..1],
        Core::There => &cores[1..2],
        Core::Any => &cores[..],
    };
    // SAFETY: zeroed bytes are an empty set, and the numbers came out of one.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        wanted.iter().for_each(|core| libc::CPU_SET(*core, &mut set));
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What figures depend on. Nothing that names the machine itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
    /// The family and the model of the processor, where its maker gives them. Names alone are those of the host.
    #[serde(default)]
    pub model: Option<(u32, u32)>,
    pub cores: usize,
    pub rustc: String,
    /// The commit that was measured.
    #[serde(default)]
    pub commit: Option<String>,
}

impl Machine {
    pub fn look() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name| cpus.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(": "));
        let number = |name| field(name)?.parse().ok();
        Self {
            kernel: kernel.trim().split('-').next().unwrap_or_default().to_owned(),
            cpu: field("model name").unwrap_or(std::env::consts::ARCH).to_owned(),
            model: number("cpu family").zip(number("model\t")),
            cores: CORES.get().map_or(0, Vec::len),
            rustc: env!("RUSTC_VERSION").to_owned(),
            commit: commit(),
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        let model = self.model.map(|(family, model)| format!(", family {family}, model {model}"));
        format!("{}{}", self.cpu, model.unwrap_or_default())
    }

    /// For the names of files: one for each kind of processor.
    pub fn slug(&self) -> String {
        let name = self.name().to_lowercase().replace(", family ", "-").replace(", model ", "-");
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    }
}

/// The versions of the crates that are measured, as they were built in.
pub fn crate_versions() -> BTreeMap<String, String> {
    const MEASURED: [&str; 8] =
        ["ipc", "libc", "iceoryx2", "interprocess", "ipc-channel", "os_pipe", "shmem-ipc", "unix-ipc"];
    let field = |line: &'static str, key| Some(line.strip_prefix(key)?.trim_matches('"'));
    let packages = include_str!("../Cargo.lock").split("[[package]]").skip(1).filter_map(|package| {
        let mut lines = package.lines();
        let name = lines.find_map(|line| field(line, "name = "))?;
        let version = lines.find_map(|line| field(line, "version = "))?;
        MEASURED.contains(&name).then(|| (name.to_owned(), version.to_owned()))
    });
    packages.collect()
}

/// Today, as YYYY-MM-DD.
pub fn today() -> String {
    // SAFETY: a place for the time, and one for its parts.
    let parts = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&now, &mut parts);
        parts
    };
    format!("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
}

/// The commit of the tree that this was built in, if it is one of git's.
fn commit() -> Option<String> {
    let git =
        Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]).output().ok()?;
    git.status.success().then(|| String::from_utf8_lossy(&git.stdout).trim().to_owned())
}
