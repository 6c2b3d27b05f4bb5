//! The configuration: one TOML file, single values overridden by the environment. Paths in it are
//! relative to the file.
//!
//! The structures below are the one description of it. Their JSON Schema ([`schema`]) checks the
//! file, explains it to editors, names the variables of the environment and says what a running
//! process takes over. A key with `x-live` does; one with `x-secret` is never printed and may be
//! given as `key_file` instead.

mod document;
mod files;
mod finding;
mod limits;
mod rules;
pub mod schema;
mod show;

pub use document::{Origin, Source};
pub use files::{ChannelFiles, Files, PlatformKey};
pub use finding::{Finding, Findings, Severity};
pub use limits::LimitsConfig;
pub use show::{Shown, changes, shown};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const FILE_NAME: &str = "feiqian.toml";

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Feiqian configuration")]
pub struct Config {
    pub server: ServerConfig,
    #[serde(default)]
    pub store: StoreConfig,
    pub keys: KeysConfig,
    #[serde(default)]
    pub notify: NotifyConfig,
    #[serde(default)]
    pub orders: OrdersConfig,
    #[serde(default)]
    pub risk: RiskConfig,
    #[serde(default)]
    pub limits: LimitsConfig,
    #[serde(default)]
    pub observe: ObserveConfig,
    #[serde(default)]
    pub backup: BackupConfig,
    /// One block for each account at a channel.
    #[serde(default, rename = "channel")]
    pub channels: Vec<ChannelConfig>,
    /// The folder of the file.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Where each value came from.
    #[serde(skip)]
    pub origin: Arc<Origin>,
}

/// How the process is reached.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port to listen on.
    #[schemars(extend("format" = "address:port"))]
    pub listen: SocketAddr,
    /// Where operators ask: `/metrics`, `/healthz`, `/readyz`, `/buildz`. Without it those are on
    /// `listen`, and metrics only for callers on the same machine.
    #[serde(default)]
    #[schemars(extend("format" = "address:port"))]
    pub admin_listen: Option<SocketAddr>,
    /// As merchants, payers and channels reach it: `https://pay.example.com`, no slash at the end.
    #[schemars(extend("x-live" = true))]
    pub public_url: String,
    /// Part of every serial that this process draws: another one for each process. Absent: one that
    /// no living process has is taken from the store.
    #[serde(default)]
    #[schemars(range(min = 0, max = 999))]
    pub node: Option<u16>,
    /// How long a process that is told to stop goes on answering, in seconds: it says that it is not
    /// ready and closes each connection after its answer, so that balancers go elsewhere first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 300))]
    pub drain_s: u32,
    /// Whose midnight ends the business day: an IANA name.
    #[serde(default = "shanghai")]
    pub zone: String,
    /// Refuse a request whose nonce was seen in the last five minutes. WeChat Pay does not.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub refuse_replayed_nonces: bool,
    /// Believe `X-Forwarded-For`: only behind a proxy of your own.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub behind_proxy: bool,
}

fn shanghai() -> String {
    "Asia/Shanghai".into()
}

/// Where everything is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The SQLite database, if there is no `url`.
    pub path: PathBuf,
    /// A PostgreSQL database for several processes: `postgres://user:password@host:port/name`;
    /// several hosts with commas, `?sslmode=require` to encrypt and verify.
    #[schemars(extend("x-secret" = true))]
    pub url: Option<String>,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig { path: "feiqian.db".into(), url: None }
    }
}

/// The platform's own keys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// File of the key that signs answers and notifications.
    #[schemars(extend("x-live" = true))]
    pub platform_private_key: PathBuf,
    /// File of its certificate, for merchants in certificate mode.
    #[schemars(extend("x-live" = true))]
    pub platform_certificate: PathBuf,
    /// Its name for merchants in public-key mode: `PUB_KEY_ID_` and digits.
    #[schemars(extend("x-live" = true))]
    pub platform_public_key_id: String,
    /// File of 32 bytes in hex; encrypts secrets in the database and signs our own links.
    pub vault_key: PathBuf,
    /// More platform keys, for a change of keys: listed for download, and used for merchants that
    /// ask for them by serial.
    #[serde(default)]
    pub additional: Vec<AdditionalKey>,
}

