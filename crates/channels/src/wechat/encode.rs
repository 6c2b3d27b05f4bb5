//! From an operation to a signed request. Pure: time and nonce are arguments.

use super::Wechat;
use channel::{CreateOrder, CreateRefund, EncodeError, HttpRequest, Moment, Operation, Product};
use kernel::{Currency, Money};
use reqwest::Url;
use wechatpay::create::{H5Info, SceneInfo, close_body};
use wechatpay::{Authorization, certificates, headers, refund, signing};

const OUT_TRADE_NO_PATH: &str = "/v3/pay/transactions/out-trade-no";
/// Bytes of `reason` of a refund.
const REASON_BYTES: usize = 80;

pub(super) fn request(
    wechat: &Wechat,
    operation: &Operation,
    moment: &Moment,
) -> Result<HttpRequest, EncodeError> {
    let mchid = &wechat.settings.mchid;
    let (method, target, body) = match operation {
        Operation::Create(order) => {
            let product = product(order.product);
            ("POST", product.path().to_owned(), create_body(wechat, order)?)
        }
        Operation::Query { attempt } => {
            ("GET", format!("{OUT_TRADE_NO_PATH}/{attempt}?mchid={mchid}"), String::new())
        }
        Operation::Close { attempt } => {
            ("POST", format!("{OUT_TRADE_NO_PATH}/{attempt}/close"), close_body(mchid))
        }
        Operation::Refund(it) => ("POST", refund::PATH.to_owned(), refund_body(wechat, it)?),
        Operation::QueryRefund { refund: serial } => {
            ("GET", format!("{}/{serial}", refund::PATH), String::new())
        }
        Operation::Bill { day } => {
            let target = format!("/v3/bill/tradebill?bill_date={day}&bill_type=ALL");
            ("GET", target, String::new())
        }
        Operation::Download { url } => ("GET", own_target(wechat, url)?, String::new()),
        Operation::Keys => ("GET", certificates::PATH.to_owned(), String::new()),
    };
    Ok(signed(wechat, operation, method, &target, body, moment))
}

fn signed(
    wechat: &Wechat,
    operation: &Operation,
    method: &'static str,
    target: &str,
    body: String,
    moment: &Moment,
) -> HttpRequest {
    let settings = &wechat.settings;
    let (timestamp, nonce) = (moment.now.seconds(), moment.nonce.as_str());
    let message = signing::request_message(method, target, timestamp, nonce, body.as_bytes());
    let authorization = Authorization {
        scheme: signing::scheme_name(settings.signer.scheme()).to_owned(),
        mchid: settings.mchid.clone(),
        nonce: nonce.to_owned(),
        timestamp,
        serial: settings.merchant_serial.clone(),
        signature: settings.signer.sign_base64(&message),
    };
    let accept = match operation {
        Operation::Download { .. } => "*/*",
        Operation::Create(_)
        | Operation::Query { .. }
        | Operation::Close { .. }
        | Operation::Refund(_)
        | Operation::QueryRefund { .. }
        | Operation::Bill { .. }
        | Operation::Keys => "application/json",
    };
    let mut pairs = vec![
        (headers::ACCEPT, accept.to_owned()),
        (headers::AUTHORIZATION, authorization.render()),
    ];
    if !body.is_empty() {
        pairs.push((headers::CONTENT_TYPE, headers::JSON.to_owned()));
    }
    if let Some(id) = &wechat.asked_key {
        pairs.push((headers::WECHATPAY_SERIAL, id.clone()));
    }
    let url = format!("{}{target}", wechat.origin);
    HttpRequest { method, url, headers: pairs, body: body.into_bytes() }
}

pub(super) fn product(product: Product) -> wechatpay::Product {
    match product {
        Product::Native => wechatpay::Product::Native,
        Product::Jsapi => wechatpay::Product::Jsapi,
        Product::App => wechatpay::Product::App,
        Product::H5 => wechatpay::Product::H5,
    }
}

