//! Create and refund requests of merchants: whatever comes is read or refused, and what was read
//! is written so that it reads back the same.
//!
//! Signatures are not looked at here. Run from the root of the repository:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run v3_request fuzz/corpus/v3_request fuzz/seeds/v3_request`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wechatpay::{CreateRefund, CreateTransaction, Language, Product};

fuzz_target!(|body: &[u8]| {
    for product in Product::ALL {
        match CreateTransaction::parse(product, body) {
            Ok(it) => {
                assert_eq!(CreateTransaction::parse(product, it.to_json().as_bytes()), Ok(it))
            }
            Err(error) => drop(error.body(Language::Zh)),
        }
    }
    match CreateRefund::parse(body) {
        Ok(it) => assert_eq!(CreateRefund::parse(it.to_json().as_bytes()), Ok(it)),
        Err(error) => drop(error.body(Language::En)),
    }
    let _ = wechatpay::create::parse_close(body);
});
