//! What every handler and worker shares: the platform, the keys, the merchants, the clocks.

use crate::bus::{Bus, BusError, EventPublisher, Hint, Hints, Webhook};
use crate::clock::{self, Clock};
use crate::config::{Checked, Config, ConfigError, Files, Findings, changes};
use crate::courier::MerchantCourier;
use crate::limits::Limits;
use crate::live::Live;
use crate::membership::{Membership, MembershipError};
use crate::merchants::Merchants;
use crate::observe::{Observe, Watched, Witness};
use crate::settings::{self, Built, Current, OpenChannel, Settings};
use crate::v3::NonceBook;
use app::Platform;
use arc_swap::ArcSwap;
use channels::Roster;
use kernel::{MerchantId, SerialGenerator, Zone};
use seal::{Certificate, Vault};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Address, AnyStore, PostgresUrl};

pub type House = Platform<AnyStore, Watched<Arc<Roster>>, Watched<MerchantCourier>>;

pub struct Gateway {
    /// As the process began. What may change while it runs is in [`Gateway::settings`].
    pub config: Config,
    settings: Arc<Current>,
    pub clock: Clock,
    pub membership: Membership,
    pub platform: House,
    pub roster: Arc<Roster>,
    /// Every channel since the process began. Locked during a reload: one at a time.
    channels: Mutex<Vec<OpenChannel>>,
    liberties: Liberties,
    pub limits: Arc<Limits>,
    pub merchants: Arc<Merchants>,
    pub live: Live,
    pub bus: Option<Arc<Bus>>,
    pub webhooks: Arc<[Webhook]>,
    hints: Option<Arc<Hints>>,
    pub observe: Observe,
    /// Signs our own links: cashier tokens, bill downloads.
    pub link_key: [u8; 32],
    pub nonces: NonceBook,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the platform has no key")]
    NoKey,
    #[error(transparent)]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Address(#[from] store::PostgresError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Transport(#[from] channels::TransportError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Vault(#[from] seal::VaultError),
}

/// Why the settings stay what they were.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Wrong(Findings),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What a reload came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values hold from now on.
    pub taken: Vec<String>,
    /// Keys that have other values in the file, which a restart would take.
    pub waiting: Vec<String>,
    pub warnings: Findings,
}

/// What only the demo and tests change.
#[derive(Clone, Debug, Default)]
pub struct Liberties {
    /// Channels may be spoken to over plain http: simulators.
    pub plain_http_channels: bool,
}

fn wrong(config: &Config, findings: Findings) -> ConfigError {
    ConfigError::Wrong { path: config.origin.file.clone(), findings: findings.errors() }
}

fn vault_of(key: [u8; 32]) -> Result<(Vault, [u8; 32]), OpenError> {
    let link_key = seal::digest::hmac_sha256(&key, b"links");
    Ok((Vault::new(vec![("1".into(), key)])?, link_key))
}

/// Opens the vault of an installation, and derives the key for links from it.
pub fn open_vault(config: &Config) -> Result<(Vault, [u8; 32]), OpenError> {
    vault_of(Files::vault_key(config).map_err(|it| wrong(config, it))?)
}

fn zone_of(config: &Config) -> Zone {
    Zone::named(&config.server.zone).unwrap_or_else(|_| Zone::shanghai())
}

/// Opens the store of an installation, and brings its schema up to date.
pub async fn open_store(config: &Config) -> Result<AnyStore, OpenError> {
    let address = match &config.store.url {
        Some(url) => Address::Postgres(PostgresUrl::parse(url)?),
        None => Address::File(config.path(&config.store.path)),
    };
    Ok(AnyStore::open(&address).await?)
}

