//! Known answers of the protocol, made with a throw-away key: message digests and signatures.
//!
//! The key is a throw-away made for that document; it protects nothing.

use kernel::Timestamp;
use seal::{Signer, Verifier, digest};
use wechatpay::headers::SignatureHeaders;
use wechatpay::notification::Envelope;
use wechatpay::signing;
use wechatpay::{Apiv3Key, CreateTransaction, Product};

const TIMESTAMP: i64 = 1_700_000_000;
const NONCE: &str = "593BEC0C930BF1AFEB40B4A08C8FB242";
const APPID: &str = "wx2421b1c4370ec43b";
const PREPAY_ID: &str = "wx201410272009395522657a690389285100";
const B1: &str = r#"{"appid":"wx2421b1c4370ec43b","mchid":"1900000109","description":"测试商品","out_trade_no":"T20231114001","notify_url":"https://example.com/notify","amount":{"total":100,"currency":"CNY"},"payer":{"openid":"oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}}"#;
const B2: &str = r#"{"prepay_id":"wx201410272009395522657a690389285100"}"#;
const B3: &str = r#"{"filename":"a.png","sha256":"e90137d39de304eefbbe788bc535c7e82f27abbf8069505fbbd8a9dcdc4f2024"}"#;

fn signer() -> Signer {
    Signer::from_pem(include_str!("fixtures/throwaway_rsa.pkcs8.pem")).unwrap()
}

fn verifier() -> Verifier {
    Verifier::from_public_key_pem(include_str!("fixtures/throwaway_rsa.public.pem")).unwrap()
}

#[track_caller]
fn check(message: &[u8], sha256: &str, signature: &str) {
    assert_eq!(digest::sha256_hex(message), sha256, "{}", String::from_utf8_lossy(message));
    assert_eq!(signer().sign_base64(message), signature);
    assert!(verifier().verify_base64(message, signature));
}

fn request(method: &str, path_and_query: &str, body: &str) -> Vec<u8> {
    signing::request_message(method, path_and_query, TIMESTAMP, NONCE, body.as_bytes())
}

#[test]
fn requests() {
    check(
        &request("POST", "/v3/pay/transactions/jsapi", B1),
        "398518aabac341ba1dc59f4e20719853e73a2c6244e8084bf6a7d9b32cadbd62",
        "oqE571Nf7THNfO3A8hGkebk7yIZFSIz+t39e6CckpGuFI6Ofo4Pb6EtPw84LQsgl4ypFdnaGMjfvsVeT+3JV83WOAnlmNGJp1gf/FLllzQD3gmTPQl0PFwUN3mOGn3Z3DNv0LOp9BcaDsjI8cYOQ/n+FL5DggFGs25Caq+cVMQ5OT+iElJW54K2Unjbdn9b0n7qaWc9HNiegu2dbQtI1aDxMjWaf89qXn/Jzbz0mN23U5ZEqL2YUTh7bqWFCAsMB5qqfUSfxAoaSSIl7KtKMCh8NFTHokMS1bVBJjsMmOFuCKxwsCh/dnopL9Ae2XcJ5weDb3+zCVHR7ke1aXUpCJw==",
    );
    check(
        &request("GET", "/v3/pay/transactions/out-trade-no/T20231114001?mchid=1900000109", ""),
        "5766bf8c98b52ebd952799fabcfe98039d568ea7b5104dc5762d4e2ed2b17a58",
        "KBTTQNVY60a5Hg6O4Z43nGSakyHBxKKHxsmWBCxE0YSNCx1KF28C7S8zuT5KChQA35FMVNqTvKYwdcLNCYHJwWbdQtv2PcDVBCNAtWjlVSB9Q40pEE81RRTKfO0h7gqHUVtaWJzaQCPwPFnoFLPzdOXJvw7BqcAUvugLwB2to8DE9xMCQ4xVaKCjSWjmkpDXL6Cmv1wAuX/wZjMEdMPIJrq8IKX7OdysoyeAtKdmhOif5w2REMw/OQ6C4V/wvbIby9epwjz5zn4X2OmxI/Ilt4R7vJ8zkqQli5cJvcxx95P6CsoQNFPycLRdUKeDpwIba5QxLMDXQRhhIMLOFtUXng==",
    );
    check(
        &request("POST", "/v3/merchant/media/upload", B3),
        "52ffa6941b76df6959ce269200992f38c441b9f684ecd482891746e4c29fadf9",
        "AXd+HxhRYOceeXfp37uFT0vsDehlh6z52mpkusST10EJ43m0AQZw0KghT5beX/zmHKXM1Ez8m5IU8udh0v56hZqu91jxVsVA1Vls8YpOIeBsUg90td22qUMxdHwBuK24M4MlTDLQOsN0Utd/p+f9AjA5s6/SZj8qugpLDMhtt7iM5YcKk8mded1HVQoclJwKzMWRd6+SDaD9BuVdgYCsaaeriRX5bddavmF8KclkUK3AZvobMYoPTfcmUVZs+D0NRaqD/QuEr8Rcs92wT8qWFlFYmTdghjMXzhuknGmubjDFstFBH8u7isLDJKubO3mOlRWPwrRCYbScxECMel6oOg==",
    );
}

