//! The commands as a person at a shell meets them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies in the place for temporary files.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn feiqian(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feiqian"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
fn check(output: &Output, success: bool, stdout: &str, stderr: &str) {
    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.success(), success, "{out}{err}");
    assert!(out.contains(stdout), "{out}");
    assert!(err.contains(stderr) && !err.contains("panicked"), "{err}");
}

#[test]
fn an_installation_is_made_once_and_refusals_say_what_to_do() {
    let name = format!("feiqian-cli-{}", seal::random_nonce());
    let folder = Folder(std::env::temp_dir().join(name));
    let dir = folder.0.to_str().unwrap();
    let run = |arguments: &[&str]| feiqian(arguments).output().unwrap();
    check(&run(&["init", dir]), true, "feiqian serve --config", "");
    check(&run(&["init", dir]), false, "", "nothing was changed");
    let add = ["merchant", "add", "--data", dir, "--name", "Tea", "--appid", "wx1", "--mchid"];
    let with = |mchid| [add.as_slice(), &[mchid]].concat();
    check(&run(&with("1900000009")), true, "private_key.pem", "");
    check(&run(&with("1900000009")), false, "", "exists already");
    check(&run(&with("1 2")), false, "", "ASCII letters or digits");
    check(&run(&["merchant", "list", "--data", dir]), true, "Tea", "");
    check(&run(&["migrate", "--data", dir]), true, "schema", "");
    check(&run(&["ledger", "check", "--data", dir, "--json"]), true, "\"ok\":true", "");
    check(&run(&["serve", "--data", "/nowhere"]), false, "", "feiqian init DIR");

    // A reader that has gone away, as in `feiqian … | head`, is no reason to complain.
    let mut child = feiqian(&["merchant", "list", "--data", dir]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
