//! From a response to an answer. Nothing of a 2xx is believed before its signature held, files
//! excepted: those are unsigned, and proven by the hash that a signed answer gave.

use super::{Wechat, encode, facts, refusal};
use channel::{
    Answer, CreateOrder, FileLink, HttpMessage, Moment, Operation, Prepay, Product, ProviderKey,
};
use kernel::Timestamp;
use seal::Certificate;
use serde::Deserialize;
use wechatpay::headers::SignatureHeaders;
use wechatpay::{Refund, Transaction, certificates, signing};

pub(super) fn answer(
    wechat: &Wechat,
    operation: &Operation,
    message: &HttpMessage,
    moment: &Moment,
) -> Answer {
    let HttpMessage { status, body, .. } = message;
    if !(200..300).contains(status) {
        return refusal::answer(operation, *status, body);
    }
    let done: &[u16] = match operation {
        Operation::Close { .. } => &[200, 204],
        Operation::Create(_)
        | Operation::Query { .. }
        | Operation::Refund(_)
        | Operation::QueryRefund { .. }
        | Operation::Bill { .. }
        | Operation::Download { .. }
        | Operation::Keys => &[200],
    };
    if !done.contains(status) {
        // 202: accepted, not finished.
        return doubt(format!("status {status} says nothing final"));
    }
    match operation {
        Operation::Download { .. } => return Answer::Bytes(body.clone()),
        Operation::Keys => return keys(wechat, message, moment.now),
        Operation::Create(_)
        | Operation::Query { .. }
        | Operation::Close { .. }
        | Operation::Refund(_)
        | Operation::QueryRefund { .. }
        | Operation::Bill { .. } => {}
    }
    let headers = match fresh_headers(message, moment.now) {
        Ok(headers) => headers,
        Err(why) => return doubt(why),
    };
    let Some(verifier) = wechat.verifier(&headers.serial) else {
        return Answer::UnknownKey { serial: headers.serial };
    };
    if !headers.holds(&verifier, body) {
        return doubt(format!("the signature of key {} does not hold", headers.serial));
    }
    believed(wechat, operation, body, moment)
}

fn doubt(why: impl Into<String>) -> Answer {
    Answer::InDoubt { why: why.into() }
}

fn fresh_headers(message: &HttpMessage, now: Timestamp) -> Result<SignatureHeaders, String> {
    let headers =
        SignatureHeaders::read(|name| message.header(name)).map_err(|error| error.to_string())?;
    if signing::is_fresh(headers.timestamp, now) {
        Ok(headers)
    } else {
        let away_s = headers.timestamp.saturating_sub(now.seconds());
        Err(format!(
            "the answer was signed {away_s} s away from our time; at most {} s are allowed: check \
             the clock",
            signing::FRESH_S
        ))
    }
}

/// Reads a body whose signature held. That proves who wrote it, not that it answers *this*
/// question: a signature covers no request, so the numbers are compared.
fn believed(wechat: &Wechat, operation: &Operation, body: &[u8], moment: &Moment) -> Answer {
    match operation {
        Operation::Create(order) => match prepay(wechat, order, body, moment) {
            Ok(prepay) => Answer::Prepared(prepay),
            Err(why) => doubt(why),
        },
        Operation::Query { attempt } => {
            let transaction = match Transaction::parse(body) {
                Ok(transaction) => transaction,
                Err(error) => return doubt(error.to_string()),
            };
            let mchid = &wechat.settings.mchid;
            if transaction.out_trade_no != attempt.as_str() || transaction.mchid != *mchid {
                return doubt(format!(
                    "asked about {attempt} of {mchid}, answered about {} of {}",
                    head(&transaction.out_trade_no),
                    head(&transaction.mchid)
                ));
            }
            match facts::payment(transaction) {
                Ok(facts) => Answer::Payment(facts),
                Err(member) => doubt(format!("the order is paid, but {member} is missing")),
            }
        }
        Operation::Close { .. } => Answer::Closed,
        Operation::Refund(it) => refund(body, it.refund.as_str()),
        Operation::QueryRefund { refund: serial } => refund(body, serial.as_str()),
        Operation::Bill { .. } => match file_link(body) {
            Ok(link) => Answer::File(link),
            Err(why) => doubt(why),
        },
        Operation::Download { .. } | Operation::Keys => {
            doubt("files and keys are read before signatures")
        }
    }
}

