//! The guide's recipe for the coverage of forked children.

use std::path::Path;
use std::process::Command;

use crate::support::{self, Compiler, Trial};

pub fn trials() -> Vec<Trial> {
    if cfg!(sanitizers) {
        return Vec::new(); // the compiler would have to be told that the library has them
    }
    support::trials![a_child_writes_its_profile_by_the_guides_recipe_and_not_without needs [Profiler]]
}

/// The first sample under that heading of the guide.
fn sample(page: &str, heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(heading).expect("the heading is there");
    let (_, sample) = section.split_once("```rust\n").expect("it has a sample");
    sample.split_once("```").expect("the sample ends").0.to_owned()
}

fn a_child_writes_its_profile_by_the_guides_recipe_and_not_without() {
    /// How often the child calls a function. Its counter is eight bytes of the profile.
    const TIMES: u64 = 1_234_567;
    let recipe = sample("testing.md", "## Coverage of forked children\n");
    let lines = ["let answer = 6 * 7;", "write_profile();"];
    assert_eq!(lines.map(|line| recipe.matches(&format!("        {line}")).count()), [1, 1], "{recipe}");
    let either = recipe
        .replace(lines[0], &format!("fn count() {{}} let answer = 42; for _ in 0..{TIMES} {{ count() }}"))
        .replace(lines[1], "if std::env::args().len() == 1 { write_profile() }");
    let compiler = Compiler::new("ipc::fork((), |()| ()).unwrap();");
    let program = compiler.build(&["-Cinstrument-coverage", "--cfg=coverage"], &either).unwrap();
    let is_counted = |name: &str, args: &[&str]| {
        let profiles = compiler.folder.0.join("profiles");
        let status = Command::new(&program).args(args).env("LLVM_PROFILE_FILE", profiles.join(name)).status();
        assert!(status.unwrap().success());
        let files = std::fs::read_dir(&profiles).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        let is_counted = files.map(|file| file.windows(8).any(|bytes| bytes == TIMES.to_ne_bytes()));
        let is_counted: Vec<bool> = is_counted.collect();
        std::fs::remove_dir_all(&profiles).unwrap();
        assert_eq!(is_counted.len(), 1, "both processes write to one file");
        is_counted[0]
    };
    for name in ["%p", "%m", "%p-%m"] {
        assert_eq!([is_counted(name, &[]), is_counted(name, &["without"])], [true, false], "{name}");
    }
}