/// A platform key beside the default one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdditionalKey {
    /// File of the private key.
    #[schemars(extend("x-live" = true))]
    pub private_key: PathBuf,
    /// File of its certificate.
    #[schemars(extend("x-live" = true))]
    pub certificate: PathBuf,
    /// Its name for merchants in public-key mode.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub public_key_id: Option<String>,
}

/// Notifications to merchants.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// Let notifications go to private and loopback addresses.
    #[schemars(extend("x-live" = true))]
    pub allow_private: bool,
}

/// Orders of all merchants.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OrdersConfig {
    /// How long an order lives whose merchant did not say.
    #[schemars(range(min = 60, max = 1_296_000), extend("x-live" = true))]
    pub default_expiry_s: i64,
}

impl Default for OrdersConfig {
    fn default() -> OrdersConfig {
        OrdersConfig { default_expiry_s: wechatpay::create::DEFAULT_EXPIRY_S }
    }
}

/// What of the platform can be seen from outside.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObserveConfig {
    /// Where trace spans go, OTLP over HTTP: `http://collector:4318`. Absent: nothing is traced.
    #[schemars(regex(pattern = "^https?://"))]
    pub otlp_endpoint: Option<String>,
    /// The share of traces that is kept.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub trace_share: f64,
    /// The name under which traces are found; the role is appended.
    pub service_name: String,
    /// How often a worker recomputes the books, in seconds; 0 is never.
    pub ledger_check_every_s: u64,
}

impl Default for ObserveConfig {
    fn default() -> ObserveConfig {
        ObserveConfig {
            otlp_endpoint: None,
            trace_share: 1.0,
            service_name: "feiqian".into(),
            ledger_check_every_s: 3_600,
        }
    }
}

impl ObserveConfig {
    /// The address for spans: collectors name their base, and this is the path below it.
    pub fn traces_url(&self) -> Option<String> {
        const PATH: &str = "/v1/traces";
        let base = self.otlp_endpoint.as_deref()?.trim_end_matches('/');
        Some(if base.ends_with(PATH) { base.into() } else { format!("{base}{PATH}") })
    }
}

/// Backups.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackupConfig {
    /// File of 64 hexadecimal digits that encrypts backups. It is in no backup: keep a copy elsewhere.
    pub key: Option<PathBuf>,
    /// Folder that `feiqian wal push` fills with PostgreSQL's log, for recovery to a point in time.
    pub archive: Option<PathBuf>,
    /// The PostgreSQL address with which base backups are taken; its role may replicate. Absent: `store.url`.
    #[schemars(extend("x-secret" = true))]
    pub url: Option<String>,
    /// Folder with PostgreSQL's programs, if they are in no usual place.
    pub programs: Option<PathBuf>,
}

/// What may be paid.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RiskConfig {
    /// The largest single payment in minor units; absent allows all.
    #[schemars(range(min = 1), extend("x-live" = true))]
    pub single_limit_minor: Option<i64>,
}

