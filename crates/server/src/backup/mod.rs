//! `feiqian backup`, `restore`, `verify` and `wal`: encrypted copies of the database, and the way
//! back. A backup is one file that appears when it is whole and durable, never before.

mod archive;
mod files;
mod postgres;
mod segments;
mod sqlite;

use crate::cli::{Fault, Place, say};
use crate::clock;
use crate::config::Config;
use crate::install::parse_vault_key;
use archive::{ArchiveError, ArchiveWriter, Engine, Manifest};
use clap::{Args, Subcommand};
use kernel::Timestamp;
use postgres::{BaseBackup, Recovery};
use segments::{SegmentError, Segments};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{PostgresUrl, SqliteStore};

const DATABASE: &str = "feiqian.db";
const BASE: &str = "base.tar";
/// The ending of a backup that is being written.
const PARTIAL: &str = ".partial";
/// The data folder of a restored cluster.
const CLUSTER: &str = "postgres";

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    place: Place,
    /// The file to write; it must not exist
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Put the configuration and the key files in as well
    #[arg(long)]
    with_keys: bool,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    keys: Keys,
    /// The backup
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// PostgreSQL: recover to this moment, such as 2026-11-22T10:34:56+08:00; else as far as the log goes
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// PostgreSQL: the folder of archived log, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// If the folder exists and is not empty, set it aside under another name
    #[arg(long)]
    force: bool,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The backup
    path: PathBuf,
    #[command(flatten)]
    keys: Keys,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// archive_command: take a finished file of the log into the archive
    Push {
        /// %p
        path: PathBuf,
        #[command(flatten)]
        keys: Keys,
        #[arg(long, value_name = "DIR")]
        archive: Option<PathBuf>,
    },
    /// restore_command: bring a file back; exit 1 if there is none, 126 if the archive is damaged
    Pull {
        /// %f
        name: String,
        /// %p
        path: PathBuf,
        #[command(flatten)]
        keys: Keys,
        #[arg(long, value_name = "DIR")]
        archive: Option<PathBuf>,
    },
}

/// Where the backup key is.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(flatten)]
    place: Place,
    /// The file of the backup key, instead of the configuration's
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Keys {
    fn file(&self) -> Result<PathBuf, Fault> {
        match &self.key {
            Some(it) => Ok(std::path::absolute(it)?),
            None => key_file(&self.place.config()?),
        }
    }

    fn archive(&self, given: Option<&Path>) -> Result<Option<PathBuf>, Fault> {
        let found = match (given, &self.key) {
            (Some(it), _) => it.to_path_buf(),
            // A machine with the key alone has no configuration.
            (None, Some(_)) if !self.place.file().exists() => return Ok(None),
            (None, _) => {
                let config = self.place.config()?;
                match &config.backup.archive {
                    Some(it) => config.path(it),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(std::path::absolute(found)?))
    }

    fn segments(&self, given: Option<&Path>) -> Result<Segments, Fault> {
        let folder = self.archive(given)?;
        let folder = folder.ok_or("no archive folder; set [backup] archive, or give --archive")?;
        Ok(Segments { folder, key: read_key(&self.file()?)? })
    }
}

fn key_file(config: &Config) -> Result<PathBuf, Fault> {
    let path = config.backup.key.as_ref().ok_or(
        "no backup key: set [backup] key to a file with 64 hexadecimal digits \
         (openssl rand -hex 32 > keys/backup.key) and keep a copy elsewhere",
    )?;
    Ok(std::path::absolute(config.path(path))?)
}

fn read_key(path: &Path) -> Result<[u8; 32], Fault> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("the backup key {shown} cannot be read: {error}"))?;
    let key = parse_vault_key(text.trim());
    Ok(key.ok_or_else(|| format!("the backup key {shown} does not hold 64 hexadecimal digits"))?)
}

/// What a person at a terminal sees of work that takes long.
struct Progress {
    what: &'static str,
    shown: bool,
    last: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Progress {
        Progress { what, shown: io::stderr().is_terminal(), last: Instant::now() }
    }

