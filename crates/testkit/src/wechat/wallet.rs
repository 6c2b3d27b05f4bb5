//! The wallet: pages on which a person pays a simulated order. Server-rendered, without script,
//! for screens from 360 pixels on.
//!
//! Renders values; what a press of a button does is decided by the order's rules.

use kernel::{Currency, Money};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use wechatpay::error::Language;
use wechatpay::query::encode;

/// What the pay page shows.
pub(super) struct Bill<'a> {
    pub(super) merchant: &'a str,
    pub(super) goods: &'a str,
    pub(super) amount: Money,
    pub(super) out_trade_no: &'a str,
    /// Why it cannot be paid (any more), if it cannot.
    pub(super) ended: Option<Ended>,
    pub(super) paying: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Paid,
    Closed,
    Expired,
}

/// What a page carries along.
pub(super) struct Page<'a> {
    pub(super) language: Language,
    /// What opened it; empty on the first page.
    pub(super) code: &'a str,
    /// Where the merchant wants the payer to go afterwards; only http and https come this far.
    pub(super) redirect_url: Option<&'a str>,
}

impl Page<'_> {
    fn say(&self, zh: &'static str, en: &'static str) -> &'static str {
        match self.language {
            Language::Zh => zh,
            Language::En => en,
        }
    }

    /// An address of the wallet with what is carried along.
    pub(super) fn address(&self, path: &str, language: Language) -> String {
        let mut out = format!("{path}?lang={}", language.tag());
        if !self.code.is_empty() {
            out += &format!("&pr={}", encode(self.code));
        }
        if let Some(url) = self.redirect_url {
            out += &format!("&redirect_url={}", encode(url));
        }
        out
    }

    fn frame(&self, path: &str, title: &str, content: Markup) -> String {
        let (other, word) = match self.language {
            Language::Zh => (Language::En, "English"),
            Language::En => (Language::Zh, "中文"),
        };
        html! {
            (DOCTYPE)
            html lang=(self.language.tag()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="referrer" content="no-referrer";
                    title { (title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        strong { (self.say("模拟钱包", "Simulated wallet")) }
                        a href=(self.address(path, other)) { (word) }
                    }
                    main { (content) }
                    footer { (self.say("仅供测试，不涉及真实资金", "For tests only: no real money moves")) }
                }
            }
        }
        .into_string()
    }

    /// The first page: a box for a code.
    pub(super) fn enter(&self, unknown: bool) -> String {
        let title = self.say("付款", "Pay");
        let content = html! {
            h1 { (title) }
            @if unknown {
                p.warn role="alert" {
                    (self.say("付款码无效或已失效，请让商家重新出码。", "This code is unknown or no longer works. Ask the merchant for a new one."))
                }
            }
            form method="get" action="/wallet/pay" {
                input type="hidden" name="lang" value=(self.language.tag());
                label for="pr" { (self.say("粘贴或输入付款码", "Paste or type a payment code")) }
                input id="pr" name="pr" required autocomplete="off" autocapitalize="none"
                    placeholder="weixin://wxpay/bizpayurl?pr=…";
                button.pay { (self.say("下一步", "Next")) }
            }
        };
        self.frame("/wallet/", title, content)
    }

    /// What is to be paid, with the buttons.
    ///
    /// - Input: `token` proves that a form came from this page.
    pub(super) fn pay(&self, bill: &Bill<'_>, token: &str, declined: bool) -> String {
        let title = self.say("确认付款", "Confirm payment");
        let content = html! {
            (self.sum(bill))
            @if declined {
                p.warn role="alert" {
                    (self.say("支付失败：余额不足或密码错误，可以重试。", "Payment failed: no balance or wrong password. You can try again."))
                }
            }
            @if bill.paying {
                p.note { (self.say("正在等待输入密码…", "Waiting for the password…")) }
            }
            form method="post" action="/wallet/pay" {
                input type="hidden" name="token" value=(token);
                input type="hidden" name="pr" value=(self.code);
                input type="hidden" name="lang" value=(self.language.tag());
                @if let Some(url) = self.redirect_url {
                    input type="hidden" name="redirect_url" value=(url);
                }
                button.pay name="outcome" value="success" { (self.say("立即支付", "Pay now")) }
                button name="outcome" value="paying" { (self.say("继续输入密码", "Keep typing the password")) }
                button name="outcome" value="decline" { (self.say("支付失败", "Decline")) }
            }
            @if let Some(url) = self.redirect_url {
                p { a href=(url) rel="noreferrer" { (self.say("不付了，返回商家", "Back to the merchant without paying")) } }
            }
        };
        self.frame("/wallet/pay", title, content)
    }

    /// How it ended.
    pub(super) fn done(&self, bill: &Bill<'_>, ended: Ended) -> String {
        let (sign, title) = match ended {
            Ended::Paid => ("✓", self.say("支付成功", "Paid")),
            Ended::Closed => ("×", self.say("订单已关闭", "The order is closed")),
            Ended::Expired => ("×", self.say("付款码已过期", "The time to pay is over")),
        };
        let content = html! {
            p.sign.good[ended == Ended::Paid] aria-hidden="true" { (sign) }
            h1 { (title) }
            (self.sum(bill))
            @if let Some(url) = self.redirect_url {
                p { a.button href=(url) rel="noreferrer" { (self.say("返回商家", "Back to the merchant")) } }
            }
        };
        self.frame("/wallet/pay", title, content)
    }

    /// A form that did not come from our page, or a press that is not possible.
    pub(super) fn refused(&self, why: &str) -> String {
        let title = self.say("未能完成", "Not possible");
        let content = html! {
            h1 { (title) }
            p.warn role="alert" { (why) }
            p { a href=(self.address("/wallet/pay", self.language)) { (self.say("返回付款页", "Back to the payment")) } }
        };
        self.frame("/wallet/pay", title, content)
    }

    fn sum(&self, bill: &Bill<'_>) -> Markup {
        let symbol = match bill.amount.currency() {
            Currency::Cny => "¥".to_owned(),
            other => format!("{} ", other.code()),
        };
        html! {
            p.merchant { (bill.merchant) }
            p.amount { (symbol) (bill.amount.major()) }
            dl {
                dt { (self.say("商品", "Goods")) }
                dd { (bill.goods) }
                dt { (self.say("订单号", "Order")) }
                dd { (bill.out_trade_no) }
            }
        }
    }
}

