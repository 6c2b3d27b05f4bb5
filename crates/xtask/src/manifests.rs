//! Rules on Cargo manifests: lints are the workspace's, and release builds keep overflow checks.

use crate::finding::Finding;
use crate::tree::Tree;

pub fn crates_inherit_the_lints(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, manifest) in tree.crates() {
        if flag(manifest, &["lints", "workspace"]) != Some(true) {
            findings.push(Finding {
                path: format!("crates/{name}/Cargo.toml"),
                line: 1,
                what: format!("`{name}` does not inherit the lints of the workspace"),
                why: "a crate outside the lints may use what is forbidden everywhere else",
                remedy: "add `[lints]` with `workspace = true`".to_owned(),
            });
        }
    }
    findings
}

pub fn release_keeps_overflow_checks(tree: &Tree) -> Vec<Finding> {
    let root = tree.text("Cargo.toml").unwrap_or_default();
    let mut findings = Vec::new();
    if flag(root, &["profile", "release", "overflow-checks"]) != Some(true) {
        findings.push(at_root(
            "release builds do not check for overflow",
            "an amount that wraps is worse than a process that stops",
            "set `overflow-checks = true` in `[profile.release]`",
        ));
    }
    let unsafe_code = text(root, &["workspace", "lints", "rust", "unsafe_code"]);
    if unsafe_code.as_deref() != Some("forbid") {
        findings.push(at_root(
            "the workspace does not forbid unsafe code",
            "nothing here is worth a memory error",
            "set `unsafe_code = \"forbid\"` in `[workspace.lints.rust]`",
        ));
    }
    findings
}

fn at_root(what: &str, why: &'static str, remedy: &str) -> Finding {
    let (what, remedy) = (what.to_owned(), remedy.to_owned());
    Finding { path: "Cargo.toml".to_owned(), line: 1, what, why, remedy }
}

fn flag(manifest: &str, keys: &[&str]) -> Option<bool> {
    value(manifest, keys)?.as_bool()
}

fn text(manifest: &str, keys: &[&str]) -> Option<String> {
    Some(value(manifest, keys)?.as_str()?.to_owned())
}

fn value(manifest: &str, keys: &[&str]) -> Option<toml::Value> {
    let table: toml::Table = manifest.parse().ok()?;
    let whole = toml::Value::Table(table);
    keys.iter().try_fold(&whole, |inner, key| inner.get(key)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::places;

    #[test]
    fn lints_are_inherited() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", "[lints]\nworkspace = true\n"),
            ("crates/b/Cargo.toml", "[lints.rust]\nunsafe_code = \"allow\"\n"),
        ]);
        assert_eq!(places(&crates_inherit_the_lints(&tree)), ["crates/b/Cargo.toml:1"]);
    }

    #[test]
    fn overflow_is_checked_in_release() {
        let forbid = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
        let kept = format!("{forbid}[profile.release]\noverflow-checks = true\n");
        let lost = format!("{forbid}[profile.release]\noverflow-checks = false\n");
        assert!(release_keeps_overflow_checks(&Tree::of(&[("Cargo.toml", &kept)])).is_empty());
        let findings = release_keeps_overflow_checks(&Tree::of(&[("Cargo.toml", &lost)]));
        assert_eq!(places(&findings), ["Cargo.toml:1"]);
    }
}
