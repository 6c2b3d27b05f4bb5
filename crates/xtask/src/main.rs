//! `cargo xtask`: the rules a machine runs over the tree, and the long runs that have a name.
//!
//! It knows the repository, not the product: it depends on no crate of the workspace, so that it
//! builds in seconds and can judge a tree that does not compile.

mod documents;
mod finding;
mod manifests;
mod purity;
mod source;
mod sources;
mod tree;
mod walls;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use finding::Finding;
use tree::Tree;

const USAGE: &str = "\
cargo xtask <command>

  tidy                          check the rules of the house; exit 1 if there are findings
  simulate --seeds N [--from S] run N seeds of the whole-system simulation, beginning with seed S (default 0)
  help                          this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((&"tidy", [])) => tidy(),
        Some((&"simulate", options)) => match seeds(options) {
            Ok(run) => simulate(&run),
            Err(complaint) => refuse(&complaint),
        },
        Some((&"help" | &"--help" | &"-h", _)) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some((word, _)) => refuse(&format!("`{word}` with these arguments is not a command")),
        None => refuse("a command is missing"),
    }
}

fn refuse(complaint: &str) -> ExitCode {
    eprintln!("xtask: {complaint}\n\n{USAGE}");
    ExitCode::from(2)
}

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every rule, in the order in which its findings are printed.
fn findings(tree: &Tree) -> Vec<Finding> {
    let rules: [fn(&Tree) -> Vec<Finding>; 10] = [
        walls::dependencies_stay_inside_the_walls,
        purity::decisions_touch_nothing,
        sources::files_say_what_they_are_for,
        sources::files_are_named_after_their_subject,
        sources::transitions_name_every_case,
        sources::nothing_is_left_unfinished,
        manifests::crates_inherit_the_lints,
        manifests::release_keeps_overflow_checks,
        documents::documents_exist_and_their_links_resolve,
        documents::files_name_no_machine,
    ];
    rules.iter().flat_map(|rule| rule(tree)).collect()
}

fn tidy() -> ExitCode {
    let tree = match Tree::read(&root()) {
        Ok(tree) => tree,
        Err(error) => {
            eprintln!("xtask tidy: cannot read the tree: {error}");
            return ExitCode::from(2);
        }
    };
    let findings = findings(&tree);
    for finding in &findings {
        eprintln!("{finding}\n");
    }
    if findings.is_empty() {
        println!("tidy: {} files, no findings", tree.len());
        ExitCode::SUCCESS
    } else {
        eprintln!("tidy: {} findings in {} files", findings.len(), tree.len());
        ExitCode::FAILURE
    }
}

#[derive(Debug, PartialEq, Eq)]
struct SeedRun {
    count: u64,
    from: u64,
}

fn seeds(options: &[&str]) -> Result<SeedRun, String> {
    let mut run = SeedRun { count: 0, from: 0 };
    let mut rest = options;
    while let [name, value, tail @ ..] = rest {
        let number = value.parse().map_err(|_| format!("{name} needs a number, not `{value}`"))?;
        match *name {
            "--seeds" => run.count = number,
            "--from" => run.from = number,
            _ => return Err(format!("`{name}` is not an option of simulate")),
        }
        rest = tail;
    }
    match rest {
        [] if run.count > 0 => Ok(run),
        [] => Err("simulate needs --seeds N with N of at least 1".to_owned()),
        _ => Err(format!("`{}` stands alone", rest.join(" "))),
    }
}

fn simulate(run: &SeedRun) -> ExitCode {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    println!("simulate: seeds {} to {}", run.from, run.from + run.count - 1);
    let status = Command::new(cargo)
        .current_dir(root())
        .args(["test", "-p", "testkit", "--test", "simulation", "--", "--nocapture"])
        .env("FEIQIAN_SEEDS", run.count.to_string())
        .env("FEIQIAN_SEED_FROM", run.from.to_string())
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("simulate: failed; run the seed printed above alone: --seeds 1 --from SEED");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("simulate: cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulate_reads_its_options_in_any_order() {
        assert_eq!(seeds(&["--seeds", "5"]), Ok(SeedRun { count: 5, from: 0 }));
        assert_eq!(seeds(&["--from", "7", "--seeds", "2"]), Ok(SeedRun { count: 2, from: 7 }));
        assert!(seeds(&[]).is_err());
        assert!(seeds(&["--seeds", "many"]).is_err());
        assert!(seeds(&["--seeds", "5", "--from"]).is_err());
        assert!(seeds(&["--speed", "5"]).is_err());
    }

    /// The tree that this test was built from keeps the rules of its own checker.
    #[test]
    fn the_checker_keeps_its_own_rules() {
        let tree = Tree::read(&root()).expect("the repository is readable");
        let own: Vec<String> = findings(&tree)
            .iter()
            .filter(|it| it.path.starts_with("crates/xtask/"))
            .map(ToString::to_string)
            .collect();
        assert!(own.is_empty(), "{}", own.join("\n"));
    }
}
