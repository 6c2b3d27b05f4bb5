//! Decisions are pure: the crates that decide name no clock, randomness, store, network or task.

use crate::finding::Finding;
use crate::source::{before_tests, code_only, names};
use crate::tree::Tree;
use crate::walls::line_of;

pub const PURE: &[&str] = &["kernel", "ledger", "payments", "channel", "routing", "risk"];

/// Words of code that touch the world, with what to do instead.
const WORDS: &[(&str, &str)] = &[
    ("tokio", "keep the waiting in `app` or outside"),
    ("async fn", "keep the waiting in `app`; decide on values"),
    ("SystemTime", "take the time as an argument"),
    ("Instant", "take the time as an argument"),
    ("::now(", "take the time as an argument"),
    ("rand", "take the random value as an argument"),
    ("getrandom", "take the random value as an argument"),
    ("std::fs", "take the contents as an argument"),
    ("std::net", "hand back what to send; `channels` sends it"),
    ("std::env", "take the setting as an argument"),
    ("std::process", "hand back what to do; the edge does it"),
    ("println!", "hand back a reason; the edge shows it"),
    ("eprintln!", "hand back a reason; the edge shows it"),
];

/// Packages whose purpose is to touch the world.
const PACKAGES: &[&str] = &["tokio", "rand", "getrandom", "reqwest", "rusqlite", "axum", "tracing"];

pub fn decisions_touch_nothing(tree: &Tree) -> Vec<Finding> {
    let why =
        "what decides must give the same answer on every replay, in tests and in the simulator";
    let mut findings = Vec::new();
    for &name in PURE {
        let manifest_path = format!("crates/{name}/Cargo.toml");
        let manifest = tree.text(&manifest_path).unwrap_or_default();
        let shipped = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for package in PACKAGES {
            let line = line_of(shipped, package);
            if line > 1 {
                findings.push(Finding {
                    path: manifest_path.clone(),
                    line,
                    what: format!("the pure crate `{name}` depends on `{package}`"),
                    why,
                    remedy: "move what needs it to `app` or further out".to_owned(),
                });
            }
        }
        let sources = format!("crates/{name}/src/");
        for (path, text) in tree.ending(".rs").filter(|(path, _)| path.starts_with(&sources)) {
            for (line, code) in before_tests(&code_only(text)) {
                for (word, remedy) in WORDS.iter().filter(|(word, _)| names(code, word)) {
                    findings.push(Finding {
                        path: path.to_owned(),
                        line,
                        what: format!("the pure crate `{name}` names `{word}`"),
                        why,
                        remedy: (*remedy).to_owned(),
                    });
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::places;

    #[track_caller]
    fn check(path: &str, text: &str, want: &[&str]) {
        assert_eq!(places(&decisions_touch_nothing(&Tree::of(&[(path, text)]))), want, "{text}");
    }

    #[test]
    fn pure_crates_name_nothing_of_the_world() {
        check(
            "crates/risk/src/lib.rs",
            "//! x\nuse std::time::SystemTime;\n",
            &["crates/risk/src/lib.rs:2"],
        );
        check("crates/risk/src/lib.rs", "pub async fn go() {}\n", &["crates/risk/src/lib.rs:1"]);
        check(
            "crates/kernel/src/a.rs",
            "let t = Timestamp::now();\n",
            &["crates/kernel/src/a.rs:1"],
        );
        check(
            "crates/ledger/Cargo.toml",
            "[dependencies]\ntokio = \"1\"\n",
            &["crates/ledger/Cargo.toml:2"],
        );
    }

    #[test]
    fn prose_tests_and_other_crates_may() {
        check("crates/risk/src/lib.rs", "//! No tokio here.\nlet brand = 1;\n", &[]);
        check("crates/risk/src/lib.rs", "#[cfg(test)]\nmod tests { use std::fs; }\n", &[]);
        check("crates/risk/tests/golden.rs", "use std::fs;\n", &[]);
        check("crates/store/src/lib.rs", "use tokio::task;\n", &[]);
        check("crates/ledger/Cargo.toml", "[package]\n[dev-dependencies]\nrand = \"1\"\n", &[]);
    }
}
