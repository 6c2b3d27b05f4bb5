//! Who may know whom: the dependency table of the workspace, as data, and the rule that holds it.
//!
//! A change here is a change of the architecture: change the table in `ARCHITECTURE.md` with it.

use crate::finding::Finding;
use crate::source::numbered;
use crate::tree::Tree;

pub struct Wall {
    pub name: &'static str,
    pub may_use: &'static [&'static str],
    /// Allowed for tests only, beside what `may_use` lists.
    pub tests_may_use: &'static [&'static str],
}

const fn wall(name: &'static str, may_use: &'static [&'static str]) -> Wall {
    Wall { name, may_use, tests_may_use: &[] }
}

pub const WALLS: &[Wall] = &[
    wall("kernel", &[]),
    wall("ledger", &["kernel"]),
    wall("payments", &["kernel"]),
    wall("channel", &["kernel"]),
    wall("seal", &["kernel"]),
    wall("wechatpay", &["kernel", "seal"]),
    wall("routing", &["kernel", "channel"]),
    wall("risk", &["kernel"]),
    wall("app", &["kernel", "ledger", "payments", "channel", "routing", "risk"]),
    wall("channels", &["kernel", "seal", "wechatpay", "channel", "app"]),
    Wall {
        name: "store",
        may_use: &["kernel", "ledger", "payments", "channel", "app"],
        tests_may_use: &["testkit"],
    },
    wall(
        "testkit",
        &[
            "kernel",
            "ledger",
            "payments",
            "channel",
            "seal",
            "wechatpay",
            "routing",
            "risk",
            "app",
            "channels",
            "store",
        ],
    ),
    wall(
        "server",
        &[
            "kernel",
            "ledger",
            "payments",
            "channel",
            "seal",
            "wechatpay",
            "routing",
            "risk",
            "app",
            "channels",
            "store",
            "testkit",
        ],
    ),
    wall("xtask", &[]),
];

/// The tables of a manifest that name what is compiled into the crate.
const SHIPPED: [&str; 2] = ["dependencies", "build-dependencies"];
const TESTED: &str = "dev-dependencies";

pub fn dependencies_stay_inside_the_walls(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, manifest) in tree.crates() {
        let path = format!("crates/{name}/Cargo.toml");
        let Some(wall) = WALLS.iter().find(|it| it.name == name) else {
            findings.push(Finding {
                path,
                line: 1,
                what: format!("crate `{name}` has no row in the dependency table"),
                why: "a crate exists to forbid a dependency; without a row it forbids none",
                remedy: "add it to WALLS in crates/xtask/src/walls.rs and to ARCHITECTURE.md"
                    .to_owned(),
            });
            continue;
        };
        let table: toml::Table = match manifest.parse() {
            Ok(table) => table,
            Err(error) => {
                findings.push(unreadable(path, &error));
                continue;
            }
        };
        for (dependency, for_tests) in dependencies(&table) {
            let ours = WALLS.iter().any(|it| it.name == dependency);
            let allowed = wall.may_use.contains(&dependency.as_str())
                || (for_tests && wall.tests_may_use.contains(&dependency.as_str()))
                // A crate may name itself in its tests, to switch a feature on.
                || (for_tests && dependency == name);
            if ours && !allowed {
                findings.push(outside(&path, manifest, wall, &dependency, for_tests));
            }
        }
    }
    findings
}

fn outside(path: &str, manifest: &str, wall: &Wall, used: &str, for_tests: bool) -> Finding {
    let tests = if for_tests { " in its tests" } else { "" };
    let name = wall.name;
    let may = match wall.may_use {
        [] => "nothing of the workspace".to_owned(),
        some => some.join(", "),
    };
    Finding {
        path: path.to_owned(),
        line: line_of(manifest, used),
        what: format!("`{name}` must not depend on `{used}`{tests}"),
        why: "the walls between crates keep decisions pure and each outside format with one owner",
        remedy: format!(
            "`{name}` may use: {may}. Define the few facts it needs in `{name}` and let `app` or \
             `server` fill them in"
        ),
    }
}

