//! Rules on what people read: the documents exist, name every crate, link to what is there, and no
//! file carries the path of one machine.

use crate::finding::Finding;
use crate::source::numbered;
use crate::tree::Tree;

const REQUIRED: &[&str] =
    &["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"];

pub fn documents_exist_and_their_links_resolve(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in REQUIRED.iter().filter(|path| !tree.has(path)) {
        findings.push(Finding {
            path: (*path).to_owned(),
            line: 1,
            what: "the document is missing".to_owned(),
            why: "a newcomer, a user and a packager each look for one of these first",
            remedy: format!("write {path}"),
        });
    }
    findings.extend(unnamed_crates(tree));
    for (path, text) in tree.ending(".md") {
        for (line, target) in links(text) {
            if !resolves(tree, path, &target) {
                findings.push(Finding {
                    path: path.to_owned(),
                    line,
                    what: format!("the link to `{target}` leads nowhere"),
                    why: "a dead link costs every reader the search",
                    remedy: "correct the path (it is relative to this file) or remove the link"
                        .to_owned(),
                });
            }
        }
    }
    findings
}

fn unnamed_crates(tree: &Tree) -> Vec<Finding> {
    let Some(architecture) = tree.text("ARCHITECTURE.md") else { return Vec::new() };
    let unnamed = tree.crates().filter(|(name, _)| !architecture.contains(&format!("`{name}`")));
    unnamed
        .map(|(name, _)| Finding {
            path: "ARCHITECTURE.md".to_owned(),
            line: 1,
            what: format!("crate `{name}` is not described"),
            why: "the page says what is; a crate that is not on it is found by accident",
            remedy: "add its row to the table of crates".to_owned(),
        })
        .collect()
}

/// Targets of Markdown links outside code, with their lines: `[text](target)` and `[name]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in numbered(text) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for piece in prose.split("](").skip(1) {
            let target = piece.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.to_owned()));
        }
        if let Some((_, target)) = prose.split_once("]: ").filter(|_| prose.starts_with('[')) {
            found.push((number, target.trim().to_owned()));
        }
    }
    found
}

fn resolves(tree: &Tree, from: &str, target: &str) -> bool {
    let outside = target.contains("://") || target.starts_with("mailto:");
    let path = target.split('#').next().unwrap_or_default();
    if outside || path.is_empty() {
        return true;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.trim_start_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            name => parts.push(name),
        }
    }
    parts.is_empty() || tree.has(&parts.join("/"))
}

/// Folders that exist on the machine where something was written and on no other. Written in
/// pieces, or this file would be a finding.
const MACHINE_FOLDERS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

pub fn files_name_no_machine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        for (line, content) in numbered(text) {
            for folder in MACHINE_FOLDERS.iter().filter(|it| begins_a_path(content, it)) {
                findings.push(Finding {
                    path: path.to_owned(),
                    line,
                    what: format!("`{folder}…` is a path of one machine"),
                    why: "it breaks on every other machine and tells about this one",
                    remedy: "use a path relative to the repository, an option or a variable"
                        .to_owned(),
                });
            }
        }
    }
    findings
}

/// `folder` occurs where a path starts, not in the middle of a longer one or of an address.
fn begins_a_path(line: &str, folder: &str) -> bool {
    let inside = |it: char| it.is_alphanumeric() || "._-/)}*".contains(it);
    line.match_indices(folder).any(|(at, _)| !line[..at].chars().next_back().is_some_and(inside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::places;

    const COMPLETE: [(&str, &str); 5] = [
        (
            "README.md",
            "[中文](README.zh-CN.md) [guide](docs/guide.md#keys) [site](https://example.com)\n",
        ),
        ("README.zh-CN.md", ""),
        ("ARCHITECTURE.md", "| `kernel` | Money |\n"),
        ("CHANGELOG.md", ""),
        ("LICENSE", ""),
    ];

    #[track_caller]
    fn check(more: &[(&str, &str)], want: &[&str]) {
        let files: Vec<(&str, &str)> = COMPLETE.iter().chain(more).copied().collect();
        let tree = Tree::of(&files);
        assert_eq!(places(&documents_exist_and_their_links_resolve(&tree)), want);
    }

    #[test]
    fn links_lead_somewhere() {
        check(&[("docs/guide.md", "[up](../README.md) [here](#keys) ![x](.)\n")], &[]);
        check(&[("docs/guide.md", "one\n[gone](missing.md)\n")], &["docs/guide.md:2"]);
        check(
            &[("docs/guide.md", "[far](../../x.md)\n[a]: b.md\n")],
            &["docs/guide.md:1", "docs/guide.md:2"],
        );
        check(&[("docs/guide.md", "```\n[code](x.md)\n```\n`[code](x.md)`\n")], &[]);
    }

    #[test]
    fn documents_exist_and_name_every_crate() {
        let none = documents_exist_and_their_links_resolve(&Tree::of(&[]));
        assert_eq!(none.len(), REQUIRED.len());
        let guide = ("docs/guide.md", "");
        check(&[guide, ("crates/kernel/Cargo.toml", "")], &[]);
        check(&[guide, ("crates/ledger/Cargo.toml", "")], &["ARCHITECTURE.md:1"]);
    }

    #[test]
    fn no_file_names_a_machine() {
        let (mine, far) = (format!("x\ncd {}\n", MACHINE_FOLDERS[0]), "https://a.example/work/x\n");
        let tree = Tree::of(&[("a.sh", &mine), ("b.md", far), ("c.sh", "$HOME/work/x\n")]);
        assert_eq!(places(&files_name_no_machine(&tree)), ["a.sh:2"]);
    }
}
