//! What a running process takes over from a changed configuration: one value, built from a checked
//! file and replaced whole. Nothing here reads files or decides whether they are right.

use crate::config::{ChannelConfig, Config, Files};
use crate::gateway::{Liberties, OpenError};
use app::Policy;
use arc_swap::ArcSwap;
use channel::{Channel, ChannelId};
use channels::{
    DriverSettings, HttpDriver, NotifyClient, NotifySettings, Roster, TransportError, TrustRoots,
};
use kernel::BasisPoints;
use seal::{Certificate, KeyRing};
use std::sync::Arc;

pub struct Settings {
    pub config: Config,
    pub keys: KeyRing,
    /// What `/v3/certificates` lists; the first is the default key's.
    pub certificates: Vec<Certificate>,
    /// Names and labels of channels for payers.
    pub labels: Vec<ChannelLabel>,
    pub notify: NotifyClient,
}

/// The settings of the moment. Whoever needs them for one request takes them once.
pub type Current = ArcSwap<Settings>;

#[derive(Clone, Debug)]
pub struct ChannelLabel {
    pub id: ChannelId,
    pub zh: String,
    pub en: String,
}

/// An account at a channel that can be asked.
#[derive(Clone)]
pub struct OpenChannel {
    pub channel: Arc<dyn Channel>,
    pub base_url: String,
}

/// Settings, and what the use cases and the channel client are given.
pub struct Built {
    pub settings: Settings,
    pub policy: Policy,
    pub channels: Vec<OpenChannel>,
}

impl Settings {
    pub fn build(config: Config, files: Files, liberties: &Liberties) -> Result<Built, OpenError> {
        let mut keys: Option<KeyRing> = None;
        let mut certificates = Vec::new();
        for it in files.platform {
            let serial = it.certificate.serial().to_owned();
            let ring = keys.get_or_insert_with(|| KeyRing::new(&serial, it.signer.clone()));
            ring.add(&serial, it.signer.clone());
            if let Some(id) = &it.public_key_id {
                ring.add(id, it.signer.clone());
            }
            certificates.push(it.certificate);
        }
        let keys = keys.ok_or(OpenError::NoKey)?;
        let notify = NotifyClient::new(NotifySettings {
            allow_private: config.notify.allow_private,
            roots: roots(liberties, config.channels.iter().map(|it| it.base_url.as_str())),
            ..NotifySettings::default()
        })?;
        let mut candidates = Vec::new();
        let mut labels = Vec::new();
        let mut channels = Vec::new();
        for it in files.channels {
            candidates.push(candidate(&it.config, it.channel.as_ref()));
            labels.push(label(&it.config));
            channels.push(OpenChannel { channel: it.channel, base_url: it.config.base_url });
        }
        let policy = Policy {
            candidates,
            risk: risk::Policy { most_minor: config.risk.single_limit_minor },
            notify_ladder_s: wechatpay::notification::NOTIFY_LADDER_S.to_vec(),
            default_expiry_s: config.orders.default_expiry_s,
            publish: config.bus.url.is_some() || !config.webhooks.is_empty(),
        };
        let settings = Settings { config, keys, certificates, labels, notify };
        Ok(Built { settings, policy, channels })
    }

    /// The certificate of the default key.
    pub fn certificate(&self) -> &Certificate {
        self.certificates.first().expect("settings are built with a key")
    }
}

fn candidate(config: &ChannelConfig, channel: &dyn Channel) -> routing::Candidate {
    routing::Candidate {
        id: channel.id().clone(),
        abilities: channel.abilities().clone(),
        cost: BasisPoints::new(config.cost_bps).unwrap_or(BasisPoints::ZERO),
        enabled: config.enabled,
    }
}

fn label(config: &ChannelConfig) -> ChannelLabel {
    ChannelLabel {
        id: ChannelId::new(&config.id),
        zh: config.label_zh.clone().unwrap_or_else(|| "微信支付".into()),
        en: config.label_en.clone().unwrap_or_else(|| "WeChat Pay".into()),
    }
}

/// Without a single https address no root certificates are needed.
fn roots<'a>(liberties: &Liberties, urls: impl IntoIterator<Item = &'a str>) -> TrustRoots {
    let plain = |it: &str| it.starts_with("http://");
    if liberties.plain_http_channels && urls.into_iter().all(plain) {
        TrustRoots::Only(vec![])
    } else {
        TrustRoots::System
    }
}

/// The client towards these channels, and no other host.
pub fn driver(
    channels: &[OpenChannel],
    liberties: &Liberties,
) -> Result<HttpDriver, TransportError> {
    let host = |it: &OpenChannel| it.base_url.split_once("://").map(|it| it.1.to_owned());
    HttpDriver::new(DriverSettings {
        allowed_hosts: channels.iter().filter_map(host).collect(),
        allow_plain_http: liberties.plain_http_channels,
        roots: roots(liberties, channels.iter().map(|it| it.base_url.as_str())),
        ..DriverSettings::default()
    })
}

/// Puts the channels in their places. Those that are gone from the configuration can still be
/// asked until the process ends: their orders under way may hold money.
pub fn line_up(
    roster: &Roster,
    old: &[OpenChannel],
    new: &[OpenChannel],
    liberties: &Liberties,
) -> Result<Vec<OpenChannel>, TransportError> {
    let is_new = |it: &&OpenChannel| new.iter().any(|new| new.channel.id() == it.channel.id());
    let gone = old.iter().filter(|it| !is_new(it));
    let all: Vec<OpenChannel> = new.iter().chain(gone).cloned().collect();
    let driver = driver(&all, liberties)?;
    roster.replace(driver, all.iter().map(|it| it.channel.clone()).collect());
    Ok(all)
}
