//! Bakes in what the binary was made from: the commit and the compiler. Not the time of the build,
//! so that the same sources give the same binary.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FEIQIAN_COMMIT");
    // A source archive has no repository; whoever builds from one may say the commit.
    let said = std::env::var("FEIQIAN_COMMIT").ok().filter(|it| !it.is_empty());
    let commit = said.or_else(commit).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=FEIQIAN_COMMIT={commit}");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = output(&compiler, &["--version"]).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=FEIQIAN_COMPILER={compiler}");
}

fn commit() -> Option<String> {
    // Grows with each commit and each change of branch.
    let log = output("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|it| done.status.success() && !it.is_empty())
}
