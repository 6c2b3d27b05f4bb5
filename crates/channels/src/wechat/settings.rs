//! What an operator configures for one merchant account at WeChat Pay, and what can be wrong
//! with it before anything is sent.

use channel::{Abilities, ChannelId, Product};
use kernel::{Currency, Secret};
use reqwest::Url;
use seal::{Scheme, Signer, Verifier};
use wechatpay::{Apiv3Key, Apiv3KeyError};

#[derive(Clone, Debug)]
pub struct WechatSettings {
    pub id: ChannelId,
    pub abilities: Abilities,
    /// `https://api.mch.weixin.qq.com`; a simulator's in the demo.
    pub base_url: String,
    pub mchid: String,
    pub appid: String,
    /// Of the API certificate that belongs to `signer`.
    pub merchant_serial: String,
    pub signer: Signer,
    pub apiv3_key: Secret,
    /// Where payment callbacks go; each order appends its own path to it.
    pub notify_url: String,
    /// Where refund callbacks go; each refund appends its own path to it.
    pub refund_notify_url: String,
    /// Keys that sign WeChat's answers. May be empty in certificate mode: they are fetched then,
    /// and opened with the APIv3 key.
    pub trust: Vec<TrustedKey>,
}

/// A platform certificate's serial with its key, or a `PUB_KEY_ID_…` with that public key.
#[derive(Clone, Debug)]
pub struct TrustedKey {
    pub serial: String,
    pub verifier: Verifier,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WechatSettingsError {
    #[error("base_url {0:?} is not scheme and host alone, such as https://api.mch.weixin.qq.com")]
    BaseUrl(String),
    #[error("apiv3_key: {0}")]
    Apiv3Key(#[from] Apiv3KeyError),
    #[error("the merchant key is {0}; this channel needs the RSA key of the API certificate")]
    Scheme(Scheme),
    #[error("{name} {url:?} is not an http(s) address without a query; WeChat calls it back")]
    NotifyUrl { name: &'static str, url: String },
}

/// What WeChat Pay lets an ordinary mainland merchant do. The largest payment is
/// the merchant's own agreement; 1,000,000 yuan stands for "not limited here".
pub fn direct_merchant_abilities() -> Abilities {
    Abilities {
        products: Product::ALL.to_vec(),
        currencies: vec![Currency::Cny],
        amount_minor: (1, 100_000_000),
        refund_days: 365,
        refunds_per_payment: 50,
    }
}

impl WechatSettings {
    pub(super) fn origin(&self) -> Result<String, WechatSettingsError> {
        let bad = || WechatSettingsError::BaseUrl(self.base_url.chars().take(100).collect());
        let url = Url::parse(&self.base_url).map_err(|_| bad())?;
        let web = matches!(url.scheme(), "http" | "https");
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let nobody = url.username().is_empty() && url.password().is_none();
        if web && bare && nobody { Ok(url.origin().ascii_serialization()) } else { Err(bad()) }
    }

    pub(super) fn checked_apiv3_key(&self) -> Result<Apiv3Key, WechatSettingsError> {
        Ok(Apiv3Key::parse(self.apiv3_key.expose())?)
    }

    pub(super) fn check_signer(&self) -> Result<(), WechatSettingsError> {
        match self.signer.scheme() {
            Scheme::Rsa => Ok(()),
            // SM2 accounts encrypt callbacks with SM4, which is not spoken yet.
            other @ (Scheme::Sm2 | Scheme::Ed25519) => Err(WechatSettingsError::Scheme(other)),
        }
    }

    pub(super) fn check_notify_urls(&self) -> Result<(), WechatSettingsError> {
        for (name, text) in
            [("notify_url", &self.notify_url), ("refund_notify_url", &self.refund_notify_url)]
        {
            let fits = Url::parse(text).is_ok_and(|it| {
                matches!(it.scheme(), "http" | "https")
                    && it.query().is_none()
                    && it.fragment().is_none()
            });
            if !fits {
                let url = text.chars().take(100).collect();
                return Err(WechatSettingsError::NotifyUrl { name, url });
            }
        }
        Ok(())
    }
}
