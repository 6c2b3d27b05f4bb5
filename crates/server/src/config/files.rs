//! The keys and certificates that a configuration names, read and compared with each other. All
//! problems at once; nothing is opened that talks to anybody.

use super::{ChannelConfig, ChannelKind, Config, Findings};
use crate::clock;
use channel::ChannelId;
use channels::wechat::{TrustedKey, Wechat, WechatSettings, direct_merchant_abilities};
use kernel::Secret;
use seal::{Certificate, Signer, Verifier};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// A certificate that ends sooner than this is worth a warning.
const SOON_DAYS: i64 = 30;

/// A key that signs answers and notifications.
pub struct PlatformKey {
    pub signer: Signer,
    pub certificate: Certificate,
    pub public_key_id: Option<String>,
}

pub struct ChannelFiles {
    pub config: ChannelConfig,
    pub channel: Arc<dyn channel::Channel>,
}

/// All that a configuration's paths lead to.
pub struct Files {
    pub vault_key: [u8; 32],
    /// The first is the default.
    pub platform: Vec<PlatformKey>,
    pub channels: Vec<ChannelFiles>,
}

/// Reads files on behalf of keys.
struct Reader<'a> {
    config: &'a Config,
    findings: &'a mut Findings,
}

impl Files {
    /// `None` if anything is wrong; the findings say what.
    pub fn read(config: &Config, findings: &mut Findings) -> Option<Files> {
        let mut reader = Reader { config, findings };
        let vault_key = reader.vault_key();
        let keys = &config.keys;
        let mut platform = vec![reader.platform_key(
            ("keys.platform_private_key", &keys.platform_private_key),
            ("keys.platform_certificate", &keys.platform_certificate),
            Some(&keys.platform_public_key_id),
        )];
        for (index, it) in keys.additional.iter().enumerate() {
            let at = format!("keys.additional[{index}]");
            platform.push(reader.platform_key(
                (&format!("{at}.private_key"), &it.private_key),
                (&format!("{at}.certificate"), &it.certificate),
                it.public_key_id.as_ref(),
            ));
        }
        let channels: Vec<_> = config.channels.iter().map(|it| reader.channel(it)).collect();
        if findings.has_errors() {
            return None;
        }
        Some(Files {
            vault_key: vault_key?,
            platform: platform.into_iter().collect::<Option<_>>()?,
            channels: channels.into_iter().collect::<Option<_>>()?,
        })
    }

    /// The vault key alone, for commands that need nothing else.
    pub fn vault_key(config: &Config) -> Result<[u8; 32], Findings> {
        let mut findings = Findings::default();
        Reader { config, findings: &mut findings }.vault_key().ok_or(findings)
    }
}

