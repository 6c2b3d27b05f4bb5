//! The configuration file, read and checked. Paths in it are relative to the file.

use kernel::{BasisPoints, Zone};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = "feiqian.toml";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
    pub observe: ObserveConfig,
    #[serde(default, rename = "channel")]
    pub channels: Vec<ChannelConfig>,
    /// The folder of the file.
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    /// Where operators ask: `/metrics`, `/healthz`, `/readyz`, `/buildz`. Without it those are on
    /// `listen`, and metrics only for callers on the same machine.
    #[serde(default)]
    pub admin_listen: Option<SocketAddr>,
    /// As merchants, payers and channels reach it: `https://pay.example.com`.
    pub public_url: String,
    /// 0 to 999, another one for each process that writes.
    #[serde(default)]
    pub node: u16,
    #[serde(default = "shanghai")]
    pub zone: String,
    /// Requests refused above this size.
    #[serde(default = "body_limit")]
    pub body_limit_bytes: usize,
    /// Refuse a request whose nonce was seen in the last five minutes. WeChat Pay does not.
    #[serde(default)]
    pub refuse_replayed_nonces: bool,
    /// Believe `X-Forwarded-For`: only behind a proxy of your own.
    #[serde(default)]
    pub behind_proxy: bool,
}

fn shanghai() -> String {
    "Asia/Shanghai".into()
}

fn body_limit() -> usize {
    64 * 1024
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    pub path: PathBuf,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig { path: "feiqian.db".into() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// Signs answers and notifications.
    pub platform_private_key: PathBuf,
    /// For merchants in certificate mode.
    pub platform_certificate: PathBuf,
    /// For merchants in public-key mode: `PUB_KEY_ID_` and digits.
    pub platform_public_key_id: String,
    /// 32 bytes in hex; encrypts secrets in the database and signs our own links.
    pub vault_key: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// Let notifications go to private and loopback addresses.
    #[serde(default)]
    pub allow_private: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdersConfig {
    /// How long an order lives whose merchant did not say.
    pub default_expiry_s: i64,
}

impl Default for OrdersConfig {
    fn default() -> OrdersConfig {
        OrdersConfig { default_expiry_s: wechatpay::create::DEFAULT_EXPIRY_S }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RiskConfig {
    /// The largest single payment in minor units; absent allows all.
    pub single_limit_minor: Option<i64>,
}

/// What of the platform can be seen from outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObserveConfig {
    /// Where trace spans go, OTLP over HTTP: `http://collector:4318`. Absent: nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that is kept, 0 to 1.
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

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelConfig {
    pub kind: ChannelKind,
    pub id: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default)]
    pub label_zh: Option<String>,
    #[serde(default)]
    pub label_en: Option<String>,
    #[serde(default = "wechat_url")]
    pub base_url: String,
    pub mchid: String,
    pub appid: String,
    pub merchant_serial: String,
    pub merchant_private_key: PathBuf,
    /// A file with the 32 characters.
    pub apiv3_key: PathBuf,
    /// What the channel keeps of a payment.
    #[serde(default)]
    pub cost_bps: u16,
    /// WeChat Pay's public key and its id; without them certificates are fetched.
    #[serde(default)]
    pub platform_public_key: Option<PathBuf>,
    #[serde(default)]
    pub platform_public_key_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
    #[error("configuration {path} is wrong: {problem}")]
    Syntax { path: PathBuf, problem: String },
    #[error("configuration {path}: {problem}")]
    Value { path: PathBuf, problem: String },
}

impl Config {
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let named = |source| ConfigError::Read { path: path.into(), source };
        let text = std::fs::read_to_string(path).map_err(named)?;
        let mut config: Config = toml::from_str(&text)
            .map_err(|it| ConfigError::Syntax { path: path.into(), problem: it.to_string() })?;
        config.folder = path.parent().unwrap_or(Path::new(".")).into();
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Value { path: path.into(), problem: problems.join("; ") })
        }
    }

    /// Everything that is wrong, at once.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let url = &self.server.public_url;
        if !url.starts_with("http://") && !url.starts_with("https://") || url.ends_with('/') {
            problems.push(format!(
                "server.public_url {url:?} must be http(s)://host, no slash at the end"
            ));
        }
        if Zone::named(&self.server.zone).is_err() {
            problems.push(format!("server.zone {:?} is no IANA time zone", self.server.zone));
        }
        if self.server.node > 999 {
            problems.push(format!("server.node {} is above 999", self.server.node));
        }
        if !self.keys.platform_public_key_id.starts_with("PUB_KEY_ID_") {
            problems.push("keys.platform_public_key_id must begin with PUB_KEY_ID_".into());
        }
        if !(60..=15 * 86_400).contains(&self.orders.default_expiry_s) {
            problems.push("orders.default_expiry_s must be between 60 and 1296000".into());
        }
        if !(0.0..=1.0).contains(&self.observe.trace_share) {
            problems.push("observe.trace_share must be between 0 and 1".into());
        }
        let endpoint = self.observe.otlp_endpoint.as_deref();
        if endpoint.is_some_and(|it| reqwest::Url::parse(it).is_err() || !it.starts_with("http")) {
            problems.push("observe.otlp_endpoint must be http(s)://host:port".into());
        }
        let mut seen = Vec::new();
        for channel in &self.channels {
            let id = &channel.id;
            if seen.contains(&id) || id.is_empty() || !id.bytes().all(is_name_byte) {
                problems.push(format!("channel id {id:?} must be unique letters, digits, - or _"));
            }
            if BasisPoints::new(channel.cost_bps).is_err() {
                problems
                    .push(format!("channel {id}: cost_bps {} is above 10000", channel.cost_bps));
            }
            if channel.platform_public_key.is_some() != channel.platform_public_key_id.is_some() {
                problems
                    .push(format!("channel {id}: give platform_public_key and its id, or neither"));
            }
            seen.push(id);
        }
        problems
    }

    pub fn path(&self, relative: &Path) -> PathBuf {
        self.folder.join(relative)
    }
}

fn is_name_byte(it: u8) -> bool {
    it.is_ascii_alphanumeric() || it == b'-' || it == b'_'
}
