//! Links of our own that nobody can guess or change: cashier pages and bill downloads. A link
//! carries what it means and a MAC over it, so that any gateway can read it and none stores it.

use crate::gateway::Gateway;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{BusinessDay, MerchantId, Serial, Timestamp};
use payments::Payment;

/// Bytes of the MAC: 128 bits.
const MAC: usize = 16;

fn seal_text(key: &[u8; 32], purpose: &str, text: &str) -> String {
    let mac = seal::digest::hmac_sha256(key, format!("{purpose}\n{text}").as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(&mac[..MAC]))
}

fn open_text<'a>(key: &[u8; 32], purpose: &str, sealed: &'a str) -> Option<&'a str> {
    let (text, _) = sealed.rsplit_once('.')?;
    let right = seal_text(key, purpose, text);
    seal::digest::same_bytes(right.as_bytes(), sealed.as_bytes()).then_some(text)
}

/// The token of a payment's cashier page.
pub fn cashier_token(key: &[u8; 32], merchant: &MerchantId, payment: Serial) -> String {
    seal_text(key, "cashier", &format!("{merchant}-{payment}"))
}

pub fn cashier(gateway: &Gateway, payment: &Payment) -> String {
    let token = cashier_token(&gateway.link_key, &payment.merchant, payment.serial);
    format!("{}/pay/{token}", gateway.settings().config.server.public_url)
}

pub fn read_cashier(key: &[u8; 32], token: &str) -> Option<(MerchantId, Serial)> {
    let (merchant, payment) = open_text(key, "cashier", token)?.split_once('-')?;
    Some((MerchantId::parse(merchant).ok()?, Serial::parse(payment).ok()?))
}

/// What a bill download link stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillTicket {
    pub merchant: MerchantId,
    pub day: BusinessDay,
    /// `ALL`, `SUCCESS`, `REFUND` or `FUNDS`.
    pub what: String,
    pub gzip: bool,
    /// By the wall clock.
    pub until: Timestamp,
}

pub fn bill(gateway: &Gateway, ticket: &BillTicket) -> String {
    let token = bill_token(&gateway.link_key, ticket);
    let tail = if ticket.gzip { "&tartype=gzip" } else { "" };
    let path = wechatpay::bill::DOWNLOAD_PATH;
    format!("{}{path}?token={token}{tail}", gateway.settings().config.server.public_url)
}

fn bill_token(key: &[u8; 32], it: &BillTicket) -> String {
    let text =
        format!("{}~{}~{}~{}~{}", it.merchant, it.day, it.what, u8::from(it.gzip), it.until.ms());
    seal_text(key, "bill", &text)
}

pub fn read_bill(gateway: &Gateway, token: &str) -> Option<BillTicket> {
    open_bill(&gateway.link_key, token)
}

fn open_bill(key: &[u8; 32], token: &str) -> Option<BillTicket> {
    let parts: Vec<&str> = open_text(key, "bill", token)?.split('~').collect();
    let [merchant, day, what, gzip, until] = parts.as_slice() else { return None };
    Some(BillTicket {
        merchant: MerchantId::parse(merchant).ok()?,
        day: BusinessDay::parse(day).ok()?,
        what: (*what).into(),
        gzip: *gzip == "1",
        until: Timestamp::from_ms(until.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::{SerialGenerator, SerialKind, Zone};

    #[test]
    fn links_read_back_and_cannot_be_changed() {
        let key = [7; 32];
        let merchant = MerchantId::parse("1900000109").unwrap();
        let now = Timestamp::from_ms(1_800_000_000_000);
        let payment = SerialGenerator::new(0, Zone::shanghai()).next(now, SerialKind::Payment);
        let token = cashier_token(&key, &merchant, payment);
        assert_eq!(read_cashier(&key, &token), Some((merchant.clone(), payment)));
        assert_eq!(read_cashier(&[8; 32], &token), None);
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'1' { b'2' } else { b'1' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(read_cashier(&key, &other), None, "{other}");
        }
        let day = BusinessDay::parse("2026-11-20").unwrap();
        let ticket = BillTicket { merchant, day, what: "ALL".into(), gzip: true, until: now };
        let token = bill_token(&key, &ticket);
        assert_eq!(open_bill(&key, &token), Some(ticket));
        // A token of one purpose is worth nothing for another.
        assert_eq!(read_cashier(&key, &token), None);
        assert_eq!(open_bill(&key, "x"), None);
    }
}
