//! Making an installation: configuration, keys, a merchant. Everything is a file a person can read;
//! secrets are readable by their owner only. Nothing that exists is ever overwritten.

use crate::clock;
use crate::config::{Config, ConfigError, FILE_NAME};
use crate::gateway::{OpenError, open_vault};
use crate::merchants::apiv3_context;
use app::{Commit, CommitError, Merchant, Put, Store, StoreError};
use kernel::{BasisPoints, MerchantId, Secret};
use payments::{LatePolicy, Mode};
use seal::{Certificate, generate_rsa, random_bytes, random_nonce, self_signed};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use store::AnyStore;

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{0} exists already; nothing was changed. Choose another folder, or use what is there")]
    Exists(PathBuf),
    #[error("{path} cannot be written")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("a certificate could not be made")]
    Key(#[from] seal::KeyError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the merchant could not be written")]
    Commit(#[source] CommitError),
    #[error("merchant {0} exists already; its keys were not touched")]
    Merchant(MerchantId),
}

/// How long a platform or merchant certificate lives: five years, as WeChat Pay's do.
const CERTIFICATE_DAYS: i64 = 5 * 365;

/// Reads the 64 hexadecimal digits of a vault key.
pub fn parse_vault_key(text: &str) -> Option<[u8; 32]> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(|it| digit(it * 2)).collect();
    bytes.filter(|_| text.len() == 64)?.try_into().ok()
}

fn make_folder(path: &Path) -> Result<(), InstallError> {
    let named = |source| InstallError::Write { path: path.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(named)
}

/// Writes a new file, readable by its owner only.
fn write_new(path: &Path, text: &str) -> Result<(), InstallError> {
    let named = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => InstallError::Exists(path.into()),
        _ => InstallError::Write { path: path.into(), source },
    };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(named)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(named)
}

/// A key with the certificate that it signs for itself.
pub struct Identity {
    pub private_pem: String,
    pub public_pem: String,
    pub certificate: Certificate,
}

pub fn new_identity(name: &str) -> Result<Identity, seal::KeyError> {
    let pair = generate_rsa();
    let now = clock::wall();
    let until = now.plus_s(CERTIFICATE_DAYS * 86_400);
    let pem = self_signed(&pair.private_pem, name, random_bytes(), now.plus_s(-3600), until)?;
    let certificate = Certificate::from_pem(&pem)?;
    Ok(Identity { private_pem: pair.private_pem, public_pem: pair.public_pem, certificate })
}

/// A new APIv3 key: 32 letters or digits.
pub fn new_apiv3_key() -> String {
    random_nonce()
}

/// Makes folder, keys and a commented configuration. `channels` is TOML that is appended.
pub fn init(
    folder: &Path,
    listen: &str,
    public_url: &str,
    allow_private: bool,
    channels: &str,
) -> Result<PathBuf, InstallError> {
    let file = folder.join(FILE_NAME);
    if file.exists() {
        return Err(InstallError::Exists(file));
    }
    make_folder(&folder.join("keys"))?;
    let platform = new_identity("Feiqian Platform")?;
    let keys = folder.join("keys");
    write_new(&keys.join("platform_private_key.pem"), &platform.private_pem)?;
    write_new(&keys.join("platform_public_key.pem"), &platform.public_pem)?;
    write_new(&keys.join("platform_certificate.pem"), platform.certificate.pem())?;
    let vault = seal::digest::hex_lower(&random_bytes::<32>());
    write_new(&keys.join("vault.key"), &format!("{vault}\n"))?;
    let backup = seal::digest::hex_lower(&random_bytes::<32>());
    write_new(&keys.join("backup.key"), &format!("{backup}\n"))?;
    let digits: String = random_bytes::<24>().iter().map(|it| char::from(b'0' + it % 10)).collect();
    let text = CONFIG
        .replace("{listen}", listen)
        .replace("{public_url}", public_url)
        .replace("{public_key_id}", &format!("PUB_KEY_ID_01{digits}"))
        .replace("{allow_private}", if allow_private { "true" } else { "false" });
    write_new(&file, &format!("{text}{channels}"))?;
    Ok(file)
}

