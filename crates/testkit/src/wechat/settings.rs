//! What the simulator is told at its start: merchants, platform keys, manners.

use seal::{Certificate, KeyError, KeyRing, Signer, Verifier};
use std::sync::Arc;
use wechatpay::Apiv3Key;

#[derive(Clone, Debug)]
pub struct WechatSimSettings {
    /// Where payers and merchants reach the simulator: `http://127.0.0.1:9001`, no slash at the
    /// end. It stands in `h5_url`, in bill links and, unless `real_code_urls`, in `code_url`.
    /// Empty: [`super::WechatSimServer::start`] fills in the address it listens on.
    pub base_url: String,
    pub merchants: Vec<SimMerchant>,
    pub platform: PlatformKeys,
    /// Every identifier, nonce and chance follows from it.
    pub seed: u64,
    /// `code_url` in the real shape `weixin://wxpay/bizpayurl?pr=…`, to be typed or pasted into
    /// the wallet page; else a link to that page, which any phone can scan.
    pub real_code_urls: bool,
    /// How long a refund is PROCESSING.
    pub refund_delay_s: i64,
    /// The least time between two refunds of one order; production has 60, 0 does not insist.
    pub refund_gap_s: i64,
    /// The Beijing hour at which yesterday's bill is ready.
    pub bills_ready_hour: i64,
}

impl WechatSimSettings {
    pub fn new(platform: PlatformKeys, merchants: Vec<SimMerchant>) -> WechatSimSettings {
        WechatSimSettings {
            base_url: String::new(),
            merchants,
            platform,
            seed: 1,
            real_code_urls: false,
            refund_delay_s: 3,
            refund_gap_s: 0,
            bills_ready_hour: 10,
        }
    }
}

#[derive(Clone, Debug)]
pub struct SimMerchant {
    pub mchid: String,
    /// Shown to payers.
    pub name: String,
    /// Those bound to the merchant.
    pub appids: Vec<String>,
    /// Of the API certificate; case and leading zeros do not matter.
    pub serial: String,
    /// The API certificate or its public key.
    pub key_pem: String,
    pub apiv3_key: Apiv3Key,
    /// Where refund notices go if the request names no place.
    pub refund_notify_url: Option<String>,
    /// The service fee in hundredths of a percent.
    pub fee_bps: u16,
}

/// The platform's key and the names it signs under. With both names the simulator is in mixed
/// mode; each answer uses the one that the request asks for.
#[derive(Clone, Debug)]
pub struct PlatformKeys {
    pub private_pem: String,
    /// Its serial is the name of certificate mode.
    pub certificate_pem: Option<String>,
    /// `PUB_KEY_ID_…`: the name of public-key mode.
    pub public_key_id: Option<String>,
    /// How many notifications of a hundred are signed in public-key mode, when there is a choice.
    pub notify_public_key_percent: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("platform private key cannot be read")]
    PlatformKey(#[source] KeyError),
    #[error("platform certificate cannot be read")]
    PlatformCertificate(#[source] KeyError),
    #[error("platform key has no name: give a certificate or a public key id")]
    NoName,
    #[error("platform certificate is not of the platform key; make both from one key")]
    OtherKey,
    #[error("key of merchant {mchid} cannot be read")]
    MerchantKey {
        mchid: String,
        #[source]
        source: KeyError,
    },
    #[error("service fee of merchant {mchid} is {bps} basis points, more than 100 %")]
    Fee { mchid: String, bps: u16 },
    #[error("two merchants have number {0}")]
    Twice(String),
    #[error("cannot listen on {addr}: is another simulator running there?")]
    Listen {
        addr: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot set up the sender of notifications: {0}")]
    Sender(String),
}

/// The keys, read.
pub(super) struct Platform {
    pub(super) ring: KeyRing,
    pub(super) certificate: Option<Certificate>,
    pub(super) public_key_id: Option<String>,
    pub(super) notify_public_key_percent: u8,
}

impl Platform {
    pub(super) fn read(keys: &PlatformKeys) -> Result<Platform, SettingsError> {
        let signer = Signer::from_pem(&keys.private_pem).map_err(SettingsError::PlatformKey)?;
        let certificate = match &keys.certificate_pem {
            None => None,
            Some(pem) => {
                Some(Certificate::from_pem(pem).map_err(SettingsError::PlatformCertificate)?)
            }
        };
        if certificate.as_ref().is_some_and(|it| it.verifier() != signer.verifier()) {
            return Err(SettingsError::OtherKey);
        }
        // The first name is the default: what clients of certificate mode expect.
        let names = [certificate.as_ref().map(|it| it.serial()), keys.public_key_id.as_deref()];
        let mut names = names.into_iter().flatten();
        let first = names.next().ok_or(SettingsError::NoName)?;
        let mut ring = KeyRing::new(first, signer.clone());
        names.for_each(|it| ring.add(it, signer.clone()));
        Ok(Platform {
            ring,
            certificate,
            public_key_id: keys.public_key_id.clone(),
            notify_public_key_percent: keys.notify_public_key_percent,
        })
    }
}

/// A merchant, its key read.
pub(super) struct Merchant {
    pub(super) facts: Arc<SimMerchant>,
    pub(super) verifier: Verifier,
    pub(super) fee: kernel::BasisPoints,
}

impl Merchant {
    pub(super) fn read(facts: &SimMerchant) -> Result<Merchant, SettingsError> {
        let verifier = if facts.key_pem.contains("BEGIN CERTIFICATE") {
            Verifier::from_certificate_pem(&facts.key_pem)
        } else {
            Verifier::from_public_key_pem(&facts.key_pem)
        };
        let mchid = || facts.mchid.clone();
        let fee = kernel::BasisPoints::new(facts.fee_bps)
            .map_err(|it| SettingsError::Fee { mchid: mchid(), bps: it.0 })?;
        Ok(Merchant {
            facts: Arc::new(facts.clone()),
            verifier: verifier
                .map_err(|source| SettingsError::MerchantKey { mchid: mchid(), source })?,
            fee,
        })
    }
}