const STYLE: &str = "
*{box-sizing:border-box}
body{margin:0 auto;max-width:30rem;min-height:100vh;display:flex;flex-direction:column;
font:16px/1.5 system-ui,-apple-system,'PingFang SC','Microsoft YaHei',sans-serif;color:#1c1c1e;background:#f4f5f7}
header{display:flex;justify-content:space-between;padding:.9rem 1.2rem}
main{flex:1;margin:0 .8rem;padding:1.2rem;background:#fff;border-radius:14px;text-align:center}
footer{padding:1rem;text-align:center;color:#5f6368;font-size:.8rem}
a{color:#0b6b3a}h1{font-size:1.25rem;margin:.4rem 0 1rem}
.merchant{margin:.6rem 0 0}.amount{margin:.2rem 0 1.2rem;font-size:2.4rem;font-weight:700}
dl{display:grid;grid-template-columns:auto 1fr;gap:.4rem 1rem;margin:0 0 1.2rem;padding-top:1rem;border-top:1px solid #e6e8eb;text-align:left}
dt{color:#5f6368}dd{margin:0;text-align:right;overflow-wrap:anywhere}
form{display:grid;gap:.7rem}label{text-align:left}
input:not([type=hidden]){width:100%;padding:.8rem;border:1px solid #8a8f98;border-radius:10px;font:inherit}
button,.button{display:block;width:100%;min-height:3rem;padding:.7rem;border:1px solid #c9ccd1;border-radius:10px;
background:#fff;color:inherit;font:inherit;text-decoration:none;cursor:pointer}
button.pay{border-color:#067a3e;background:#067a3e;color:#fff;font-weight:600}
:focus-visible{outline:3px solid #1a73e8;outline-offset:2px}
.warn{padding:.7rem;border-radius:10px;background:#fdecea;color:#8c1d18}
.note{padding:.7rem;border-radius:10px;background:#e8f4ed;color:#0b5130}
.sign{width:4rem;margin:.6rem auto;border-radius:50%;background:#8a8f98;color:#fff;font-size:2.2rem;line-height:4rem}
.sign.good{background:#067a3e}
@media (prefers-color-scheme:dark){body{color:#e8eaed;background:#111315}main{background:#1d2023}
button,.button{background:#2a2e32;border-color:#5f6368}input:not([type=hidden]){background:#111315;color:inherit}
a{color:#7fd3a2}dt,footer{color:#a5abb3}dl{border-color:#34393e}}
";