fn refund(body: &[u8], asked: &str) -> Answer {
    match Refund::parse(body) {
        Ok(refund) if refund.out_refund_no == asked => Answer::Refund(facts::refund(refund)),
        Ok(refund) => doubt(format!(
            "asked about refund {asked}, answered about {}",
            head(&refund.out_refund_no)
        )),
        Err(error) => doubt(error.to_string()),
    }
}

fn prepay(
    wechat: &Wechat,
    order: &CreateOrder,
    body: &[u8],
    moment: &Moment,
) -> Result<Prepay, String> {
    let product = encode::product(order.product);
    let answer = wechatpay::Prepay::parse(product, body).map_err(|error| error.to_string())?;
    Ok(match answer {
        wechatpay::Prepay::CodeUrl(url) => Prepay { code_url: Some(url), ..Prepay::default() },
        wechatpay::Prepay::H5Url(url) => Prepay { h5_url: Some(url), ..Prepay::default() },
        wechatpay::Prepay::PrepayId(id) => {
            let pay_params = pay_params(wechat, order.product, &id, moment);
            Prepay { prepay_id: Some(id), pay_params, ..Prepay::default() }
        }
    })
}

/// What the payer's device hands to WeChat, signed with the merchant key that WeChat knows.
fn pay_params(
    wechat: &Wechat,
    product: Product,
    prepay_id: &str,
    moment: &Moment,
) -> Vec<(String, String)> {
    let settings = &wechat.settings;
    let (appid, signer) = (&settings.appid, &settings.signer);
    let (timestamp, nonce) = (moment.now.seconds(), &moment.nonce);
    match product {
        Product::Jsapi => signing::jsapi_pay_params(appid, prepay_id, timestamp, nonce, signer),
        Product::App => {
            let partner = &settings.mchid;
            signing::app_pay_params(appid, partner, prepay_id, timestamp, nonce, signer)
        }
        Product::Native | Product::H5 => Vec::new(),
    }
}

#[derive(Deserialize)]
struct RawLink {
    hash_type: String,
    hash_value: String,
    download_url: String,
}

fn file_link(body: &[u8]) -> Result<FileLink, String> {
    let link: RawLink =
        serde_json::from_slice(body).map_err(|error| format!("a bill's link: {error}"))?;
    if !link.hash_type.eq_ignore_ascii_case("SHA1") {
        return Err(format!("the bill's hash is {}, not SHA1", head(&link.hash_type)));
    }
    Ok(FileLink { url: link.download_url, sha1: link.hash_value.to_ascii_lowercase() })
}

/// Certificates prove themselves: the APIv3 key opens them, and the answer is signed by a key
/// already known or by one of those it carries. Expired ones are left out.
fn keys(wechat: &Wechat, message: &HttpMessage, now: Timestamp) -> Answer {
    let headers = match fresh_headers(message, now) {
        Ok(headers) => headers,
        Err(why) => return doubt(why),
    };
    let listed = match certificates::parse(&message.body, &wechat.apiv3_key) {
        Ok(listed) => listed,
        Err(error) => return doubt(error.to_string()),
    };
    let mut known = wechat.verifier(&headers.serial);
    let mut keys = Vec::with_capacity(listed.len());
    for it in listed {
        let certificate = match Certificate::from_pem(&it.pem) {
            Ok(certificate) => certificate,
            Err(error) => return doubt(format!("certificate {}: {error}", head(&it.serial_no))),
        };
        if !seal::same_serial(certificate.serial(), &it.serial_no) {
            return doubt(format!(
                "a certificate is listed as {}, but is {}",
                head(&it.serial_no),
                certificate.serial()
            ));
        }
        if known.is_none() && seal::same_serial(certificate.serial(), &headers.serial) {
            known = Some(certificate.verifier());
        }
        if certificate.not_after() > now {
            let serial = certificate.serial().to_owned();
            keys.push(ProviderKey { serial, certificate_pem: it.pem });
        }
    }
    let Some(verifier) = known else {
        return doubt(format!("the list is signed by {}, which it lacks", head(&headers.serial)));
    };
    if headers.holds(&verifier, &message.body) {
        Answer::Keys(keys)
    } else {
        doubt(format!("the signature of key {} does not hold", head(&headers.serial)))
    }
}

/// Enough of a foreign text to recognise it.
fn head(text: &str) -> String {
    text.chars().take(64).collect()
}
