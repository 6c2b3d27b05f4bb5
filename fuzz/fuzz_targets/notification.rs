//! What WeChat Pay sends us: the notification envelope, its payloads, certificates, answers.
//!
//! Run from the root of the repository:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run notification fuzz/corpus/notification fuzz/seeds/notification`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wechatpay::notification::Envelope;
use wechatpay::{ApiError, Apiv3Key, Refund, RefundNotice, Transaction, certificates};

fuzz_target!(|body: &[u8]| {
    let key = Apiv3Key::parse("0123456789abcdef0123456789ABCDEF").expect("32 letters and digits");
    if let Ok(it) = Envelope::parse(body) {
        let _ = it.open(&key);
        let again = Envelope::parse(it.to_json().as_bytes());
        // Times are written in whole seconds.
        assert_eq!(again.map(|it| it.ciphertext), Ok(it.ciphertext));
    }
    let _ = certificates::parse(body, &key);
    let _ = (Transaction::parse(body), Refund::parse(body), RefundNotice::parse(body));
    let _ = ApiError::parse(500, body);
});
