//! The archive of PostgreSQL's log: a folder of sealed segments, written by `archive_command` and read
//! by `restore_command`. What is in it is never overwritten.

use super::archive::{opened, opening, sealed, sealing};
use seal::random_nonce;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error(
        "{0:?} is no name of PostgreSQL's; call this from archive_command with %p or restore_command with %f"
    )]
    Name(String),
    #[error(
        "{0} is in the archive already and is another file; give every database cluster an archive folder of its own"
    )]
    Other(PathBuf),
    #[error("{0} is not in the archive")]
    Absent(String),
    #[error(
        "{absent} is not in the archive, though {later} is: the log has a hole, and nothing after it can be restored. Copy {absent} back, or choose a time before it"
    )]
    Hole { absent: String, later: String },
    #[error("{path} cannot be used: {source}")]
    Unusable { path: PathBuf, source: io::Error },
}

/// The folder and the key of what is in it.
pub struct Segments {
    pub folder: PathBuf,
    pub key: [u8; 32],
}

/// `00000001000000000000002A`: timeline, then number.
pub fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|it| matches!(it, b'0'..=b'9' | b'A'..=b'F'))
}

/// Segments, histories of timelines, labels of base backups.
fn is_name(name: &str) -> bool {
    let fine = |it: u8| it.is_ascii_alphanumeric() || it == b'.';
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fine)
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> SegmentError {
    let path = path.to_owned();
    move |source| SegmentError::Unusable { path: path.clone(), source }
}

fn context(name: &str) -> String {
    format!("wal/{name}")
}

impl Segments {
    /// Takes a file in; durable when this returns. The same file again is fine.
    pub fn push(&self, path: &Path) -> Result<(), SegmentError> {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        if !is_name(name) {
            return Err(SegmentError::Name(name.into()));
        }
        let target = self.folder.join(name);
        if target.exists() {
            return self.same(name, path);
        }
        fs::create_dir_all(&self.folder).map_err(unusable(&self.folder))?;
        let draft = self.folder.join(format!(".{name}.{}", random_nonce()));
        let written = self.write(name, path, &draft);
        // A link, unlike a rename, never replaces what another one has written meanwhile.
        let placed = written.and_then(|()| match fs::hard_link(&draft, &target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.same(name, path),
            other => other.map_err(unusable(&target)),
        });
        fs::remove_file(&draft).ok();
        placed?;
        File::open(&self.folder).and_then(|it| it.sync_all()).map_err(unusable(&self.folder))
    }

    fn write(&self, name: &str, path: &Path, draft: &Path) -> Result<(), SegmentError> {
        let mut from = File::open(path).map_err(unusable(path))?;
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft);
        let write = |to: File| {
            let mut stream = sealing(to, &self.key, &context(name))?;
            io::copy(&mut from, &mut stream)?;
            sealed(stream)?.sync_all()
        };
        to.and_then(write).map_err(unusable(draft))
    }

    fn same(&self, name: &str, path: &Path) -> Result<(), SegmentError> {
        let target = self.folder.join(name);
        let mut ours = Vec::new();
        self.read(name, &mut ours)?;
        // A segment has 16 MiB: two of them are held here, once in a while.
        let theirs = fs::read(path).map_err(unusable(path))?;
        if ours == theirs { Ok(()) } else { Err(SegmentError::Other(target)) }
    }

    fn read(&self, name: &str, to: &mut dyn Write) -> Result<(), SegmentError> {
        let path = self.folder.join(name);
        let read = |from: File| {
            let mut stream = opening(from, &self.key, &context(name))?;
            io::copy(&mut (&mut stream as &mut dyn Read), to)?;
            opened(stream)
        };
        File::open(&path).and_then(read).map_err(unusable(&path))
    }

    /// Brings a file back.
    pub fn pull(&self, name: &str, target: &Path) -> Result<(), SegmentError> {
        if !is_name(name) {
            return Err(SegmentError::Name(name.into()));
        }
        if !self.folder.join(name).exists() {
            let absent = name.to_owned();
            return Err(match self.later_than(name)? {
                Some(later) => SegmentError::Hole { absent, later },
                None => SegmentError::Absent(absent),
            });
        }
        let written = File::create(target).map_err(unusable(target)).and_then(|mut file| {
            self.read(name, &mut file)?;
            file.sync_all().map_err(unusable(target))
        });
        if written.is_err() {
            fs::remove_file(target).ok();
        }
        written
    }

    /// A later segment of the same timeline.
    fn later_than(&self, name: &str) -> Result<Option<String>, SegmentError> {
        if !is_segment(name) {
            return Ok(None);
        }
        let all = self.names()?;
        Ok(all.into_iter().find(|it| it[..8] == name[..8] && it.as_str() > name))
    }

    /// All segments, in order.
    fn names(&self) -> Result<Vec<String>, SegmentError> {
        let list = fs::read_dir(&self.folder).map_err(unusable(&self.folder))?;
        let name = |it: fs::DirEntry| it.file_name().into_string().ok();
        let mut names: Vec<_> =
            list.flatten().filter_map(name).filter(|it| is_segment(it)).collect();
        names.sort();
        Ok(names)
    }

    /// That no segment is missing between `last`, which the base backup brings, and the newest of its
    /// timeline.
    ///
    /// - Input: `size` of a segment in bytes.
    pub fn check_unbroken_after(&self, last: &str, size: u64) -> Result<(), SegmentError> {
        let mut expected = next(last, size);
        for name in self.names()?.into_iter().filter(|it| it[..8] == last[..8]) {
            if name.as_str() <= last {
                continue;
            }
            if name != expected {
                return Err(SegmentError::Hole { absent: expected, later: name });
            }
            expected = next(&name, size);
        }
        Ok(())
    }
}