impl Gateway {
    /// Opens the store, the keys and the channels of an installation.
    pub async fn open(
        config: Config,
        clock: Clock,
        liberties: &Liberties,
    ) -> Result<Gateway, OpenError> {
        let mut findings = Findings::default();
        let files = Files::read(&config, &mut findings);
        let files = files.ok_or_else(|| wrong(&config, findings))?;
        let (vault, link_key) = vault_of(files.vault_key)?;
        let Built { settings, policy, channels } =
            Settings::build(config.clone(), files, liberties)?;
        let driver = settings::driver(&channels, liberties)?;
        let built = channels.iter().map(|it| it.channel.clone()).collect();
        let roster = Arc::new(Roster::new(driver, built, Box::new(clock::wall)));
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let store = open_store(&config).await?;
        let membership = Membership::join(&store, config.server.node).await?;
        let merchants = Arc::new(Merchants::new(store.clone(), vault));
        let courier = MerchantCourier::new(settings.clone(), merchants.clone());
        let serials = SerialGenerator::new(membership.node().number, zone_of(&config));
        let live = Live::default();
        let limits = Arc::new(Limits::new(config.limits.clone()));
        let observe = Observe::default();
        let metrics = &observe.metrics;
        let webhooks: Arc<[Webhook]> = config.webhooks.iter().filter_map(Webhook::new).collect();
        let bus = Bus::open(&config, webhooks.clone()).await?;
        let start = |it| Arc::new(Hints::start(it, live.clone(), merchants.clone()));
        let hints = bus.as_ref().map(start);
        let witness = Witness {
            live: live.clone(),
            metrics: metrics.clone(),
            hints: hints.clone(),
            clock: clock.clone(),
        };
        let publisher = EventPublisher {
            bus: bus.clone(),
            webhooks: webhooks.clone(),
            settings: settings.clone(),
            metrics: metrics.clone(),
        };
        let listened_to = policy.publish;
        let platform = Platform::new(
            store,
            Watched::new(roster.clone(), metrics.clone()),
            Watched::new(courier, metrics.clone()),
            policy,
            serials,
            Box::new(witness),
        );
        let platform = match listened_to {
            true => platform.heard_by(Box::new(publisher)),
            false => platform,
        };
        Ok(Gateway {
            config,
            settings,
            clock,
            membership,
            platform,
            roster,
            channels: Mutex::new(channels),
            liberties: liberties.clone(),
            limits,
            merchants,
            live,
            bus,
            webhooks,
            hints,
            observe,
            link_key,
            nonces: NonceBook::default(),
        })
    }

    /// Has every process read a merchant anew. Without a bus others do within seconds.
    pub fn merchant_changed(&self, id: &MerchantId) {
        self.merchants.forget(id);
        if let Some(hints) = &self.hints {
            hints.give(Hint::Merchant(id.clone()));
        }
    }

    pub fn zone(&self) -> Zone {
        zone_of(&self.config)
    }

    pub fn store(&self) -> &AnyStore {
        &self.platform.store
    }

    /// The settings of the moment.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The certificate of the default platform key.
    pub fn certificate(&self) -> Certificate {
        self.settings().certificate().clone()
    }

    /// Takes over a changed configuration, or nothing of it if anything in it is wrong. Requests
    /// under way end as they began.
    pub fn reload(&self, checked: Checked) -> Result<Reloaded, ReloadError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(config), Some(files)) = (checked.config, checked.files) else {
            return Err(ReloadError::Wrong(checked.findings.errors()));
        };
        let old = self.settings();
        let taken = changes(&old.config, &config, true);
        let waiting = changes(&self.config, &config, false);
        let Built { settings, mut policy, channels: new } =
            Settings::build(config, files, &self.liberties)?;
        // A channel that is gone takes no new orders; those under way still know its cost.
        for it in &self.platform.policy().candidates {
            if !policy.candidates.iter().any(|new| new.id == it.id) {
                policy.candidates.push(routing::Candidate { enabled: false, ..it.clone() });
            }
        }
        // Bus and webhooks are those that the process began with.
        policy.publish = self.platform.policy().publish;
        // Channels before the policy that routes to them.
        *channels = settings::line_up(&self.roster, &channels, &new, &self.liberties)
            .map_err(OpenError::from)?;
        self.limits.adopt(settings.config.limits.clone());
        self.settings.store(Arc::new(settings));
        self.platform.set_policy(policy);
        Ok(Reloaded { taken, waiting, warnings: checked.findings })
    }
}
