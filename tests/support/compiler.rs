//! The compiler of the tests, on the library that they were built with.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Folder;

/// It makes one program at a time, in a folder of its own.
pub struct Compiler {
    pub folder: Folder,
    library: PathBuf,
}

impl Compiler {
    /// With the newest library that takes these lines.
    pub fn new(fits: &str) -> Self {
        let test = std::env::current_exe().unwrap();
        let is_library = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libipc-") && name.ends_with(".rlib")
        };
        let files = fs::read_dir(test.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        // Those of other features, and of other versions, are there too.
        let mut libraries: Vec<_> = files.filter(is_library).collect();
        libraries.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().modified().unwrap()));
        let mut compiler = Self { folder: Folder::new(), library: PathBuf::new() };
        let mut said = String::new();
        for library in libraries {
            compiler.library = library;
            match compiler.check(fits) {
                Ok(()) => return compiler,
                Err(error) => said = error,
            }
        }
        panic!("no library fits this test: {said}");
    }

    /// What it says, if it refuses a function with these lines.
    fn check(&self, lines: &str) -> Result<(), String> {
        self.compile(&["--emit=metadata"], &format!("pub fn main() {{ {lines} }}"))
    }

    /// It refuses such a function, and says all of this.
    #[track_caller]
    pub fn refuses(&self, lines: &str, texts: &[&str]) {
        let said = self.check(lines).expect_err(lines);
        for text in texts {
            assert!(said.contains(text), "{text:?} is not in what it says about `{lines}`:\n{said}");
        }
    }

    /// The program of this source, or what the compiler says.
    pub fn build(&self, args: &[&str], source: &str) -> Result<PathBuf, String> {
        self.compile(args, source)?;
        Ok(self.folder.0.join("program"))
    }

    fn compile(&self, args: &[&str], source: &str) -> Result<(), String> {
        let dependencies = self.library.parent().unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "--crate-name=program", "--color=never"]).args(args);
        rustc.arg("--out-dir").arg(&self.folder.0).arg("-L").arg(dependencies);
        rustc.arg(format!("--extern=ipc={}", self.library.display()));
        // A target that was named has a folder of its own.
        let target = dependencies.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        if target.contains("-linux-") {
            rustc.args(["--target", &target]);
        }
        let streams = rustc.arg("-").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut program = streams.spawn().unwrap();
        program.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        let output = program.wait_with_output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}
