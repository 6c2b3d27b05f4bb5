//! What every handler and worker shares: the platform, the keys, the merchants, the clocks.

use crate::clock::{self, Clock};
use crate::config::{ChannelConfig, ChannelKind, Config, ConfigError};
use crate::courier::MerchantCourier;
use crate::live::Live;
use crate::merchants::Merchants;
use crate::observe::{Observe, Watched, Witness};
use crate::v3::NonceBook;
use app::{Platform, Policy};
use channel::{Channel, ChannelId};
use channels::wechat::{TrustedKey, Wechat, WechatSettings, direct_merchant_abilities};
use channels::{DriverSettings, HttpDriver, NotifyClient, NotifySettings, Roster, TrustRoots};
use kernel::{BasisPoints, Secret, SerialGenerator, Zone};
use seal::{Certificate, KeyRing, Signer, Vault, Verifier};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::SqliteStore;

pub type House = Platform<SqliteStore, Watched<Arc<Roster>>, Watched<MerchantCourier>>;

pub struct Gateway {
    pub config: Config,
    pub clock: Clock,
    pub platform: House,
    pub roster: Arc<Roster>,
    pub keys: Arc<KeyRing>,
    /// What `/v3/certificates` lists.
    pub certificate: Certificate,
    pub merchants: Arc<Merchants>,
    pub live: Live,
    pub observe: Observe,
    /// Names and labels of channels for payers.
    pub labels: Vec<ChannelLabel>,
    /// Signs our own links: cashier tokens, bill downloads.
    pub link_key: [u8; 32],
    pub nonces: NonceBook,
}

#[derive(Clone, Debug)]
pub struct ChannelLabel {
    pub id: ChannelId,
    pub zh: String,
    pub en: String,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{path} cannot be read: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("channel {id}: {problem}")]
    Channel { id: String, problem: String },
    #[error(transparent)]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Transport(#[from] channels::TransportError),
    #[error(transparent)]
    Vault(#[from] seal::VaultError),
}

/// What only the demo and tests change.
#[derive(Clone, Debug, Default)]
pub struct Liberties {
    /// Channels may be spoken to over plain http: simulators.
    pub plain_http_channels: bool,
}

fn read(path: &Path) -> Result<String, OpenError> {
    let named = |problem: std::io::Error| OpenError::File {
        path: path.into(),
        problem: problem.to_string(),
    };
    std::fs::read_to_string(path).map_err(named)
}

fn bad<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> OpenError {
    let path = path.to_path_buf();
    move |problem| OpenError::File { path: path.clone(), problem: problem.to_string() }
}

/// Opens the vault of an installation, and derives the key for links from it.
pub fn open_vault(config: &Config) -> Result<(Vault, [u8; 32]), OpenError> {
    let path = config.path(&config.keys.vault_key);
    let text = read(&path)?;
    let key = crate::install::parse_vault_key(text.trim()).ok_or_else(|| OpenError::File {
        path,
        problem: "it must hold 64 hexadecimal digits".into(),
    })?;
    let link_key = seal::digest::hmac_sha256(&key, b"links");
    Ok((Vault::new(vec![("1".into(), key)])?, link_key))
}

