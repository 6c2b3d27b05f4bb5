//! The text files of the repository, as rules see them: paths and contents in memory.
//!
//! What git ignores is not read; files that are not UTF-8 keep their path and have no lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

pub struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads what git tracks or would track below `root`.
    pub fn read(root: &Path) -> Result<Tree, String> {
        let listing = Command::new("git")
            .current_dir(root)
            // CI may run as another user than the owner of the clone; nothing is executed here.
            .args(["-c", "safe.directory=*"])
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|error| format!("git ls-files: {error}"))?;
        if !listing.status.success() {
            return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listing.stderr)));
        }
        let mut files = BTreeMap::new();
        for name in String::from_utf8_lossy(&listing.stdout).split('\0') {
            // A tracked file may be deleted in the work tree, and links may point anywhere.
            let path = root.join(name);
            if name.is_empty() || !path.symlink_metadata().is_ok_and(|it| it.is_file()) {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            files.insert(name.to_owned(), String::from_utf8(bytes).unwrap_or_default());
        }
        Ok(Tree { files })
    }

    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        Tree { files }
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files().filter(move |(path, _)| path.ends_with(suffix))
    }

    /// True for a file and for a folder that holds one.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|it| it.starts_with(&folder))
    }

    /// The crates of the workspace: name of the folder and text of its manifest.
    pub fn crates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter_map(|(path, text)| {
            let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!name.contains('/')).then_some((name, text))
        })
    }
}
