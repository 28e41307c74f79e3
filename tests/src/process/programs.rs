//! Our own programs, built once per test process into the folder that the test itself was built into.
//!
//! Cargo builds no binaries of other packages for a test; asked again here, it links them. It is asked for the whole workspace
//! and for some test, so that the dependencies have the features that `cargo test --workspace` has built them with.

use super::wait;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub fn ringpost() -> PathBuf {
    folder().join("ringpost")
}

/// Under that name, where everybody may run it: the folder that it was built in may be closed to others. It is copied by a
/// child, because a file that we wrote ourselves cannot be run while a process that another thread just forked has it open.
pub fn place_ringpost(path: &Path) {
    if std::fs::hard_link(ringpost(), path).is_err() {
        wait::succeed(Command::new("cp").arg(ringpost()).arg(path), wait::PATIENCE);
    }
}

pub fn loadgen() -> PathBuf {
    folder().join("loadgen")
}

/// Where they lie.
fn folder() -> &'static Path {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref().unwrap_or_else(|said| panic!("building the programs: {said}"))
}

fn build() -> Result<PathBuf, String> {
    let test = std::env::current_exe().expect("a test knows its own file");
    // <target>/<profile's folder>/deps/<test>
    let folder = test.ancestors().nth(2).expect("cargo puts tests into deps/");
    let target = folder.parent().expect("a profile's folder is in the target folder");
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "test",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", "ringpost", "--bin", "loadgen", "--test", "tidy"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace"))
        .output()
        .expect("cargo runs");
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    Ok(folder.to_owned())
}