    fn at(&mut self, bytes: u64) {
        if self.shown && self.last.elapsed() > Duration::from_millis(200) {
            self.last = Instant::now();
            eprint!("\r{} {} MiB ", self.what, bytes >> 20);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprintln!();
        }
    }
}

/// Removes what was begun, unless it was finished.
struct Draft(Option<PathBuf>);

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let removed =
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                eprintln!("feiqian: {} could not be removed: {error}", path.display());
            }
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

pub async fn backup(args: BackupArgs) -> Result<(), Fault> {
    let start = Instant::now();
    let config = args.place.config()?;
    let key = read_key(&key_file(&config)?)?;
    let to = std::path::absolute(&args.to)?;
    let shown = to.display();
    if to.exists() {
        return Err(format!("{shown} exists; a backup never replaces a file").into());
    }
    if let Some(folder) = to.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let partial = beside(&to, PARTIAL);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let file = file.map_err(|error| {
        format!(
            "{} cannot be written: {error}. If it exists, another backup writes it or was ended: \
             remove it, or choose another name",
            partial.display()
        )
    })?;
    let _draft = Draft(Some(partial.clone()));
    let mut writer = ArchiveWriter::new(file, &key)?;
    let mut manifest = match &config.store.url {
        None => add_sqlite(&config, &mut writer)?,
        Some(url) => add_postgres(&config, url, &mut writer).await?,
    };
    let needed = files::needed(&config);
    for it in needed.iter().filter(|_| args.with_keys) {
        let shown = it.path.display();
        let mut file = File::open(&it.path)
            .map_err(|error| format!("{shown}, which the configuration names: {error}"))?;
        writer.add(&it.part, &mut file, &mut |_| {})?;
    }
    let apart = needed.iter().filter(|_| !args.with_keys).map(|it| it.path.clone());
    let apart = apart.chain([key_file(&config)?]);
    manifest.not_included = apart.map(|it| it.display().to_string()).collect();
    let (file, manifest) = writer.finish(manifest)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    // A link never replaces a file; the draft's own name goes with `_draft`.
    fs::hard_link(&partial, &to).map_err(|error| format!("{shown} cannot be made: {error}"))?;
    fs::remove_file(&partial)?;
    sync_folder_of(&to)?;
    if args.json {
        let seconds = start.elapsed().as_secs_f64();
        say!("{}", facts(&manifest, &to, json!({ "file_bytes": bytes, "seconds": seconds }))?);
    } else {
        say!("{shown}  {bytes} bytes, {}", describe(&manifest));
        for it in &manifest.not_included {
            say!("not included  {it}");
        }
        say!("Copy it to another machine; `feiqian verify {shown}` checks it.");
    }
    Ok(())
}

fn facts(manifest: &Manifest, path: &Path, more: Value) -> Result<Value, Fault> {
    let mut all = json!({ "ok": true, "path": path, "manifest": manifest });
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    Ok(all)
}

fn describe(it: &Manifest) -> String {
    let engine = match (it.engine, it.postgres_major) {
        (Engine::Sqlite, _) => "SQLite".into(),
        (Engine::Postgres, major) => format!("PostgreSQL {}", major.unwrap_or_default()),
    };
    let at = wechatpay::beijing::rfc3339(Timestamp::from_ms(it.began_ms));
    format!("{engine}, schema {}, begun {at}, by feiqian {}", it.schema, it.feiqian)
}

fn manifest(engine: Engine, schema: u32, began_ms: i64, ended_ms: i64) -> Manifest {
    Manifest {
        format: 0,
        feiqian: env!("CARGO_PKG_VERSION").into(),
        schema,
        engine,
        postgres_major: None,
        began_ms,
        ended_ms,
        parts: Vec::new(),
        not_included: Vec::new(),
    }
}