impl Reader<'_> {
    fn error(&mut self, key: &str, what: String, why: impl Into<String>, remedy: &str) {
        self.findings.error(&self.config.origin, key, what, why, remedy);
    }

    fn text(&mut self, key: &str, path: &Path) -> Option<String> {
        let path = self.config.path(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                let what = format!("{} cannot be read", path.display());
                let remedy = "check the path (it is relative to the configuration) and its rights";
                self.error(key, what, error.to_string(), remedy);
                None
            }
        }
    }

    /// A file that nobody else should read.
    fn secret(&mut self, key: &str, path: &Path) -> Option<String> {
        let text = self.text(key, path)?;
        let full = self.config.path(path);
        let mode = std::fs::metadata(&full).map_or(0, |it| it.permissions().mode());
        if mode & 0o004 != 0 {
            let what = format!("{} can be read by every user of this machine", full.display());
            let why = "whoever has the key can act in your name";
            let remedy = format!("chmod 600 {}", full.display());
            self.findings.warning(&self.config.origin, key, what, why, remedy);
        }
        Some(text)
    }

    fn vault_key(&mut self) -> Option<[u8; 32]> {
        let (key, path) = ("keys.vault_key", self.config.keys.vault_key.clone());
        let text = self.secret(key, &path)?;
        let parsed = crate::install::parse_vault_key(text.trim());
        if parsed.is_none() {
            let what = format!("{} does not hold 64 hexadecimal digits", path.display());
            let why = "it encrypts the secrets in the database";
            self.error(key, what, why, "restore it from your backup; a new one opens nothing");
        }
        parsed
    }

    fn signer(&mut self, key: &str, path: &Path) -> Option<Signer> {
        let text = self.secret(key, path)?;
        match Signer::from_pem(&text) {
            Ok(signer) => Some(signer),
            Err(error) => {
                let what = format!("{} is no private key", path.display());
                self.error(key, what, error.to_string(), "give an unencrypted private key in PEM");
                None
            }
        }
    }

    fn certificate(&mut self, key: &str, path: &Path) -> Option<Certificate> {
        let text = self.text(key, path)?;
        let certificate = match Certificate::from_pem(&text) {
            Ok(certificate) => certificate,
            Err(error) => {
                let what = format!("{} is no certificate", path.display());
                self.error(key, what, error.to_string(), "give a certificate in PEM");
                return None;
            }
        };
        let (now, until) = (clock::wall(), certificate.not_after());
        let date = wechatpay::beijing::rfc3339(until);
        if now > until {
            let what = format!("certificate {} expired on {date}", path.display());
            let why = "merchants' SDKs refuse what it stands for";
            self.error(key, what, why, "make a new key and certificate");
        } else if now.plus_s(SOON_DAYS * 86_400) > until {
            let what = format!("certificate {} expires on {date}", path.display());
            let why = "merchants need time to fetch its successor";
            let remedy = "add the successor under [[keys.additional]] now";
            self.findings.warning(&self.config.origin, key, what, why, remedy);
        }
        Some(certificate)
    }

    fn platform_key(
        &mut self,
        (private_key, private): (&str, &Path),
        (certificate_key, certificate): (&str, &Path),
        public_key_id: Option<&String>,
    ) -> Option<PlatformKey> {
        let signer = self.signer(private_key, private);
        let found = self.certificate(certificate_key, certificate);
        let (signer, found) = (signer?, found?);
        if signer.verifier() != found.verifier() {
            let (private, certificate) = (private.display(), certificate.display());
            let what = format!("{certificate} is not the certificate of {private}");
            let why = "merchants would refuse every answer";
            self.error(certificate_key, what, why, "give the two that were made together");
            return None;
        }
        Some(PlatformKey { signer, certificate: found, public_key_id: public_key_id.cloned() })
    }

    fn channel(&mut self, it: &ChannelConfig) -> Option<ChannelFiles> {
        let ChannelKind::Wechat = it.kind;
        let at = format!("channel.{}", it.id);
        let key = |name: &str| format!("{at}.{name}");
        let signer = self.signer(&key("merchant_private_key"), &it.merchant_private_key);
        let apiv3_key = self.secret(&key("apiv3_key"), &it.apiv3_key);
        let mut trust = Some(Vec::new());
        if let (Some(path), Some(serial)) = (&it.platform_public_key, &it.platform_public_key_id) {
            let key = key("platform_public_key");
            let text = self.text(&key, path);
            let parsed = text.map(|it| Verifier::from_public_key_pem(&it));
            trust = match parsed {
                Some(Ok(verifier)) => Some(vec![TrustedKey { serial: serial.clone(), verifier }]),
                Some(Err(error)) => {
                    let what = format!("{} is no public key", path.display());
                    let remedy = "download it again from the channel's merchant platform";
                    self.error(&key, what, error.to_string(), remedy);
                    None
                }
                None => None,
            };
        }
        let callback = format!("{}/callback/{}", self.config.server.public_url, it.id);
        let settings = WechatSettings {
            id: ChannelId::new(&it.id),
            abilities: direct_merchant_abilities(),
            base_url: it.base_url.clone(),
            mchid: it.mchid.clone(),
            appid: it.appid.clone(),
            merchant_serial: it.merchant_serial.clone(),
            signer: signer?,
            apiv3_key: Secret::new(apiv3_key?.trim()),
            notify_url: callback.clone(),
            refund_notify_url: callback,
            trust: trust?,
        };
        match Wechat::new(settings) {
            Ok(channel) => Some(ChannelFiles { config: it.clone(), channel: Arc::new(channel) }),
            Err(error) => {
                let what = format!("channel {} cannot be opened", it.id);
                self.error(&at, what, error.to_string(), "correct its keys and addresses");
                None
            }
        }
    }
}