#[test]
fn responses() {
    check(
        &signing::response_message(TIMESTAMP, NONCE, B2.as_bytes()),
        "37d50849a209987b936284ef02db483df46630936a203154e4fe91ee48fd64f4",
        "YZEm3+sP9tqIlFU4NyLMMqY0Xklo5bFNzdkVZkDXPa07Wrr9LPXRIa2jMSu7lhHabY6TbKslG6p+DfmpDW2oNzwZGiaZVh4zXc7GpFCKO83xBdsuC1FN3FKoRSTRRpOSo84afu+1w/yz5ezpMos5u930JL1IjyvAB6ZvCE6KCQvVb35+TIHgvwp28jWbvy8elzSc4s0jPRYn64qKfjZ2wd0q0gabB99ul4kahejlO41JsWlCYOn4zLFybEMWoGMZ4rbB+FkN0m/VdhIZWlI9vJZVM/LC94F1Ddxl8m9fpr1CE027bdtiRoYZobaeZMqPvyLD6fl31AbR6Bvz58SYqA==",
    );
    check(
        &signing::response_message(TIMESTAMP, NONCE, b""),
        "ecb064ea4546d97f9af92e9ef928b8fdd296c4cc2d7c05c1b635fbb16ff352c3",
        "IYLHsODHwkF3rxJ/rju6GiF2BQLeXC1pzp12QEQDv0a6MP5R87UVhIRlMY1mMPFU5PaKo5cOZ2Oimp2OIjkIqHgxLAsauyhbRBaORE5nYrW2+XwmAuZKZeIePnQEdyMIyacTN+YEQMpWihi1caQN6v3hGOPnk1Amv0rLwr5fTT/WGB3Z703oCFO9um3vGxcau/Y6GewnmyCXO4lFD+yYD3bztYpd0ouXjtjsRD5GR9271MVEq9vAb3SUpdDjSaQB81Tmqnro+SCJAiTbWJ1ozaGypbJm1HpvrlxQgvJMjsWVyHmkwDakW4k/qIjNVObyvEUXsjiKkRF6euOwCNEqqA==",
    );
}