/// The copy lies beside the database while it is put in: plain text goes where plain text is.
fn add_sqlite(config: &Config, writer: &mut ArchiveWriter<File>) -> Result<Manifest, Fault> {
    let source = config.path(&config.store.path);
    if !source.is_file() {
        return Err(format!("there is no database {}", source.display()).into());
    }
    let lock = beside(&source, ".backup-lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
    lock.try_lock().map_err(|_| "another backup of this database is being made; wait for it")?;
    let copy = beside(&source, ".backup-copy");
    // One that was killed may have left it.
    fs::remove_file(&copy).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy)?;
    let _draft = Draft(Some(copy.clone()));
    tokio::task::block_in_place(|| {
        let began = clock::wall();
        let mut progress = Progress::new("copying the database");
        let schema = sqlite::copy(&source, &copy, &mut |bytes| progress.at(bytes))
            .map_err(|error| format!("{} cannot be copied: {error}", source.display()))?;
        drop(progress);
        let ended = clock::wall();
        let mut progress = Progress::new("encrypting");
        writer.add(DATABASE, &mut File::open(&copy)?, &mut |bytes| progress.at(bytes))?;
        Ok(manifest(Engine::Sqlite, schema, began.ms(), ended.ms()))
    })
}

async fn add_postgres(
    config: &Config,
    url: &str,
    writer: &mut ArchiveWriter<File>,
) -> Result<Manifest, Fault> {
    let store = PostgresUrl::parse(url)?;
    let tools = PostgresUrl::parse(config.backup.url.as_deref().unwrap_or(url))?;
    let before = store.look().await?;
    let programs = config.backup.programs.as_ref().map(|it| config.path(it));
    tokio::task::block_in_place(|| {
        let mut base = BaseBackup::start(before.major, programs.as_deref(), tools.environment())?;
        let mut progress = Progress::new("copying and encrypting the cluster");
        writer.add(BASE, &mut base, &mut |bytes| progress.at(bytes))?;
        base.finish()
    })?;
    let after = store.look().await?;
    let manifest = manifest(Engine::Postgres, after.schema, before.now_ms, after.now_ms);
    Ok(Manifest { postgres_major: Some(after.major), ..manifest })
}

/// Reads a backup whole, with its name in what is wrong.
fn read(
    path: &Path,
    key: &[u8; 32],
    what: &'static str,
    take: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> Result<Manifest, Fault> {
    let named = |error: ArchiveError| format!("backup {}: {error}", path.display());
    // Between its last byte and its name it is whole, but nobody was told so, and perhaps not durable.
    if path.as_os_str().to_string_lossy().ends_with(PARTIAL) {
        return Err(format!("backup {} was never finished; remove it", path.display()).into());
    }
    let mut progress = Progress::new(what);
    let mut done = 0;
    let file = File::open(path).map_err(|it| named(it.into()))?;
    let counted = Counted { inner: file, tell: &mut |bytes| progress.at(bytes), done: &mut done };
    let manifest = tokio::task::block_in_place(|| archive::read(counted, key, take));
    Ok(manifest.map_err(named)?)
}

struct Counted<'a> {
    inner: File,
    tell: &'a mut dyn FnMut(u64),
    done: &'a mut u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        *self.done += u64::try_from(read).unwrap_or(0);
        (self.tell)(*self.done);
        Ok(read)
    }
}

fn write_new(path: &Path, from: &mut dyn Read) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(&mut (&mut *from), &mut file)?;
    file.sync_all()
}