/// An account at a channel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelConfig {
    /// Whose channel it is.
    #[schemars(extend("x-live" = true))]
    pub kind: ChannelKind,
    /// Its name here: letters, digits, `-` and `_`. It is stored with payments; never change it.
    #[schemars(extend("x-live" = true))]
    pub id: String,
    /// Take new orders.
    #[serde(default = "yes")]
    #[schemars(extend("x-live" = true))]
    pub enabled: bool,
    /// What payers read, in Chinese.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub label_zh: Option<String>,
    /// What payers read, in English.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub label_en: Option<String>,
    /// Scheme and host.
    #[serde(default = "wechat_url")]
    #[schemars(extend("x-live" = true))]
    pub base_url: String,
    /// The account's merchant number at the channel.
    #[schemars(extend("x-live" = true))]
    pub mchid: String,
    /// The account's application at the channel.
    #[schemars(extend("x-live" = true))]
    pub appid: String,
    /// Serial number of the API certificate that belongs to the private key.
    #[schemars(extend("x-live" = true))]
    pub merchant_serial: String,
    /// File of the key that signs requests to the channel.
    #[schemars(extend("x-live" = true))]
    pub merchant_private_key: PathBuf,
    /// A file with the 32 characters.
    #[schemars(extend("x-live" = true))]
    pub apiv3_key: PathBuf,
    /// What the channel keeps of a payment, in basis points: 30 is 0.30 %.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000), extend("x-live" = true))]
    pub cost_bps: u16,
    /// File of WeChat Pay's public key; without it certificates are fetched.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub platform_public_key: Option<PathBuf>,
    /// The id of that public key.
    #[serde(default)]
    #[schemars(extend("x-live" = true))]
    pub platform_public_key_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    Wechat,
}

fn yes() -> bool {
    true
}

fn wechat_url() -> String {
    "https://api.mch.weixin.qq.com".into()
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration {path} cannot be read; make one with `feiqian init DIR`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {path} is wrong\n{findings}")]
    Wrong { path: PathBuf, findings: Findings },
}

/// What was found in a file and behind the paths that it names.
pub struct Checked {
    /// Absent if the file itself is wrong.
    pub config: Option<Config>,
    /// Absent if anything at all is wrong.
    pub files: Option<Files>,
    pub findings: Findings,
}

impl Config {
    /// Reads the file and the environment of this process. Files that it names are not opened.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::read(path, std::env::vars())?.map_err(|findings| {
            let findings = findings.errors();
            ConfigError::Wrong { path: path.into(), findings }
        })
    }

    /// - Input: `environment` is searched for overrides.
    /// - Errors: the outer one is a file that cannot be read.
    fn read(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Result<Config, Findings>, ConfigError> {
        let named = |source| ConfigError::Read { path: path.into(), source };
        let text = std::fs::read_to_string(path).map_err(named)?;
        let (value, origin, mut findings) = document::read(path, text, environment);
        let origin = Arc::new(origin);
        schema::check(&value, &origin, &mut findings);
        if findings.has_errors() {
            return Ok(Err(findings));
        }
        match serde_json::from_value::<Config>(value) {
            Ok(mut config) => {
                config.folder = path.parent().unwrap_or(Path::new(".")).into();
                config.origin = origin;
                rules::check(&config, &mut findings);
                Ok(if findings.has_errors() { Err(findings) } else { Ok(config) })
            }
            Err(error) => {
                let why = "a value is not what its key means";
                findings.error(&origin, "", error.to_string(), why, "correct the value");
                Ok(Err(findings))
            }
        }
    }

    /// Everything that is wrong or doubtful, at once: the file, the environment, and the keys and
    /// certificates that it names.
    pub fn check(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Checked {
        let none = |findings| Checked { config: None, files: None, findings };
        match Config::read(path, environment) {
            Err(error) => {
                let mut findings = Findings::default();
                let source = std::error::Error::source(&error).map(ToString::to_string);
                findings.error(
                    &Origin::at(path),
                    "",
                    format!("{} cannot be read", path.display()),
                    source.unwrap_or_default(),
                    "check the path and its rights, or make one with `feiqian init DIR`",
                );
                none(findings)
            }
            Ok(Err(findings)) => none(findings),
            Ok(Ok(config)) => {
                let mut findings = Findings::default();
                config.origin.warn_about_near_variables(&mut findings);
                rules::check(&config, &mut findings);
                let files = Files::read(&config, &mut findings);
                Checked { config: Some(config), files, findings }
            }
        }
    }

    pub fn path(&self, relative: &Path) -> PathBuf {
        self.folder.join(relative)
    }
}
