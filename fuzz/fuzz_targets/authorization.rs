//! The `Authorization` header and query strings: read or refused, and read back the same.
//!
//! Run from the root of the repository:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run authorization fuzz/corpus/authorization fuzz/seeds/authorization`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wechatpay::Authorization;
use wechatpay::query::{Query, decode_segment};

fuzz_target!(|text: &str| {
    if let Ok(it) = Authorization::parse(text) {
        assert_eq!(Authorization::parse(&it.render()), Ok(it));
    }
    let _ = (Query::parse(text), decode_segment(text));
});