fn create_body(wechat: &Wechat, order: &CreateOrder) -> Result<String, EncodeError> {
    let settings = &wechat.settings;
    let missing = |what| EncodeError::Missing { channel: settings.id.clone(), what };
    check_amount(wechat, order.amount)?;
    let openid = match order.product {
        Product::Jsapi => Some(order.payer.clone().ok_or_else(|| missing("the payer's openid"))?),
        Product::Native | Product::App | Product::H5 => None,
    };
    let h5_info = match order.product {
        Product::H5 => Some(H5Info {
            kind: order.h5_type.clone().ok_or_else(|| missing("h5_type: iOS, Android or Wap"))?,
            app_name: None,
            app_url: None,
            bundle_id: None,
            package_name: None,
        }),
        Product::Native | Product::Jsapi | Product::App => None,
    };
    let scene_info = match (&order.payer_ip, order.product) {
        (Some(ip), Product::Native | Product::Jsapi | Product::App | Product::H5) => {
            Some(SceneInfo {
                payer_client_ip: ip.clone(),
                device_id: None,
                store_info: None,
                h5_info,
            })
        }
        (None, Product::H5) => return Err(missing("the payer's IP address")),
        (None, Product::Native | Product::Jsapi | Product::App) => None,
    };
    let body = wechatpay::CreateTransaction {
        product: product(order.product),
        appid: settings.appid.clone(),
        mchid: settings.mchid.clone(),
        // The platform takes no characters of four bytes, such as emoji.
        description: order.description.chars().filter(|it| it.len_utf8() < 4).collect(),
        out_trade_no: order.attempt.to_string(),
        time_expire: Some(order.expires),
        attach: None,
        notify_url: join(&settings.notify_url, &order.callback_path),
        goods_tag: None,
        support_fapiao: None,
        amount: order.amount,
        openid,
        identity: None,
        detail: None,
        scene_info,
        profit_sharing: None,
        limit_pay: Vec::new(),
    };
    Ok(body.to_json())
}

fn refund_body(wechat: &Wechat, refund: &CreateRefund) -> Result<String, EncodeError> {
    check_amount(wechat, refund.amount)?;
    check_amount(wechat, refund.total)?;
    let body = wechatpay::CreateRefund {
        sub_mchid: None,
        transaction_id: None,
        out_trade_no: Some(refund.attempt.to_string()),
        out_refund_no: refund.refund.to_string(),
        reason: refund.reason.as_deref().map(short_reason).filter(|it| !it.is_empty()),
        notify_url: Some(join(&wechat.settings.refund_notify_url, &refund.callback_path)),
        funds_account: None,
        refund: refund.amount,
        total: refund.total,
        from: Vec::new(),
        goods_detail: Vec::new(),
    };
    Ok(body.to_json())
}

fn check_amount(wechat: &Wechat, amount: Money) -> Result<(), EncodeError> {
    if amount.is_positive() && amount.currency() == Currency::Cny {
        Ok(())
    } else {
        let what = format!("move {amount}; only amounts above zero in CNY");
        Err(EncodeError::Unsupported { channel: wechat.settings.id.clone(), what })
    }
}

/// As many whole characters as fit.
fn short_reason(reason: &str) -> String {
    let mut short = String::new();
    for letter in reason.chars().filter(|it| it.len_utf8() < 4) {
        if short.len() + letter.len_utf8() > REASON_BYTES {
            break;
        }
        short.push(letter);
    }
    short
}

fn join(base: &str, path: &str) -> String {
    format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'))
}

/// The request target of a file's URL. The URL came from outside and the request is signed with
/// our key: it goes to the API's own host or nowhere.
fn own_target(wechat: &Wechat, url: &str) -> Result<String, EncodeError> {
    let refused =
        |what: String| EncodeError::Unsupported { channel: wechat.settings.id.clone(), what };
    let parsed = Url::parse(url).map_err(|_| refused("download from what is no URL".into()))?;
    let origin = parsed.origin().ascii_serialization();
    if origin != wechat.origin || !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(refused(format!("download from {origin}; files come from {}", wechat.origin)));
    }
    Ok(match parsed.query() {
        Some(query) => format!("{}?{query}", parsed.path()),
        None => parsed.path().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(short_reason("不想要了"), "不想要了");
        assert_eq!(short_reason("a😀b"), "ab");
        assert_eq!(short_reason(&"退".repeat(40)), "退".repeat(26));
    }

    #[test]
    fn callback_paths_join_with_one_slash() {
        for (base, path) in [("https://a/b", "c/d"), ("https://a/b/", "/c/d")] {
            assert_eq!(join(base, path), "https://a/b/c/d");
        }
    }
}
