//! Who is calling: the checks of production, in its order.

use super::{Caller, header, system_error};
use crate::clock;
use crate::gateway::Gateway;
use http::HeaderMap;
use kernel::{MerchantId, Timestamp};
use seal::same_serial;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use wechatpay::signing::{FRESH_S, is_fresh, request_message, scheme_of};
use wechatpay::{ApiError, Authorization, headers};

pub(super) async fn authenticate(
    gateway: &Gateway,
    method: &str,
    target: &str,
    list: &HeaderMap,
    body: &[u8],
    wants_agent: bool,
) -> Result<Caller, ApiError> {
    let present = |name| header(list, name).is_some_and(|it| !it.is_empty());
    if wants_agent && !(present(headers::ACCEPT) && present(headers::USER_AGENT)) {
        return Err(ApiError::accept_or_user_agent_missing());
    }
    let path = target.split('?').next().unwrap_or(target);
    let malformed = || ApiError::authorization_malformed(path);
    let said = header(list, headers::AUTHORIZATION).ok_or_else(malformed)?;
    let said = Authorization::parse(said).map_err(|_| malformed())?;
    let scheme = scheme_of(&said.scheme).ok_or_else(ApiError::scheme_unknown)?;
    let now = clock::wall();
    if !is_fresh(said.timestamp, now) {
        return Err(ApiError::clock());
    }
    let id = MerchantId::parse(&said.mchid).map_err(|_| ApiError::serial_wrong())?;
    let found = gateway.merchants.get(&id, now).await.map_err(|it| system_error(&it))?;
    let known = found.filter(|it| it.merchant.active).ok_or_else(ApiError::serial_wrong)?;
    if !same_serial(&said.serial, known.certificate.serial()) {
        return Err(ApiError::serial_wrong());
    }
    if now > known.certificate.not_after() {
        return Err(ApiError::certificate_expired());
    }
    let holds = |target: &str| {
        let message = request_message(method, target, said.timestamp, &said.nonce, body);
        known.verifier.verify_base64(&message, &said.signature)
    };
    if known.verifier.scheme() != scheme {
        return Err(ApiError::serial_wrong());
    }
    // One SDK signs `|` and sends `%7C`.
    let holds = holds(target) || target.contains("%7C") && holds(&target.replace("%7C", "|"));
    if !holds {
        let message = request_message(method, target, said.timestamp, &said.nonce, body);
        return Err(ApiError::signature_wrong(method, target, &message));
    }
    if gateway.settings().config.server.refuse_replayed_nonces
        && !gateway.nonces.is_new(&id, &said.nonce, now)
    {
        return Err(ApiError::new(
            401,
            "SIGN_ERROR",
            "nonce_str 在5分钟内已使用过，请为每个请求生成新的随机串",
            "nonce_str was used within five minutes; draw a new one for each request",
        ));
    }
    let wants = header(list, headers::WECHATPAY_SERIAL).map(ToOwned::to_owned);
    Ok(Caller { known, wants, scheme })
}

/// Nonces seen while their timestamps are fresh. Only used where the configuration asks for it.
#[derive(Debug, Default)]
pub struct NonceBook {
    seen: Mutex<HashMap<(MerchantId, String), Timestamp>>,
}

impl NonceBook {
    /// Remembers a nonce; false if it was there.
    pub fn is_new(&self, merchant: &MerchantId, nonce: &str, now: Timestamp) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A timestamp may lie five minutes ahead, and then be fresh for five more.
        let old = now.plus_s(-2 * FRESH_S);
        if seen.len() % 1024 == 1023 {
            seen.retain(|_, at| *at > old);
        }
        match seen.insert((merchant.clone(), nonce.to_owned()), now) {
            Some(before) => before <= old,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_new_once() {
        let book = NonceBook::default();
        let [one, two] = ["1", "2"].map(|it| MerchantId::parse(it).unwrap());
        let now = Timestamp::from_ms(1_800_000_000_000);
        assert!(book.is_new(&one, "a", now));
        assert!(!book.is_new(&one, "a", now.plus_s(300)));
        assert!(book.is_new(&two, "a", now));
        assert!(book.is_new(&one, "b", now));
        assert!(book.is_new(&one, "b", now.plus_s(601)));
    }
}
