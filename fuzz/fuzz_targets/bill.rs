//! Bill files: read or refused; what was read is written so that it reads back the same.
//!
//! Run from the root of the repository:
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run bill fuzz/corpus/bill fuzz/seeds/bill`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wechatpay::bill::{BillLink, FundBill, TradeBill};

fuzz_target!(|file: &[u8]| {
    if let Ok(bill) = TradeBill::parse(file) {
        let once = bill.render();
        // Reading is lenient and writing is not: from the second time on nothing may change.
        let again = TradeBill::parse(once.as_bytes()).expect("our own bill is readable");
        let twice = again.render();
        assert_eq!(TradeBill::parse(twice.as_bytes()).map(|it| it.render()), Ok(twice));
    }
    let _ = (FundBill::parse(file), BillLink::parse(file));
});
