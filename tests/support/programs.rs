//! Programs that cargo built beside the tests, and folders for them to work in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// An example that cargo has built beside this test.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("examples").join(name);
    assert!(path.exists(), "{} is not built: `cargo build --examples` builds it", path.display());
    path
}

/// The Python that `python3` starts in the end: it may stand for a script that takes long to find one. A process looks for it once,
/// and its children know it.
pub fn python() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let python3 = std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = python3.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path that is text").trim_end())
    };
    FOUND.get_or_init(find).clone()
}

/// A folder for one test, removed with it.
pub struct Folder(pub PathBuf);

impl Folder {
    #[allow(clippy::new_without_default)] // it makes something, and can fail
    pub fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("folder-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: impl AsRef<Path>, text: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::File::create(&path).unwrap().write_all(text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}