impl Gateway {
    /// Opens the store, the keys and the channels of an installation.
    pub fn open(config: Config, clock: Clock, liberties: &Liberties) -> Result<Gateway, OpenError> {
        let (vault, link_key) = open_vault(&config)?;
        let private = config.path(&config.keys.platform_private_key);
        let signer = Signer::from_pem(&read(&private)?).map_err(bad(&private))?;
        let certificate_path = config.path(&config.keys.platform_certificate);
        let certificate =
            Certificate::from_pem(&read(&certificate_path)?).map_err(bad(&certificate_path))?;
        let mut keys = KeyRing::new(certificate.serial(), signer.clone());
        keys.add(&config.keys.platform_public_key_id, signer);
        let keys = Arc::new(keys);

        let mut built: Vec<Arc<dyn Channel>> = Vec::new();
        let mut candidates = Vec::new();
        let mut labels = Vec::new();
        let mut hosts = Vec::new();
        for it in &config.channels {
            let channel = open_channel(&config, it)?;
            let cost = BasisPoints::new(it.cost_bps).unwrap_or(BasisPoints::ZERO);
            candidates.push(routing::Candidate {
                id: channel.id().clone(),
                abilities: channel.abilities().clone(),
                cost,
                enabled: it.enabled,
            });
            labels.push(ChannelLabel {
                id: channel.id().clone(),
                zh: it.label_zh.clone().unwrap_or_else(|| "微信支付".into()),
                en: it.label_en.clone().unwrap_or_else(|| "WeChat Pay".into()),
            });
            hosts.extend(it.base_url.split_once("://").map(|it| it.1.to_owned()));
            built.push(Arc::new(channel));
        }
        let roots = if liberties.plain_http_channels && hosts_are_plain(&config) {
            TrustRoots::Only(vec![])
        } else {
            TrustRoots::System
        };
        let driver = HttpDriver::new(DriverSettings {
            allowed_hosts: hosts,
            allow_plain_http: liberties.plain_http_channels,
            roots: roots.clone(),
            ..DriverSettings::default()
        })?;
        let roster = Arc::new(Roster::new(driver, built, Box::new(clock::wall)));
        let store = SqliteStore::open(&config.path(&config.store.path))?;
        let merchants = Arc::new(Merchants::new(store.clone(), vault));
        let client = NotifyClient::new(NotifySettings {
            allow_private: config.notify.allow_private,
            roots,
            ..NotifySettings::default()
        })?;
        let courier = MerchantCourier::new(client, keys.clone(), merchants.clone());
        let policy = Policy {
            candidates,
            risk: risk::Policy { most_minor: config.risk.single_limit_minor },
            notify_ladder_s: wechatpay::notification::NOTIFY_LADDER_S.to_vec(),
            default_expiry_s: config.orders.default_expiry_s,
        };
        let zone = Zone::named(&config.server.zone).unwrap_or_else(|_| Zone::shanghai());
        let serials = SerialGenerator::new(config.server.node, zone);
        let live = Live::default();
        let observe = Observe::default();
        let metrics = &observe.metrics;
        let witness = Witness { live: live.clone(), metrics: metrics.clone() };
        let platform = Platform::new(
            store,
            Watched::new(roster.clone(), metrics.clone()),
            Watched::new(courier, metrics.clone()),
            policy,
            serials,
            Box::new(witness),
        );
        Ok(Gateway {
            config,
            clock,
            platform,
            roster,
            keys,
            certificate,
            merchants,
            live,
            observe,
            labels,
            link_key,
            nonces: NonceBook::default(),
        })
    }

    pub fn store(&self) -> &SqliteStore {
        &self.platform.store
    }
}

/// Without a single https address no root certificates are needed.
fn hosts_are_plain(config: &Config) -> bool {
    config.channels.iter().all(|it| it.base_url.starts_with("http://"))
}

fn open_channel(config: &Config, it: &ChannelConfig) -> Result<Wechat, OpenError> {
    let ChannelKind::Wechat = it.kind;
    let private = config.path(&it.merchant_private_key);
    let signer = Signer::from_pem(&read(&private)?).map_err(bad(&private))?;
    let apiv3_key = Secret::new(read(&config.path(&it.apiv3_key))?.trim());
    let mut trust = Vec::new();
    if let (Some(path), Some(serial)) = (&it.platform_public_key, &it.platform_public_key_id) {
        let path = config.path(path);
        let verifier = Verifier::from_public_key_pem(&read(&path)?).map_err(bad(&path))?;
        trust.push(TrustedKey { serial: serial.clone(), verifier });
    }
    let callback = format!("{}/callback/{}", config.server.public_url, it.id);
    Wechat::new(WechatSettings {
        id: ChannelId::new(&it.id),
        abilities: direct_merchant_abilities(),
        base_url: it.base_url.clone(),
        mchid: it.mchid.clone(),
        appid: it.appid.clone(),
        merchant_serial: it.merchant_serial.clone(),
        signer,
        apiv3_key,
        notify_url: callback.clone(),
        refund_notify_url: callback,
        trust,
    })
    .map_err(|error| OpenError::Channel { id: it.id.clone(), problem: error.to_string() })
}
