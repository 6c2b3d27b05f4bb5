//! All wording of the payer's pages, both languages side by side.
//!
//! `{}` is where a value goes; both columns have the same number of them. No markup here.

use super::Lang;

macro_rules! wording {
    ($($name:ident: $zh:literal, $en:literal;)*) => {
        /// The wording of one language. A text that lacks a translation does not compile.
        pub(super) struct Text { $(pub $name: &'static str,)* }

        static ZH: Text = Text { $($name: $zh,)* };
        static EN: Text = Text { $($name: $en,)* };

        #[cfg(test)]
        const ROWS: &[(&str, &str, &str)] = &[$((stringify!($name), $zh, $en),)*];
    };
}

wording! {
    brand: "飞钱收银台", "Feiqian Checkout";
    switch: "English", "中文";
    care: "请核对收款方和金额后再付款", "Check the payee and the amount before you pay";
    served_by: "由飞钱提供支付服务", "Payments by Feiqian";

    pay_to: "付款给", "Pay to";
    payee: "收款方", "Payee";
    paid_to: "已付款给", "Paid to";
    amount: "金额", "Amount";
    goods: "商品", "Item";
    order_no: "订单号", "Order no.";
    pay_by: "请在此前付款", "Pay by";
    paid_at: "付款时间", "Paid at";
    actually_paid: "实付金额", "You paid";
    left: "剩余", "Time left";

    choose: "选择付款方式", "Choose how to pay";
    change: "其他付款方式", "Other ways to pay";
    none: "该订单暂无可用的付款方式，请联系商户。", "There is no way to pay this order right now. Please contact the merchant.";
    pay_with: "使用{}付款", "Pay with {}";
    open: "打开{}付款", "Open {} to pay";
    open_here: "在本机打开{}", "Open {} on this device";
    scan: "打开{}，扫一扫付款", "Scan with {} to pay";
    scan_other: "或用另一部手机的{}扫码", "Or scan with {} on another phone";
    scan_only: "请用另一部手机的{}扫码付款", "Scan with {} on another phone to pay";
    qr_label: "{}付款二维码", "{} payment QR code";
    qr_too_long: "二维码无法显示，请换一种付款方式。", "The QR code cannot be shown. Please choose another way to pay.";
    preparing: "正在准备付款…", "Preparing your payment…";
    refused: "{}暂时无法使用", "{} is not available right now";
    refused_hint: "您没有被扣款。请重试，或换一种付款方式。", "You have not been charged. Try again or choose another way to pay.";
    retry: "重试", "Try again";
    refresh: "已付款？刷新状态", "Already paid? Refresh";
    show_again: "没有看到付款页面？", "Don’t see the payment screen?";

    waiting: "等待付款", "Waiting for payment";
    paying: "请在手机上确认付款", "Confirm in your wallet";
    paying_hint: "确认后，本页会自动更新。", "This page updates once you confirm.";
    success: "付款成功", "Payment successful";
    success_hint: "付款结果会自动通知商户。", "The merchant is informed automatically.";
    expired: "订单已过期", "This order has expired";
    expired_hint: "付款时间已过，请不要再付款。如仍需购买，请返回商户重新下单。", "The time to pay is over, so please do not pay it now. To buy, place a new order with the merchant.";
    closed: "订单已关闭", "This order is closed";
    closed_hint: "该订单已无法付款。如仍需购买，请返回商户重新下单。", "It can no longer be paid. To buy, place a new order with the merchant.";
    failed: "付款未成功", "Payment failed";
    failed_hint: "这笔付款没有完成。如仍需购买，请返回商户重新下单。", "This payment was not completed. To buy, place a new order with the merchant.";
    in_doubt: "正在确认付款结果", "Confirming your payment";
    in_doubt_hint: "付款结果还没有返回。请勿重复付款，确认后本页会自动更新。", "We are waiting for the wallet’s answer. Please do not pay again; this page updates by itself.";

    back: "返回商户", "Return to merchant";
    back_in: "{} 秒后自动返回", "Returning in {} s";
    may_close: "您可以关闭此页面。", "You can close this page.";

    not_found: "找不到这个订单", "We cannot find this order";
    not_found_hint: "链接可能不完整或已失效。请返回商户，重新打开付款页面。", "The link may be incomplete or no longer valid. Go back to the merchant and open the payment page again.";
    unavailable: "暂时无法打开收银台", "Checkout is not available right now";
    unavailable_hint: "请稍后刷新本页。如果您已经付款，请勿重复付款。", "Please refresh this page in a moment. If you have already paid, do not pay again.";
}

impl Lang {
    pub(super) fn text(self) -> &'static Text {
        match self {
            Lang::Zh => &ZH,
            Lang::En => &EN,
        }
    }
}

/// Puts `value` where the wording has `{}`.
pub(super) fn fill(wording: &str, value: &str) -> String {
    wording.replacen("{}", value, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_say_everything() {
        let han = |text: &str| text.chars().any(|it| ('\u{4e00}'..='\u{9fff}').contains(&it));
        for (name, zh, en) in ROWS {
            assert!(!zh.trim().is_empty() && !en.trim().is_empty(), "{name}");
            assert_eq!(zh.matches("{}").count(), en.matches("{}").count(), "{name}");
            // The switch is written in the language it leads to.
            let (zh, en) = if *name == "switch" { (en, zh) } else { (zh, en) };
            assert!(han(zh), "{name} is not Chinese: {zh}");
            assert!(!han(en), "{name} is not English: {en}");
        }
    }
}
