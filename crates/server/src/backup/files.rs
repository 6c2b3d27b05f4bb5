//! The files an installation needs beside its database: which they are, and what they are called in
//! a backup. The backup's own key is never one of them.

use crate::config::Config;
use std::path::{Component, Path, PathBuf};

/// A file with its name inside a backup.
pub struct Needed {
    pub path: PathBuf,
    pub part: String,
}

/// The configuration and every file that it names, each once.
pub fn needed(config: &Config) -> Vec<Needed> {
    let keys = &config.keys;
    let mut named = vec![&keys.vault_key, &keys.platform_private_key, &keys.platform_certificate];
    named.extend(keys.additional.iter().flat_map(|it| [&it.private_key, &it.certificate]));
    for it in &config.channels {
        named.extend([&it.merchant_private_key, &it.apiv3_key]);
        named.extend(it.platform_public_key.as_ref());
    }
    named.extend(config.bus.credentials.as_ref());
    let mut named: Vec<PathBuf> = named.into_iter().cloned().collect();
    let file = &config.origin.file;
    if let Ok(text) = std::fs::read_to_string(file) {
        let table = toml::from_str(&text).unwrap_or_default();
        add_secret_files(&toml::Value::Table(table), &mut named);
    }
    named.extend(file.file_name().map(PathBuf::from));
    let mut list: Vec<Needed> = Vec::new();
    for path in named {
        let part = part_name(&path);
        if !list.iter().any(|it| it.part == part) {
            list.push(Needed { path: config.path(&path), part });
        }
    }
    list
}

/// `url_file = "…"` in any section or block.
fn add_secret_files(value: &toml::Value, list: &mut Vec<PathBuf>) {
    for block in value.as_array().into_iter().flatten() {
        add_secret_files(block, list);
    }
    for (key, value) in value.as_table().into_iter().flatten() {
        match value {
            toml::Value::String(path) if key.ends_with("_file") => list.push(path.into()),
            other => add_secret_files(other, list),
        }
    }
}

/// What lies below the configuration keeps its place; the rest goes to `config/elsewhere`.
fn part_name(path: &Path) -> String {
    let below = path.components().all(|it| matches!(it, Component::Normal(_)));
    let normal = path.components().filter(|it| matches!(it, Component::Normal(_)));
    let name = normal.collect::<PathBuf>().display().to_string();
    if below { format!("config/{name}") } else { format!("config/elsewhere/{name}") }
}

/// Whether a part may be written below the folder that is restored to.
pub fn is_safe(part: &str) -> bool {
    Path::new(part).components().all(|it| matches!(it, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_wherever_they_are_named() {
        let text = "[store]\nurl_file = \"a\"\npath = \"x\"\n[[webhook]]\nsecret_file = \"b\"\n";
        let mut list = Vec::new();
        add_secret_files(&toml::from_str(text).unwrap(), &mut list);
        assert_eq!(list, [PathBuf::from("a"), PathBuf::from("b")]);
    }

    #[test]
    fn files_keep_their_place_below_the_configuration() {
        let check = |path: &str, want: &str| assert_eq!(part_name(Path::new(path)), want);
        check("keys/vault.key", "config/keys/vault.key");
        check("/etc/secret", "config/elsewhere/etc/secret");
        check("../secret", "config/elsewhere/secret");
        assert!(is_safe("config/elsewhere/etc/secret"));
        assert!(!is_safe("../x") && !is_safe("/x") && !is_safe("a/../../x"));
    }
}