/// What `init` writes. Kept beside the reader in `config`, which refuses unknown names.
const CONFIG: &str = r#"# Feiqian configuration. Paths are relative to this file. `feiqian config check` explains what is
# wrong with it; `kill -HUP` makes a running server take over what can change while it runs.

[server]
listen = "{listen}"
# Where operators ask for metrics and health. Absent: on the same address as all else, and metrics
# only for callers on this machine.
# admin_listen = "127.0.0.1:9464"
# As merchants, payers and channels reach this server. No slash at the end.
public_url = "{public_url}"
# Which of 0 to 999 this process is, part of every serial. Absent: a free one is taken.
# node = 0
# Seconds that a process told to stop goes on answering, for a balancer to notice.
# drain_s = 0
zone = "Asia/Shanghai"
# WeChat Pay accepts a nonce twice; set true to refuse that.
refuse_replayed_nonces = false
# Set true only behind a proxy of your own that sets X-Forwarded-For.
behind_proxy = false

[store]
path = "feiqian.db"
# For several processes: PostgreSQL. Better in a file of its own: url_file = "secrets/store_url"
# url = "postgres://feiqian:password@127.0.0.1:5432/feiqian"

[keys]
platform_private_key = "keys/platform_private_key.pem"
platform_certificate = "keys/platform_certificate.pem"
platform_public_key_id = "{public_key_id}"
# Encrypts secrets in the database. Without it the database cannot be used: back it up apart.
vault_key = "keys/vault.key"

# A new platform key, before it becomes the one above: it is listed for download, and used for
# merchants that ask for it.
# [[keys.additional]]
# private_key = "keys/platform_private_key_2.pem"
# certificate = "keys/platform_certificate_2.pem"
# public_key_id = "PUB_KEY_ID_…"

[notify]
# Let notifications go to private and loopback addresses.
allow_private = {allow_private}

[orders]
# How long an order lives whose merchant did not say, in seconds.
default_expiry_s = 604800

[risk]
# The largest single payment in minor units; absent allows all.
# single_limit_minor = 5000000

[observe]
# The collector of trace spans, OTLP over HTTP. Absent: nothing is traced.
# otlp_endpoint = "http://127.0.0.1:4318"
# The share of traces that is kept, 0 to 1.
# trace_share = 1.0
# How often the worker recomputes the books, in seconds; 0 is never.
ledger_check_every_s = 3600

[backup]
# Encrypts backups and is in none of them: keep a copy on another machine, or backups are worthless.
key = "keys/backup.key"
# PostgreSQL: where `feiqian wal push` keeps the log, for recovery to a point in time. docs/backup.md
# archive = "/var/backups/feiqian/wal"

# Protection from abuse and overload; these are the defaults. A rate of 0 does not limit.
# docs/configuration.md explains each.
# [limits]
# per_merchant_per_s = 1000
# merchant_burst = 2000
# per_ip_per_s = 2000
# ip_burst = 4000
# max_connections = 20000
# max_connections_per_ip = 5000
# max_in_flight = 1024
# queue_wait_ms = 200
# header_bytes = 16384
# body_bytes = 65536
# header_timeout_s = 10
# body_timeout_s = 10
# idle_timeout_s = 75

# One block for each account at a channel. Without any, every order is refused.
# [[channel]]
# kind = "wechat"
# id = "wechat"
# label_zh = "微信支付"
# label_en = "WeChat Pay"
# mchid = "1900000109"
# appid = "wx2421b1c4370ec43b"
# merchant_serial = "serial number of the API certificate"
# merchant_private_key = "keys/wechat_private_key.pem"
# apiv3_key = "keys/wechat_apiv3_key"
# cost_bps = 30
# platform_public_key = "keys/wechat_public_key.pem"
# platform_public_key_id = "PUB_KEY_ID_…"
"#;

/// A merchant to be added.
#[derive(Clone, Debug)]
pub struct NewMerchant {
    pub id: MerchantId,
    pub name: String,
    pub appid: String,
    pub fee_rate: BasisPoints,
    pub mode: Mode,
    pub late: LatePolicy,
}