#[test]
fn client_side_parameters() {
    check(
        &signing::jsapi_message(APPID, TIMESTAMP, NONCE, &format!("prepay_id={PREPAY_ID}")),
        "2bd6b49ea15d640a06e3a77f281e33900769e0d66cd696dcc28c278c17f90dea",
        "llNoPPyypKZ2ApXL/qvuqyq67u4Sv/BA82B94tnSyUSMJgjBgpzFv2YgY1rjQ5C7YBTtkO55O7mDL2FJfGfO8k+rPLGqaVS6KoDuO+GLFt9eC7Ch6lK1VBSMdb2TlVj5apEIo57cnW7g+F6p0SbrZonty5yzCyFBaVTRuMgJSCDova6L0jTcn/EwRnyebw777g4G6LP41K6Khc+en3HRlLsggFSbBuyr5znLKYfaJQURmIqNL1jgPttDcyZW9I5qFG17+xuJsu+IjAcgVR5u3JjPtgM/LT9T6aWSKfCNEH7yrUX6x2u4N+slR26z5XddmTRbwYuc3JaJ+byGSpa/SA==",
    );
    check(
        &signing::app_message(APPID, TIMESTAMP, NONCE, PREPAY_ID),
        "39a489f8bc95eda740615c78ca2aabee73516c5eda4debc8faea5d76ecfca6f7",
        "Yv37IqeSCUekO9qkUfmMd1OLeX+ov3BDEO/CeMGGv8RiphmxHgcV5z5sCKdPVpvRFkmDfVgbykTCrDnq+R/pdg8T5TZdQgpQ+mj2t4iMlv4Fv6ySbT1ovxlCdQBfjWUPLKo+Mb5TiqAp/lFt8oKX3efbhKxc1gAfz0AMP+vb9abItT5AIxsHJLkkIrz9iK6YRtKJt7crtqpJ+9DvT6h3k70VJP7bTOlAZmfxuL5MAt9gpuH7LjjOcBrfRg4O69sxJzo6RlDMAc8fDIpqISJAL8h5iZIvzg8yRNCt4ZOliIQWdycV1klNFoAtyvMkLN3TpL6asq5gm+ztOi5WA+8yVA==",
    );
    let jsapi = signing::jsapi_pay_params(APPID, PREPAY_ID, TIMESTAMP, NONCE, &signer());
    let names: Vec<&str> = jsapi.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(names, ["appId", "timeStamp", "nonceStr", "package", "signType", "paySign"]);
    assert_eq!(jsapi[3].1, format!("prepay_id={PREPAY_ID}"));
    assert_eq!(jsapi[4].1, "RSA");
    let app = signing::app_pay_params(APPID, "1900000109", PREPAY_ID, TIMESTAMP, NONCE, &signer());
    let names: Vec<&str> = app.iter().map(|it| it.0.as_str()).collect();
    let want = ["appid", "partnerid", "prepayid", "package", "noncestr", "timestamp", "sign"];
    assert_eq!(names, want);
    assert!(app[6].1.starts_with("Yv37IqeSCUek"));
}

#[test]
fn a_notification_opens() {
    let body = r#"{"id":"EV-1","create_time":"2023-11-15T06:13:20+08:00","resource_type":"encrypt-resource",
        "event_type":"TRANSACTION.SUCCESS","summary":"支付成功","resource":{"algorithm":"AEAD_AES_256_GCM",
        "ciphertext":"bz1kVndYkCFlgKSe7VZeuBxDb6Dr2XsMVxgLZBGofcEd7SUTxiqQu/BGnpamPaGRilgVGG76GP/aa6ZVMf18tl5niAU4bH3CzGXxxXMyF6PM43BV9XB8TCjYRIw=",
        "associated_data":"transaction","original_type":"transaction","nonce":"fdasflkja484"}}"#;
    let key = Apiv3Key::parse("0123456789abcdef0123456789ABCDEF").unwrap();
    let plain = r#"{"mchid":"1900000109","out_trade_no":"T20231114001","trade_state":"SUCCESS"}"#;
    let envelope = Envelope::parse(body.as_bytes()).unwrap();
    assert_eq!(envelope.open(&key).as_deref(), Ok(plain.as_bytes()));
    let at = Timestamp::from_ms(TIMESTAMP * 1_000);
    let kind = envelope.event_type.clone();
    let ours = Envelope::seal("EV-1", at, kind, plain.as_bytes(), "fdasflkja484", &key);
    assert_eq!(ours, Ok(envelope));
}

#[test]
fn signature_headers_hold_for_their_body_only() {
    let headers =
        SignatureHeaders::sign(&signer(), "PUB_KEY_ID_01", TIMESTAMP, NONCE, B2.as_bytes());
    let pairs = headers.clone().pairs();
    let get = |name: &str| pairs.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
    let read = SignatureHeaders::read(get).unwrap();
    assert_eq!(read, headers);
    assert!(read.holds(&verifier(), B2.as_bytes()));
    assert!(!read.holds(&verifier(), b""));
    let probe = format!("{}{}", signing::PROBE_PREFIX, read.signature);
    assert!(
        !SignatureHeaders { signature: probe, ..read.clone() }.holds(&verifier(), B2.as_bytes())
    );
    let other = signing::SCHEME_SM2.to_owned();
    assert!(!SignatureHeaders { signature_type: other, ..read }.holds(&verifier(), B2.as_bytes()));
}

#[test]
fn body_one_is_a_valid_request() {
    let it = CreateTransaction::parse(Product::Jsapi, B1.as_bytes()).unwrap();
    assert_eq!(
        (it.amount.minor(), it.openid.as_deref()),
        (100, Some("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"))
    );
    assert_eq!(it.to_json(), B1);
}
