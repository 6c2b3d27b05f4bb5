//! A PostgreSQL cluster: the base backup that `pg_basebackup` streams, and what a restored data
//! folder is told about its recovery. PostgreSQL itself is started by whoever restores.

use crate::cli::Fault;
use kernel::Timestamp;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Where distributions put PostgreSQL's programs of one major version.
fn usual_places(major: u32) -> [PathBuf; 2] {
    [
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
    ]
}

fn find(program: &str, major: u32, configured: Option<&Path>) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = configured.iter().map(|it| it.to_path_buf()).collect();
    if configured.is_none() {
        folders.extend(usual_places(major));
        let path = std::env::var_os("PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&path));
    }
    folders.into_iter().map(|it| it.join(program)).find(|it| it.is_file())
}

/// `pg_basebackup` at work: what it writes is read here, what it says is kept.
pub struct BaseBackup {
    child: Child,
    complaints: JoinHandle<String>,
}

impl BaseBackup {
    /// - Input: `environment` says where the server is.
    pub fn start(
        major: u32,
        configured: Option<&Path>,
        environment: Vec<(&'static str, String)>,
    ) -> Result<BaseBackup, Fault> {
        let program = find("pg_basebackup", major, configured).ok_or_else(|| {
            format!(
                "pg_basebackup is not on this machine: install PostgreSQL {major}'s client programs \
                 (Debian: postgresql-client-{major}), or name their folder in [backup] programs"
            )
        })?;
        // One stream with everything in it, the log from its beginning to its end too.
        let mut child = Command::new(&program)
            .args(["--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast"])
            .args(["--no-password", "--label=feiqian"])
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let mut said = child.stderr.take().expect("it was piped");
        let complaints = std::thread::spawn(move || {
            let mut text = String::new();
            said.read_to_string(&mut text).ok();
            text
        });
        Ok(BaseBackup { child, complaints })
    }

    /// An error here means that what was read is not a backup.
    pub fn finish(mut self) -> Result<(), Fault> {
        let status = self.child.wait()?;
        let said = self.complaints.join().unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(format!(
            "pg_basebackup failed: {}; its role needs REPLICATION and a line for `replication` in \
             pg_hba.conf, and wal_keep_size must outlast the backup (docs/backup.md)",
            said.trim()
        )
        .into())
    }
}

impl Read for BaseBackup {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.child.stdout.as_mut().expect("it was piped").read(into)
    }
}

/// Unpacks a base backup into a new folder.
pub fn unpack(part: &mut dyn Read, folder: &Path) -> io::Result<()> {
    let said = |words: String| io::Error::other(words);
    let mut child = Command::new("tar")
        .args(["--extract", "--file=-", "--directory"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| said(format!("the program tar does not start: {error}; install it")))?;
    let mut stdin = child.stdin.take().expect("it was piped");
    let mut piece = vec![0; 64 * 1024];
    let fed = loop {
        match part.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(read) => match stdin.write_all(&piece[..read]) {
                Ok(()) => {}
                // It has seen the end, or failed, which its status tells.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break Ok(()),
                Err(error) => break Err(error),
            },
            Err(error) => break Err(error),
        }
    };
    drop(stdin);
    let status = child.wait()?;
    fed?;
    if status.success() { Ok(()) } else { Err(said(format!("tar ended with {status}"))) }
}

/// How a restored cluster gets its log back.
pub struct Recovery {
    /// A command with `%f` and `%p` for PostgreSQL to fill in.
    pub restore_command: String,
    pub until: Option<Timestamp>,
}

/// `'it''s'`: a value in PostgreSQL's configuration.
fn setting(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `'it'\''s'`: a word for the shell that PostgreSQL starts, with its own `%` escaped.
pub fn word(value: &Path) -> String {
    format!("'{}'", value.display().to_string().replace('\'', "'\\''").replace('%', "%%"))
}

/// Writes what the cluster needs to recover, and nothing more: without `recovery` it ends where the
/// base backup ends.
pub fn prepare(data: &Path, recovery: Option<&Recovery>) -> io::Result<()> {
    let mut text = String::from(
        "# Written by feiqian restore. A restored copy archives nothing: it would mix its log with that\n\
         # of the cluster it came from. Give it an archive of its own before archive_mode = on.\n\
         archive_mode = off\n\
         # No reader sees it half recovered.\n\
         hot_standby = off\n",
    );
    if let Some(it) = recovery {
        text += &format!("restore_command = {}\n", setting(&it.restore_command));
        if let Some(until) = it.until {
            text += &format!("recovery_target_time = {}\n", setting(&moment(until)));
        }
        text += "recovery_target_action = 'promote'\n";
        fs::write(data.join("recovery.signal"), "")?;
    }
    let auto = data.join("postgresql.auto.conf");
    let before = match fs::read_to_string(&auto) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    fs::write(auto, before + &text)?;
    // Debian keeps these outside of the data folder, where no base backup finds them.
    for (name, text) in [
        ("postgresql.conf", "# Written by feiqian restore: the backup had none.\n"),
        (
            "pg_hba.conf",
            "# Written by feiqian restore: the backup had none.\n\
             local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\n",
        ),
        ("pg_ident.conf", ""),
    ] {
        if !data.join(name).exists() {
            fs::write(data.join(name), text)?;
        }
    }
    Ok(())
}

/// A moment to the millisecond, as PostgreSQL reads it.
fn moment(at: Timestamp) -> String {
    let text = wechatpay::beijing::rfc3339(at);
    let (time, zone) = text.split_at(19);
    format!("{time}.{:03}{zone}", at.ms().rem_euclid(1000))
}

/// The newest segment that a base backup brought, and the size of segments.
pub fn last_segment(data: &Path) -> io::Result<Option<(String, u64)>> {
    let mut last: Option<(String, u64)> = None;
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if super::segments::is_segment(&name) && last.as_ref().is_none_or(|it| it.0 < name) {
            last = Some((name, entry.metadata()?.len()));
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_survive_both_readers() {
        assert_eq!(word(Path::new("/it's/50%")), "'/it'\\''s/50%%'");
        assert_eq!(setting("a 'b'"), "'a ''b'''");
        assert_eq!(moment(Timestamp::from_ms(1_528_425_296_007)), "2018-06-08T10:34:56.007+08:00");
    }
}