pub async fn verify(args: VerifyArgs) -> Result<(), Fault> {
    let key = read_key(&args.keys.file()?)?;
    let folder = std::env::temp_dir().join(format!("feiqian-verify-{}", seal::random_nonce()));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let draft = Draft(Some(folder.clone()));
    let manifest = read(&args.path, &key, "checking", &mut |name, part| match name {
        DATABASE => write_new(&folder.join(DATABASE), part),
        _ => Ok(()),
    })?;
    let mut more = json!({});
    let mut findings = Vec::new();
    if manifest.engine == Engine::Sqlite {
        let store = SqliteStore::open(&folder.join(DATABASE))?;
        let report = app::audit(&store, |_| {}).await?;
        more = json!({ "payments": report.payments, "refunds": report.refunds,
            "accounts": report.accounts });
        findings = report.findings;
    }
    drop(draft);
    let ok = findings.is_empty();
    if args.json {
        let mut all =
            facts(&manifest, &args.path, json!({ "ledger": more, "findings": findings }))?;
        all["ok"] = ok.into();
        say!("{all}");
    } else {
        say!("{}  {}", args.path.display(), describe(&manifest));
        for it in &manifest.parts {
            say!("{:<40} {:>14} bytes  {}", it.name, it.bytes, it.sha256);
        }
        for it in &findings {
            say!("WRONG  {it}");
        }
        match manifest.engine {
            Engine::Sqlite if ok => say!("The backup is whole, and the books in it are right."),
            Engine::Sqlite => say!("The backup is whole, and the books in it are wrong."),
            Engine::Postgres => say!(
                "The backup is whole. Only a restored cluster shows its books: rehearse it, docs/backup.md."
            ),
        }
    }
    if ok { Ok(()) } else { Err("the books in the backup are wrong".into()) }
}

pub async fn restore(args: RestoreArgs) -> Result<(), Fault> {
    let start = Instant::now();
    let key_file = args.keys.file()?;
    let key = read_key(&key_file)?;
    let until = args.at.as_deref().map(Timestamp::parse_rfc3339).transpose()?;
    let to = std::path::absolute(&args.to)?;
    let shown = to.display();
    let occupied = to.exists() && fs::read_dir(&to).map_or(true, |mut it| it.next().is_some());
    if occupied && !args.force {
        let hint = "choose a new folder, or --force to set it aside under another name";
        return Err(format!("{shown} exists; nothing was changed: {hint}").into());
    }
    let staging = beside(&to, &format!(".restoring-{}", &seal::random_nonce()[..8]));
    // PostgreSQL's user must get through it; what lies in it is closed by itself.
    DirBuilder::new().recursive(true).mode(0o711).create(&staging)?;
    let mut draft = Draft(Some(staging.clone()));
    let manifest = read(&args.from, &key, "restoring", &mut |name, part| {
        let path = staging.join(name);
        match name {
            BASE => {
                let data = staging.join(CLUSTER);
                DirBuilder::new().mode(0o700).create(&data)?;
                postgres::unpack(part, &data)
            }
            _ if files::is_safe(name) => write_new(&path, part),
            _ => Err(io::Error::other(format!("its part {name} would leave the folder"))),
        }
    })?;
    let recovered = match manifest.engine {
        Engine::Sqlite if until.is_some() => {
            let hint =
                "a SQLite backup holds one moment; choose the backup that was made last before it";
            return Err(hint.into());
        }
        Engine::Sqlite => "as the backup was made".to_owned(),
        Engine::Postgres => {
            let archive = args.keys.archive(args.archive.as_deref())?;
            prepare_cluster(&manifest, &staging.join(CLUSTER), &key_file, archive, until)?
        }
    };
    let mut aside = None;
    if occupied {
        let path = beside(&to, &format!(".before-{}", clock::wall().seconds()));
        fs::rename(&to, &path)?;
        aside = Some(path);
    }
    fs::rename(&staging, &to).map_err(|error| {
        format!(
            "{shown} cannot be made: {error}; a mount point cannot be replaced, name a folder in it"
        )
    })?;
    draft.0 = None;
    sync_folder_of(&to)?;
    let next = next_steps(&manifest, &to);
    if args.json {
        let more = json!({ "recovers": recovered, "set_aside": aside, "next": next,
            "seconds": start.elapsed().as_secs_f64() });
        say!("{}", facts(&manifest, &to, more)?);
    } else {
        say!("{shown}  {}", describe(&manifest));
        if let Some(path) = aside {
            say!("What was there before is {}", path.display());
        }
        say!("It recovers {recovered}. Next:");
        for step in next {
            say!("  {step}");
        }
        for it in &manifest.not_included {
            say!("not in the backup  {it}");
        }
    }
    Ok(())
}

