//! Merchants with their keys parsed, kept for a few seconds so that a signed request costs no read.

use app::{Merchant, Store, StoreError};
use kernel::{MerchantId, Timestamp};
use seal::{Certificate, Vault, Verifier};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use store::AnyStore;
use wechatpay::Apiv3Key;

/// How long a change made by another process may stay unseen.
const FRESH_MS: i64 = 3_000;

#[derive(Debug)]
pub struct KnownMerchant {
    pub merchant: Merchant,
    pub verifier: Verifier,
    pub certificate: Certificate,
    pub apiv3_key: Apiv3Key,
    read_at: Timestamp,
}

pub struct Merchants {
    store: AnyStore,
    vault: Vault,
    known: RwLock<HashMap<MerchantId, Arc<KnownMerchant>>>,
}

/// What an APIv3 key is sealed for; it opens nowhere else.
pub fn apiv3_context(id: &MerchantId) -> String {
    format!("merchant/{id}/apiv3_key")
}

impl Merchants {
    pub fn new(store: AnyStore, vault: Vault) -> Merchants {
        Merchants { store, vault, known: RwLock::default() }
    }

    /// `None`: no such merchant.
    pub async fn get(
        &self,
        id: &MerchantId,
        now: Timestamp,
    ) -> Result<Option<Arc<KnownMerchant>>, StoreError> {
        let found = self.known.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(known) = found.filter(|it| now.ms_since(it.read_at).abs() < FRESH_MS) {
            return Ok(Some(known));
        }
        let Some(stored) = self.store.merchant(id).await? else { return Ok(None) };
        let known = Arc::new(self.parse(stored.value, now)?);
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.clone(), known.clone());
        Ok(Some(known))
    }

    /// What is kept of a merchant is old.
    pub fn forget(&self, id: &MerchantId) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// What payers read; the number if the name is not at hand.
    pub async fn name(&self, id: &MerchantId, now: Timestamp) -> String {
        match self.get(id, now).await {
            Ok(Some(known)) => known.merchant.name.clone(),
            Ok(None) | Err(_) => id.to_string(),
        }
    }

    fn parse(&self, merchant: Merchant, now: Timestamp) -> Result<KnownMerchant, StoreError> {
        let id = merchant.id.clone();
        let odd = |what: &str, why: String| StoreError(format!("merchant {id}: {what}: {why}"));
        let certificate = Certificate::from_pem(&merchant.certificate_pem)
            .map_err(|it| odd("certificate", it.to_string()))?;
        let opened = self
            .vault
            .open(&apiv3_context(&id), &merchant.sealed_apiv3_key)
            .map_err(|it| odd("APIv3 key", it.to_string()))?;
        let apiv3_key =
            Apiv3Key::parse(opened.expose()).map_err(|it| odd("APIv3 key", it.to_string()))?;
        Ok(KnownMerchant {
            verifier: certificate.verifier(),
            certificate,
            apiv3_key,
            merchant,
            read_at: now,
        })
    }
}
