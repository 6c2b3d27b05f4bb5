//! Rules on Rust files: their head, their name, their matches, and what must not be left in them.

use crate::finding::Finding;
use crate::source::{before_tests, code_only, names, numbered};
use crate::tree::Tree;

pub fn files_say_what_they_are_for(tree: &Tree) -> Vec<Finding> {
    let headless = tree.ending(".rs").filter(|(_, text)| !text.starts_with("//!"));
    headless
        .map(|(path, _)| Finding {
            path: path.to_owned(),
            line: 1,
            what: "the file does not begin with `//!`".to_owned(),
            why: "a reader decides by the first line whether this is the file to read",
            remedy: "say what it is for and what it deliberately does not do".to_owned(),
        })
        .collect()
}

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "types", "misc"];

pub fn files_are_named_after_their_subject(tree: &Tree) -> Vec<Finding> {
    let empty = |path: &&str| {
        let path = path.strip_suffix(".rs").unwrap_or(path);
        path.split('/').any(|it| EMPTY_NAMES.contains(&it))
    };
    tree.ending(".rs")
        .map(|(path, _)| path)
        .filter(empty)
        .map(|path| Finding {
            path: path.to_owned(),
            line: 1,
            what: "the file is named after nothing".to_owned(),
            why: "utils, helpers, common, types and misc attract what belongs elsewhere",
            remedy: "name it after the thing inside, a domain noun; split it if there are several"
                .to_owned(),
        })
        .collect()
}

/// Crates whose matches are transitions of states that money depends on.
const TRANSITIONS: &[&str] = &["crates/payments/src/", "crates/ledger/src/"];

pub fn transitions_name_every_case(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let deciding = |path: &str| TRANSITIONS.iter().any(|it| path.starts_with(it));
    for (path, text) in tree.ending(".rs").filter(|(path, _)| deciding(path)) {
        for (line, code) in before_tests(&code_only(text)) {
            if catches_all(code) {
                findings.push(Finding {
                    path: path.to_owned(),
                    line,
                    what: "a match arm catches every case left over".to_owned(),
                    why: "a new state must not compile until someone decides what it means here",
                    remedy: "name the cases; where the input is open (text, a number), bind it: `other => …`"
                        .to_owned(),
                });
            }
        }
    }
    findings
}

/// An arm whose pattern is `_`, or a tuple of nothing but `_`.
fn catches_all(code: &str) -> bool {
    code.match_indices("=>").any(|(arrow, _)| {
        let before = &code[..arrow];
        let from = before.rfind(['{', ';']).map_or(0, |it| it + 1);
        let guarded = before[from..].split(" if ").next().unwrap_or_default();
        let pattern: String = guarded.split_whitespace().collect();
        let pattern = pattern.rsplit("},").next().unwrap_or_default();
        let last = pattern.rsplit('|').next().unwrap_or_default();
        let blank = last.trim_start_matches('(').trim_end_matches(')');
        blank.contains('_') && blank.chars().all(|it| it == '_' || it == ',')
            || last.ends_with(",_") && !last.contains('(')
    })
}

/// Signs of work that was put off. `unsafe` is also forbidden by the compiler; here it is found in
/// what is outside the workspace too.
const UNFINISHED: &[(&str, &str, &str)] = &[
    (
        "unsafe",
        "nothing here is worth a memory error",
        "write the safe form, or use a crate that proved it",
    ),
    (
        "todo!",
        "a payment must not meet a panic",
        "finish it, or refuse with an error that has a code",
    ),
    (
        "unimplemented!",
        "a payment must not meet a panic",
        "finish it, or refuse with an error that has a code",
    ),
    (
        "#[ignore",
        "a test that does not run protects nothing",
        "repair it, or assert today's wrong answer and say why it is wrong",
    ),
];

pub fn nothing_is_left_unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        for (line, code) in numbered(&code_only(text)) {
            for (word, why, remedy) in UNFINISHED.iter().filter(|(word, ..)| names(code, word)) {
                findings.push(Finding {
                    path: path.to_owned(),
                    line,
                    what: format!("`{word}` in the code"),
                    why,
                    remedy: (*remedy).to_owned(),
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::places;

    type Rule = fn(&Tree) -> Vec<Finding>;

    #[track_caller]
    fn check(rule: Rule, path: &str, text: &str, want: &[usize]) {
        let want: Vec<String> = want.iter().map(|line| format!("{path}:{line}")).collect();
        assert_eq!(places(&rule(&Tree::of(&[(path, text)]))), want, "{text}");
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        check(files_say_what_they_are_for, "a.rs", "//! Money.\n", &[]);
        check(files_say_what_they_are_for, "a.rs", "use std::fmt;\n//! Late.\n", &[1]);
        check(files_say_what_they_are_for, "a.txt", "free\n", &[]);
    }

    #[test]
    fn a_file_is_named_after_its_subject() {
        let rule = files_are_named_after_their_subject;
        check(rule, "crates/app/src/utils.rs", "", &[1]);
        check(rule, "crates/app/src/common/mod.rs", "", &[1]);
        check(rule, "crates/app/src/refund.rs", "", &[]);
        check(rule, "crates/app/src/types_of_refund.rs", "", &[]);
    }

    #[test]
    fn a_transition_names_every_case() {
        let rule = transitions_name_every_case;
        let path = "crates/payments/src/attempt.rs";
        check(rule, path, "match self {\n    _ => None,\n}\n", &[2]);
        check(rule, path, "match (self, it) {\n    (_, _) => None,\n}\n", &[2]);
        check(rule, path, "match self { Self::A => 1, _ => 2 }\n", &[1]);
        check(rule, path, "    Self::A | _ => 2,\n", &[1]);
        check(rule, path, "    _ if late => 2,\n", &[1]);
        check(rule, path, "    Some(_) | Self::Paid { .. } => 2,\n", &[]);
        check(rule, path, "    (Self::Paid, _) => 2,\n    other => 3,\n", &[]);
        check(rule, path, "#[cfg(test)]\nmod tests { fn f() { match 1 { _ => () } } }\n", &[]);
        check(rule, "crates/server/src/main.rs", "    _ => None,\n", &[]);
    }

    #[test]
    fn nothing_is_put_off() {
        let rule = nothing_is_left_unfinished;
        check(rule, "a.rs", "fn f() {\n    todo!()\n}\n", &[2]);
        check(
            rule,
            "a.rs",
            "#[test]\n#[ignore = \"slow\"]\nfn f() { unimplemented!() }\n",
            &[2, 3],
        );
        check(rule, "fuzz/a.rs", "unsafe { x() }\n", &[1]);
        check(rule, "a.rs", "// todo! unsafe\nlet s = \"unsafe\";\n#![forbid(unsafe_code)]\n", &[]);
    }
}