/// Tells the cluster how to recover; says in words how far.
fn prepare_cluster(
    manifest: &Manifest,
    data: &Path,
    key_file: &Path,
    archive: Option<PathBuf>,
    until: Option<Timestamp>,
) -> Result<String, Fault> {
    if until.is_some_and(|it| it.ms() < manifest.ended_ms) {
        let ended = wechatpay::beijing::rfc3339(Timestamp::from_ms(manifest.ended_ms + 999));
        return Err(format!("the backup was finished at {ended}, after the moment that was asked for; choose an older backup").into());
    }
    let Some(folder) = archive else {
        if until.is_some() {
            return Err("a moment after the backup needs the archived log; set [backup] archive, or give --archive".into());
        }
        postgres::prepare(data, None)?;
        return Ok("as the backup was made: there is no archived log".into());
    };
    let segments = Segments { folder, key: read_key(key_file)? };
    if let Some((last, size)) = postgres::last_segment(data)? {
        match segments.check_unbroken_after(&last, size) {
            // Perhaps the moment lies before the hole; if not, PostgreSQL is told and stops.
            Err(error) if until.is_some() => eprintln!("feiqian: warning: {error}"),
            other => other?,
        }
    }
    let program = std::env::current_exe()?;
    let words = [&program, key_file, &segments.folder].map(|it: &Path| postgres::word(it));
    let [program, key, archive] = words;
    let restore_command = format!("{program} wal pull %f %p --key {key} --archive {archive}");
    postgres::prepare(data, Some(&Recovery { restore_command, until }))?;
    Ok(match until {
        Some(it) => format!("to {}, when it is started", wechatpay::beijing::rfc3339(it)),
        None => "as far as the archived log goes, when it is started".into(),
    })
}

fn next_steps(manifest: &Manifest, to: &Path) -> Vec<String> {
    match manifest.engine {
        Engine::Sqlite => {
            let file = to.join(DATABASE);
            vec![
                "stop feiqian".into(),
                format!("in the configuration: [store] path = \"{}\"", file.display()),
                "feiqian ledger check --config FILE".into(),
                "start feiqian; compare what came after the backup with the channel's bill".into(),
            ]
        }
        Engine::Postgres => {
            let (data, major) = (to.join(CLUSTER), manifest.postgres_major.unwrap_or_default());
            let data = data.display();
            vec![
                format!(
                    "chown -R postgres: {data}; the key and the archive must be readable for postgres"
                ),
                format!(
                    "as postgres: /usr/lib/postgresql/{major}/bin/pg_ctl -D {data} -o '-p PORT' -w -t 3600 start"
                ),
                "in the configuration: [store] url with that server".into(),
                "feiqian ledger check --config FILE".into(),
                "take a new backup, with an archive folder of its own".into(),
            ]
        }
    }
}

/// PostgreSQL reads the exit code: 1 is the end of the log, from 126 on it gives up rather than end
/// its recovery too early.
const DAMAGED: i32 = 126;

pub fn wal(command: WalCommand) -> Result<(), Fault> {
    match command {
        WalCommand::Push { path, keys, archive } => {
            Ok(keys.segments(archive.as_deref())?.push(&path)?)
        }
        WalCommand::Pull { name, path, keys, archive } => {
            let pulled = match keys.segments(archive.as_deref()) {
                Ok(segments) => segments.pull(&name, &path).map_err(Fault::from),
                Err(error) => Err(error),
            };
            match pulled {
                Err(error) if !is_absent(error.as_ref()) => {
                    eprintln!("feiqian: {}", crate::cli::explain(error.as_ref()));
                    std::process::exit(DAMAGED)
                }
                other => other,
            }
        }
    }
}

fn is_absent(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(SegmentError::Absent(_)))
}