fn unreadable(path: String, error: &toml::de::Error) -> Finding {
    Finding {
        path,
        line: 1,
        what: format!("the manifest is not readable TOML: {}", error.message()),
        why: "a manifest that cannot be read cannot be checked",
        remedy: "correct it; `cargo metadata` shows the place".to_owned(),
    }
}

/// Every dependency a manifest names, with whether it is only for tests. Renamed ones count under
/// the name of their package.
fn dependencies(manifest: &toml::Table) -> Vec<(String, bool)> {
    let mut scopes = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        scopes.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut found = Vec::new();
    for scope in scopes {
        for (kind, value) in scope {
            let shipped = SHIPPED.contains(&kind.as_str());
            if let (true, Some(table)) = (shipped || kind == TESTED, value.as_table()) {
                for (key, value) in table {
                    let package = value.get("package").and_then(toml::Value::as_str);
                    found.push((package.unwrap_or(key).to_owned(), !shipped));
                }
            }
        }
    }
    found
}

/// The line of a manifest that begins with the name of a dependency.
pub fn line_of(manifest: &str, dependency: &str) -> usize {
    let begins = |line: &str| {
        line.trim_start()
            .strip_prefix(dependency)
            .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    numbered(manifest).find(|(_, line)| begins(line)).map_or(1, |(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::places;

    #[track_caller]
    fn check(name: &str, manifest: &str, want: &[&str]) {
        let path = format!("crates/{name}/Cargo.toml");
        let tree = Tree::of(&[(&path, manifest)]);
        assert_eq!(places(&dependencies_stay_inside_the_walls(&tree)), want, "{manifest}");
    }

    #[test]
    fn a_crate_uses_only_what_its_row_lists() {
        check("ledger", "[dependencies]\nkernel.workspace = true\nserde = \"1\"\n", &[]);
        check(
            "kernel",
            "[dependencies]\nledger.workspace = true\n",
            &["crates/kernel/Cargo.toml:2"],
        );
        check(
            "app",
            "[dependencies]\nstore = { path = \"../store\" }\n",
            &["crates/app/Cargo.toml:2"],
        );
        check("xtask", "[dependencies]\nkernel.workspace = true\n", &["crates/xtask/Cargo.toml:2"]);
    }

    #[test]
    fn other_tables_and_other_names_are_no_way_round() {
        check(
            "risk",
            "[build-dependencies]\napp.workspace = true\n",
            &["crates/risk/Cargo.toml:2"],
        );
        check(
            "risk",
            "[target.'cfg(unix)'.dependencies]\napp = \"0\"\n",
            &["crates/risk/Cargo.toml:2"],
        );
        check(
            "risk",
            "[dependencies]\nx = { package = \"app\", path = \"y\" }\n",
            &["crates/risk/Cargo.toml:1"],
        );
    }

    #[test]
    fn tests_of_the_store_may_use_the_testkit() {
        check("store", "[dev-dependencies]\ntestkit.workspace = true\n", &[]);
        check(
            "store",
            "[dependencies]\ntestkit.workspace = true\n",
            &["crates/store/Cargo.toml:2"],
        );
        check(
            "app",
            "[dev-dependencies]\ntestkit.workspace = true\n",
            &["crates/app/Cargo.toml:2"],
        );
    }

    #[test]
    fn an_unknown_crate_needs_a_row() {
        check("novelty", "[package]\n", &["crates/novelty/Cargo.toml:1"]);
    }

    #[test]
    fn the_table_has_no_circle() {
        for (index, wall) in WALLS.iter().enumerate() {
            for used in wall.may_use {
                let position = WALLS.iter().position(|it| it.name == *used);
                assert!(position.is_some_and(|it| it < index), "{} uses {used}", wall.name);
            }
        }
    }
}