/// The segment after this one: a file of the log is 4 GiB in segments.
fn next(name: &str, size: u64) -> String {
    let part = |range: std::ops::Range<usize>| u64::from_str_radix(&name[range], 16).unwrap_or(0);
    let per_file = (1_u64 << 32) / size.max(1);
    let number = part(8..16) * per_file + part(16..24) + 1;
    format!("{}{:08X}{:08X}", &name[..8], number / per_file, number % per_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("feiqian-segments-{}", random_nonce()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    const ONE: &str = "000000010000000000000001";
    const TWO: &str = "000000010000000000000002";
    const THREE: &str = "000000010000000000000003";

    #[test]
    fn segments_count_through_the_files_of_the_log() {
        let check = |name: &str, size, want: &str| assert_eq!(next(name, size), want);
        check(ONE, 16 << 20, TWO);
        check("0000000A00000001000000FF", 16 << 20, "0000000A0000000200000000");
        check("000000010000000000000003", 1 << 30, "000000010000000100000000");
    }

    #[test]
    fn what_was_archived_comes_back_and_is_never_overwritten() {
        let folder = Folder::new();
        let archive = Segments { folder: folder.0.join("archive"), key: [1; 32] };
        let [file, back] = [ONE, "back"].map(|it| folder.0.join(it));
        fs::write(&file, vec![5; 100_000]).unwrap();
        archive.push(&file).unwrap();
        archive.push(&file).unwrap();
        archive.pull(ONE, &back).unwrap();
        assert_eq!(fs::read(&back).unwrap(), vec![5; 100_000]);
        fs::write(&file, vec![6; 100_000]).unwrap();
        assert!(matches!(archive.push(&file), Err(SegmentError::Other(_))));
        assert!(matches!(archive.push(Path::new("x y")), Err(SegmentError::Name(_))));

        // Under another name it does not open: two segments cannot change places.
        fs::copy(archive.folder.join(ONE), archive.folder.join(THREE)).unwrap();
        fs::remove_file(&back).unwrap();
        let said = archive.pull(THREE, &back).unwrap_err().to_string();
        assert!(said.contains("is not what it is called"), "{said}");
        assert!(!back.exists());

        let hole = archive.pull(TWO, &back);
        assert!(matches!(hole, Err(SegmentError::Hole { .. })), "{hole:?}");
        assert!(archive.check_unbroken_after(ONE, 16 << 20).is_err());
        assert!(archive.check_unbroken_after(TWO, 16 << 20).is_ok());
        let end = archive.pull("000000010000000000000004", &back);
        assert!(matches!(end, Err(SegmentError::Absent(_))), "{end:?}");
        let history = archive.pull("00000002.history", &back);
        assert!(matches!(history, Err(SegmentError::Absent(_))), "{history:?}");
    }
}
