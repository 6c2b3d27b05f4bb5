//! Who takes part: two of our accounts at the simulated channel, and the keys of everybody.
//!
//! Keys are made once a process and shared by all runs, because RSA is slow. Nothing that happens
//! in a run depends on their value.

use crate::wechat::{PlatformKeys, SimMerchant, WechatSimSettings};
use channel::{Abilities, ChannelId};
use channels::wechat::{TrustedKey, Wechat, WechatSettings, direct_merchant_abilities};
use kernel::{BasisPoints, Secret, Timestamp};
use routing::Candidate;
use seal::{Certificate, Signer};
use std::sync::LazyLock;
use wechatpay::Apiv3Key;

/// One of our accounts at the channel.
pub(super) struct Account {
    pub(super) channel: &'static str,
    pub(super) mchid: &'static str,
    apiv3_key: &'static str,
    cost_bps: u16,
    /// The largest payment; routing must use the other account above it.
    most_minor: i64,
}

pub(super) const ACCOUNTS: [Account; 2] = [
    Account {
        channel: "wechat-a",
        mchid: "1900000101",
        apiv3_key: "0123456789abcdef0123456789ABCDEF",
        cost_bps: 38,
        most_minor: 100_000_000,
    },
    Account {
        channel: "wechat-b",
        mchid: "1900000102",
        apiv3_key: "fedcba9876543210FEDCBA9876543210",
        cost_bps: 25,
        most_minor: 40_000,
    },
];

const APPID: &str = "wx2421b1c4370ec43b";
const MERCHANT_SERIAL: &str = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1";
const PUBLIC_KEY: &str = "PUB_KEY_ID_0119000001012024";
/// Where the channel calls back: this, the account's name, and what the order appends.
pub(super) const CALLBACK_BASE: &str = "https://pay.example/callback/";
const API_BASE: &str = "https://api.mch.example";

struct Keys {
    merchant: Signer,
    merchant_public_pem: String,
    platform_private_pem: String,
    platform: Certificate,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let (merchant, platform) = (seal::generate_rsa(), seal::generate_rsa());
    let (from, until) = (Timestamp::from_ms(0), Timestamp::from_ms(4_000_000_000_000));
    let pem = seal::self_signed(&platform.private_pem, "simulated", [0x5a; 20], from, until)
        .expect("an RSA key signs for itself");
    Keys {
        merchant: Signer::from_pem(&merchant.private_pem).expect("a key that was just made"),
        merchant_public_pem: merchant.public_pem,
        platform_private_pem: platform.private_pem,
        platform: Certificate::from_pem(&pem).expect("a certificate that was just made"),
    }
});

/// The channel's side.
pub(super) fn simulator(seed: u64) -> WechatSimSettings {
    let platform = PlatformKeys {
        private_pem: KEYS.platform_private_pem.clone(),
        certificate_pem: Some(KEYS.platform.pem().to_owned()),
        public_key_id: Some(PUBLIC_KEY.into()),
        notify_public_key_percent: 50,
    };
    let merchants = ACCOUNTS.iter().map(|it| SimMerchant {
        mchid: it.mchid.into(),
        name: it.channel.into(),
        appids: vec![APPID.into()],
        serial: MERCHANT_SERIAL.into(),
        key_pem: KEYS.merchant_public_pem.clone(),
        apiv3_key: Apiv3Key::parse(it.apiv3_key).expect("32 letters and digits"),
        refund_notify_url: None,
        fee_bps: it.cost_bps,
    });
    WechatSimSettings {
        base_url: API_BASE.into(),
        seed,
        refund_delay_s: 20,
        ..WechatSimSettings::new(platform, merchants.collect())
    }
}

/// Our side: the real connectors.
pub(super) fn connectors() -> Vec<Wechat> {
    let verifier = KEYS.platform.verifier();
    let trusted = |serial: &str| TrustedKey { serial: serial.into(), verifier: verifier.clone() };
    let settings = |it: &Account| WechatSettings {
        id: ChannelId::new(it.channel),
        abilities: abilities(it),
        base_url: API_BASE.into(),
        mchid: it.mchid.into(),
        appid: APPID.into(),
        merchant_serial: MERCHANT_SERIAL.into(),
        signer: KEYS.merchant.clone(),
        apiv3_key: Secret::new(it.apiv3_key),
        notify_url: format!("{CALLBACK_BASE}{}", it.channel),
        refund_notify_url: format!("{CALLBACK_BASE}{}", it.channel),
        trust: vec![trusted(PUBLIC_KEY), trusted(KEYS.platform.serial())],
    };
    let connector = |it| Wechat::new(settings(it)).expect("settings written above");
    ACCOUNTS.iter().map(connector).collect()
}

fn abilities(account: &Account) -> Abilities {
    Abilities { amount_minor: (1, account.most_minor), ..direct_merchant_abilities() }
}

pub(super) fn candidates() -> Vec<Candidate> {
    let candidate = |it: &Account| Candidate {
        id: ChannelId::new(it.channel),
        abilities: abilities(it),
        cost: BasisPoints::new(it.cost_bps).expect("far below 100 %"),
        enabled: true,
    };
    ACCOUNTS.iter().map(candidate).collect()
}
