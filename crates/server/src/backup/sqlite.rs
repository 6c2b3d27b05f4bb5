//! A consistent copy of a SQLite file while a server writes to it: SQLite's online backup, under one
//! read transaction, so that writers neither wait nor make it start again.

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Copied between two looks at the progress: 4 MiB of usual pages.
const PAGES: std::ffi::c_int = 1024;
const BUSY: Duration = Duration::from_secs(10);

/// Copies `source` into the new file `target`, which is not flushed. Returns the schema's version.
pub fn copy(source: &Path, target: &Path, progress: &mut dyn FnMut(u64)) -> rusqlite::Result<u32> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let from = Connection::open_with_flags(source, flags)?;
    from.busy_timeout(BUSY)?;
    let mut to = Connection::open(target)?;
    // Whatever happens to the copy, it is made again.
    to.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    from.execute_batch("BEGIN")?;
    // The snapshot is taken with the first read.
    let schema = from.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let page: u32 = from.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let copying = Backup::new(&from, &mut to)?;
    while copying.step(PAGES)? != StepResult::Done {
        let it = copying.progress();
        progress(u64::try_from(it.pagecount - it.remaining).unwrap_or(0) * u64::from(page));
    }
    drop(copying);
    from.execute_batch("COMMIT")?;
    Ok(schema)
}
