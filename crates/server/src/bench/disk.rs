//! The disk under a benchmark: what it is, and how long it takes to flush. Figures on a disk that
//! forgets are no figures.

use crate::cli::Fault;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A folder of its own for one run, gone when it is dropped.
pub struct Workplace {
    folder: PathBuf,
    /// Whether `data` was made for this run.
    parent: Option<PathBuf>,
    pub filesystem: String,
}

/// Flushes measured; each writes one block of 4 KiB.
const FLUSHES: usize = 200;

impl Workplace {
    /// - Errors: the folder cannot be made, or lies in memory.
    pub fn new(data: &Path) -> Result<Workplace, Fault> {
        let parent = (!data.exists()).then(|| data.to_path_buf());
        let folder = data.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let filesystem = filesystem(&mounts, &folder.canonicalize()?).unwrap_or("unknown").into();
        let place = Workplace { folder, parent, filesystem };
        if ["tmpfs", "ramfs"].contains(&place.filesystem.as_str()) {
            let (shown, kind) = (data.display(), &place.filesystem);
            return Err(format!(
                "{shown} is a {kind}, which survives nothing; name a folder on a disk with --data"
            )
            .into());
        }
        Ok(place)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How long one `fdatasync` of a fresh block takes: median and 99th percentile.
    pub fn flush_latency(&self) -> Result<(Duration, Duration), Fault> {
        let path = self.folder.join("flush");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut took = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            file.write_all(&[0xA5; 4096])?;
            let start = Instant::now();
            File::sync_data(&file)?;
            took.push(start.elapsed());
        }
        std::fs::remove_file(path)?;
        took.sort();
        Ok((took[FLUSHES / 2], took[FLUSHES * 99 / 100]))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed is not worth failing for.
        std::fs::remove_dir_all(&self.folder).ok();
        if let Some(parent) = &self.parent {
            std::fs::remove_dir(parent).ok();
        }
    }
}

/// The type of the filesystem that `path` lies on, from the text of `/proc/self/mountinfo`.
fn filesystem<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        let depth = Path::new(point).components().count();
        // Of two mounts on one point, the later covers the earlier.
        if path.starts_with(point) && best.is_none_or(|it| depth >= it.0) {
            best = Some((depth, kind.split(' ').next()?));
        }
    }
    best.map(|it| it.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts_and_of_equals_the_last() {
        let mounts = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /dev/shm rw,nosuid - tmpfs tmpfs rw
24 22 0:22 / /tmp rw - ext4 /dev/vda rw
25 22 0:23 / /tmp rw shared:5 master:2 - tmpfs tmpfs rw,size=1g";
        let check = |path: &str, want| assert_eq!(filesystem(mounts, Path::new(path)), Some(want));
        check("/srv/bench", "ext4");
        check("/dev/shm/bench", "tmpfs");
        check("/tmp", "tmpfs");
        check("/tmpfiles/bench", "ext4");
        assert_eq!(filesystem("", Path::new("/")), None);
    }

    #[test]
    fn a_workplace_leaves_nothing_behind() {
        let data = std::env::temp_dir().join(format!("feiqian-bench-{}", std::process::id()));
        let Ok(place) = Workplace::new(&data) else { return };
        assert!(place.flush_latency().unwrap().0 > Duration::ZERO);
        drop(place);
        assert!(!data.exists());
    }
}