/// The files that a merchant gets.
#[derive(Clone, Debug)]
pub struct MerchantFiles {
    pub folder: PathBuf,
    pub private_key: PathBuf,
    pub certificate: PathBuf,
    pub serial: String,
    pub apiv3_key: PathBuf,
    pub apiv2_key: PathBuf,
    pub platform_public_key: PathBuf,
    pub platform_certificate: PathBuf,
}

/// Where a merchant's files are.
pub fn files_of(config: &Config, id: &MerchantId, serial: String) -> MerchantFiles {
    let folder = config.folder.join("merchants").join(id.as_str());
    MerchantFiles {
        private_key: folder.join("private_key.pem"),
        certificate: folder.join("certificate.pem"),
        serial,
        apiv3_key: folder.join("apiv3_key"),
        apiv2_key: folder.join("apiv2_key"),
        platform_public_key: folder.join("platform_public_key.pem"),
        platform_certificate: folder.join("platform_certificate.pem"),
        folder,
    }
}

/// Creates a merchant with a key, a certificate and an APIv3 key of its own.
///
/// The private key is written for the merchant and not kept in the database.
pub async fn add_merchant(
    config: &Config,
    store: &AnyStore,
    new: &NewMerchant,
) -> Result<MerchantFiles, InstallError> {
    if store.merchant(&new.id).await?.is_some() {
        return Err(InstallError::Merchant(new.id.clone()));
    }
    let (vault, _) = open_vault(config)?;
    let identity = new_identity(new.id.as_str())?;
    let apiv3_key = new_apiv3_key();
    let files = files_of(config, &new.id, identity.certificate.serial().to_owned());
    make_folder(&files.folder)?;
    write_new(&files.private_key, &identity.private_pem)?;
    write_new(&files.certificate, identity.certificate.pem())?;
    write_new(&files.apiv3_key, &apiv3_key)?;
    write_new(&files.apiv2_key, &random_nonce())?;
    let certificate_path = config.path(&config.keys.platform_certificate);
    let named = |source| InstallError::Write { path: certificate_path.clone(), source };
    let platform = fs::read_to_string(&certificate_path).map_err(named)?;
    write_new(&files.platform_certificate, &platform)?;
    let public = Certificate::from_pem(&platform)?.verifier().public_key_pem();
    write_new(&files.platform_public_key, &public)?;
    let merchant = Merchant {
        id: new.id.clone(),
        name: new.name.clone(),
        appids: vec![new.appid.clone()],
        fee_rate: new.fee_rate,
        mode: new.mode,
        late: new.late,
        certificate_pem: identity.certificate.pem().to_owned(),
        certificate_serial: files.serial.clone(),
        sealed_apiv3_key: vault.seal(&apiv3_context(&new.id), &Secret::new(apiv3_key)),
        active: true,
    };
    let put = Put { value: merchant, expected: 0 };
    let commit = Commit { merchants: vec![put], ..Commit::default() };
    store.commit(commit).await.map_err(InstallError::Commit)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_key_is_64_hex_digits() {
        assert_eq!(parse_vault_key(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(parse_vault_key(&"0f".repeat(31)), None);
        assert_eq!(parse_vault_key(&"0f".repeat(33)), None);
        assert_eq!(parse_vault_key(&"zz".repeat(32)), None);
    }

    #[test]
    fn what_init_writes_can_be_read_and_is_never_overwritten() {
        let folder = std::env::temp_dir().join(format!("feiqian-init-{}", random_nonce()));
        let file = init(&folder, "127.0.0.1:0", "http://127.0.0.1:8080", true, "").unwrap();
        let config = Config::load(&file).unwrap();
        assert!(config.notify.allow_private);
        let again = init(&folder, "127.0.0.1:0", "http://127.0.0.1:8080", true, "");
        assert!(matches!(again, Err(InstallError::Exists(_))));
        fs::remove_dir_all(folder).unwrap();
    }
}
