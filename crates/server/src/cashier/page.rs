//! The cashier page: a [`CashierView`] in, one HTML document out.
//!
//! The document refers to nothing but our own style sheet and script, works without the script,
//! and stays under 30 KB with both. What state a payment is in, which methods it may use and when
//! it expires are decided elsewhere; this file only says it.

use super::link::{is_web, safe_link};
use super::text::{Text, fill};
use super::{Lang, qr};
use kernel::{Currency, Money, Timestamp, Zone};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::sync::LazyLock;

/// All that the page shows. Texts are plain and untrusted; the page escapes them.
#[derive(Clone, Debug)]
pub struct CashierView {
    pub merchant: String,
    pub goods: String,
    /// The merchant's order number, as the merchant's own pages show it.
    pub order_no: String,
    pub amount: Money,
    pub state: CashierState,
    /// What the payer may pay with. At most one is past [`Choice::Offered`].
    pub methods: Vec<MethodView>,
    pub expires: Timestamp,
    pub now: Timestamp,
    /// Where times of day are shown.
    pub zone: Zone,
    /// Where the merchant wants the payer back. Dropped unless [`safe_link`] lets it pass.
    pub return_url: Option<String>,
    /// Server-sent events: each `data` is JSON `{"state": <CashierState::name>}`. Add
    /// `"refresh": true` to have the page redrawn in the same state.
    pub live_url: String,
    /// This page, without `lang`.
    pub self_url: String,
    pub lang: Lang,
    /// The payer probably reads this on the device that has the wallet.
    pub phone: bool,
}

impl CashierView {
    /// This page again without relying on a cookie, which some wallets' web views drop.
    fn in_same_language(&self) -> String {
        with_query(&self.self_url, "lang", self.lang.code())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CashierState {
    Waiting,
    /// The wallet has the order and asks the payer for consent.
    Paying,
    /// `paid` is what left the payer's wallet where that differs, say after a wallet's coupon.
    Success {
        at: Timestamp,
        paid: Option<Money>,
    },
    Expired,
    Closed,
    Failed,
    /// Asked, no answer: the money may have moved.
    InDoubt,
}

impl CashierState {
    /// The name in `data-state` and in live events. Part of the interface, never renamed.
    pub const fn name(self) -> &'static str {
        match self {
            CashierState::Waiting => "waiting",
            CashierState::Paying => "paying",
            CashierState::Success { .. } => "success",
            CashierState::Expired => "expired",
            CashierState::Closed => "closed",
            CashierState::Failed => "failed",
            CashierState::InDoubt => "indoubt",
        }
    }

    /// Whether news is still to come, so that the page keeps asking.
    const fn is_open(self) -> bool {
        match self {
            CashierState::Waiting | CashierState::Paying | CashierState::InDoubt => true,
            CashierState::Success { .. }
            | CashierState::Expired
            | CashierState::Closed
            | CashierState::Failed => false,
        }
    }

    fn wording(self, text: &Text) -> (&'static str, &'static str) {
        match self {
            CashierState::Waiting => (text.waiting, ""),
            CashierState::Paying => (text.paying, text.paying_hint),
            CashierState::Success { .. } => (text.success, text.success_hint),
            CashierState::Expired => (text.expired, text.expired_hint),
            CashierState::Closed => (text.closed, text.closed_hint),
            CashierState::Failed => (text.failed, text.failed_hint),
            CashierState::InDoubt => (text.in_doubt, text.in_doubt_hint),
        }
    }
}

/// One way to pay.
#[derive(Clone, Debug)]
pub struct MethodView {
    /// Stable, `[a-z0-9_-]`: `wechat`, `alipay`.
    pub id: String,
    pub label_zh: String,
    pub label_en: String,
    /// Takes a form POST, so that a link preview that only GETs creates no order at the channel.
    /// Answer it with 303 to this page: the policy forbids forms to lead elsewhere.
    pub choose_url: String,
    pub choice: Choice,
}

/// How far the payer has come with a method.
#[derive(Clone, Debug)]
pub enum Choice {
    Offered,
    /// Chosen; the channel has not answered yet. The page asks again by itself.
    Preparing,
    /// `code_url` is drawn as a QR code, `open_url` leads into the wallet.
    Ready {
        code_url: Option<String>,
        open_url: Option<String>,
    },
    /// The channel refused. `why` is for the payer, in the payer's language.
    Refused {
        why: Option<String>,
    },
}

impl MethodView {
    fn label(&self, lang: Lang) -> &str {
        match lang {
            Lang::Zh => &self.label_zh,
            Lang::En => &self.label_en,
        }
    }
}

/// To be sent with every page here.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
     base-uri 'none'";

/// Where the page expects what [`asset`] answers.
pub const ASSET_PREFIX: &str = "/assets/";

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");

static STYLE_NAME: LazyLock<String> =
    LazyLock::new(|| format!("cashier-{:016x}.css", fingerprint(STYLE)));
static SCRIPT_NAME: LazyLock<String> =
    LazyLock::new(|| format!("cashier-{:016x}.js", fingerprint(SCRIPT)));

/// Content type and body of the file at [`ASSET_PREFIX`] + `name`. The name changes with the body,
/// so it may be cached for ever.
pub fn asset(name: &str) -> Option<(&'static str, &'static str)> {
    if name == *STYLE_NAME {
        Some(("text/css; charset=utf-8", STYLE))
    } else if name == *SCRIPT_NAME {
        Some(("text/javascript; charset=utf-8", SCRIPT))
    } else {
        None
    }
}

/// FNV-1a. Tells versions of our own files apart; it secures nothing.
fn fingerprint(body: &str) -> u64 {
    body.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Seconds until the page goes back to the merchant by itself: long enough to see the tick.
const RETURN_AFTER_S: u8 = 3;

/// Seconds between reloads where no script runs.
const RELOAD_S: u8 = 5;

/// The whole page of one payment.
pub fn render(view: &CashierView) -> Markup {
    let text = view.lang.text();
    let (title, _) = view.state.wording(text);
    let return_url = view.return_url.as_deref().and_then(safe_link);
    let reload = match view.state {
        CashierState::Success { .. } => {
            return_url.filter(|it| is_web(it)).map(|it| format!("{RETURN_AFTER_S};url={it}"))
        }
        state => state.is_open().then(|| RELOAD_S.to_string()),
    };
    let switch = with_query(&view.self_url, "lang", view.lang.other().code());
    let page_title = format!("{title} {} – {}", amount_text(view.amount), view.merchant);
    let shape = if payable(view.state) { "card pay-card" } else { "card done" };
    let main = html! {
        main #cashier class=(shape) data-live=[view.state.is_open().then_some(&view.live_url)]
            data-self=(view.in_same_language()) data-phone[view.phone] {
            section #order .order { (order(view, text)) }
            section #side .side {
                (status(view.state, text))
                div #clock .clock { @if payable(view.state) { (clock(view, text)) } }
                div #pay .pay {
                    @match view.state {
                        CashierState::Waiting => (payment(view, text)),
                        CashierState::Paying => (paying(view, text)),
                        _ => (ending(view, return_url, text)),
                    }
                }
            }
        }
    };
    let note = if payable(view.state) { text.care } else { text.served_by };
    document(view.lang, &page_title, reload.as_deref(), Some(&switch), true, note, main)
}

/// For an address that leads to no payment. Send it with 404.
pub fn not_found(lang: Lang) -> Markup {
    let text = lang.text();
    let switch = with_query("", "lang", lang.other().code());
    notice(lang, text.not_found, text.not_found_hint, Some(&switch))
}

/// For a server that cannot answer now. Send it with 429, 500 or 503.
pub fn unavailable(lang: Lang) -> Markup {
    let text = lang.text();
    notice(lang, text.unavailable, text.unavailable_hint, None)
}

fn notice(lang: Lang, title: &str, what_to_do: &str, switch: Option<&str>) -> Markup {
    let main = html! {
        main .card.done {
            div .status.end.bad data-testid="status" data-state="problem" role="alert" {
                (mark(BANG))
                h1 { (title) }
                p { (what_to_do) }
            }
        }
    };
    document(lang, title, None, switch, false, lang.text().served_by, main)
}

fn document(
    lang: Lang,
    title: &str,
    reload: Option<&str>,
    switch: Option<&str>,
    live: bool,
    note: &str,
    main: Markup,
) -> Markup {
    let text = lang.text();
    html! {
        (DOCTYPE)
        html lang=(lang.html()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1,viewport-fit=cover";
                meta name="color-scheme" content="light dark";
                meta name="format-detection" content="telephone=no";
                meta name="robots" content="noindex";
                // The page's address is a key to the payment: pass on the origin (wallets check
                // it), never the path.
                meta name="referrer" content="strict-origin";
                title { (title) }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href={ (ASSET_PREFIX) (*STYLE_NAME) };
                @if let Some(reload) = reload {
                    noscript { meta http-equiv="refresh" content=(reload); }
                }
                @if live { script src={ (ASSET_PREFIX) (*SCRIPT_NAME) } defer {} }
            }
            body {
                header .top {
                    span .brand { (LOGO) (text.brand) }
                    @if let Some(switch) = switch {
                        a .switch data-testid="lang-switch" href=(switch)
                            lang=(lang.other().html()) hreflang=(lang.other().html()) {
                            (text.switch)
                        }
                    }
                }
                (main)
                footer #note { (note) }
            }
        }
    }
}

/// A cash coin with its square hole.
const LOGO: PreEscaped<&str> = PreEscaped(
    "<svg class=logo viewBox='0 0 24 24' aria-hidden=true><path fill-rule=evenodd \
     d='M12 1a11 11 0 1 0 0 22 11 11 0 0 0 0-22zm0 2.6a8.4 8.4 0 1 1 0 16.8 8.4 8.4 0 0 1 \
     0-16.8zM8.4 8.4h7.2v7.2H8.4z'/></svg>",
);

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'\
     %3E%3Ccircle cx='12' cy='12' r='11' fill='%230a7558'/%3E%3Cpath fill='%23fff' d='M8 8h8v8H8z'/\
     %3E%3C/svg%3E";

fn order(view: &CashierView, text: &Text) -> Markup {
    let amount = amount_text(view.amount);
    let to = match view.state {
        CashierState::Waiting | CashierState::Paying => text.pay_to,
        CashierState::Success { .. } => text.paid_to,
        CashierState::Expired
        | CashierState::Closed
        | CashierState::Failed
        | CashierState::InDoubt => text.payee,
    };
    // Long amounts step down in size rather than break.
    let size = match amount.chars().count() {
        0..=11 => "amount",
        12..=16 => "amount long",
        _ => "amount longest",
    };
    // `bdi` keeps a right-to-left override in a name from reordering what stands beside it.
    html! {
        p .to {
            span { (to) } " "
            bdi data-testid="merchant" { (view.merchant) }
        }
        h1 class=(size) {
            span .unseen { (text.amount) " " }
            span data-testid="amount" { (amount) }
            @if view.amount.currency() != Currency::Cny || view.lang == Lang::En {
                " " span .code { (view.amount.currency().code()) }
            }
        }
        dl {
            @if let CashierState::Success { at, paid } = view.state {
                @if let Some(paid) = paid.filter(|it| *it != view.amount) {
                    div { dt { (text.actually_paid) } dd data-testid="paid" { (amount_text(paid)) } }
                }
                div { dt { (text.paid_at) } dd { (moment(&view.zone, at, view.now, view.lang)) } }
            }
            div { dt { (text.goods) } dd { bdi data-testid="goods" { (view.goods) } } }
            div { dt { (text.order_no) } dd .number { bdi data-testid="order-no" { (view.order_no) } } }
            @if payable(view.state) {
                div {
                    dt { (text.pay_by) }
                    dd { (moment(&view.zone, view.expires, view.now, view.lang)) }
                }
            }
        }
    }
}

/// The part that speaks up when it changes. The script keeps this element and swaps its inside,
/// because screen readers only announce changes within a region they already know.
fn status(state: CashierState, text: &Text) -> Markup {
    let (title, hint) = state.wording(text);
    let (class, strokes) = match state {
        CashierState::Waiting | CashierState::Paying => ("status open", None),
        CashierState::Success { .. } => ("status end good", Some(TICK)),
        CashierState::InDoubt => ("status end wait", Some(HANDS)),
        CashierState::Failed => ("status end bad", Some(BANG)),
        CashierState::Expired | CashierState::Closed => ("status end still", Some(DASH)),
    };
    html! {
        div #status class=(class) role="status" aria-live="polite" tabindex="-1"
            data-testid="status" data-state=(state.name()) {
            @match strokes {
                Some(strokes) => { (mark(strokes)) h2 { (title) } }
                None => { span .dot aria-hidden="true" {} strong { (title) } }
            }
            @if !hint.is_empty() { p { (hint) } }
        }
    }
}

// Strokes of the round marks on a 48 by 48 field; drawn, so that they look alike with every font.
const TICK: &str = "M15 25l7 7 12-14";
const BANG: &str = "M24 14v12m0 7.5v.5";
const HANDS: &str = "M24 14v10l6 5";
const DASH: &str = "M16 24h16";

fn mark(strokes: &str) -> Markup {
    html! {
        svg .mark viewBox="0 0 48 48" aria-hidden="true" {
            circle cx="24" cy="24" r="22" {}
            path d=(strokes) {}
        }
    }
}

fn clock(view: &CashierView, text: &Text) -> Markup {
    let left_ms = view.expires.ms_since(view.now).max(0);
    html! {
        (text.left) " "
        span data-testid="countdown" role="timer" aria-live="off" data-left-ms=(left_ms) {
            (time_left(left_ms))
        }
    }
}

fn payment(view: &CashierView, text: &Text) -> Markup {
    let chosen = view.methods.iter().find(|it| !matches!(it.choice, Choice::Offered));
    let others = view.methods.iter().filter(|it| chosen.is_none_or(|chosen| chosen.id != it.id));
    let others: Vec<&MethodView> = others.collect();
    html! {
        @if let Some(method) = chosen { (chosen_method(method, view, text)) }
        @match (chosen, others.as_slice()) {
            (None, []) => p .note { (text.none) },
            (Some(_), []) => {},
            (None, [only]) => {
                form method="post" action=(only.choose_url) {
                    button .big data-testid={ "method-" (only.id) } {
                        (fill(text.pay_with, only.label(view.lang)))
                    }
                }
            }
            (_, others) => {
                h2 .choose { @if chosen.is_some() { (text.change) } @else { (text.choose) } }
                ul .methods {
                    @for method in others { li { (offer(method, view.lang)) } }
                }
            }
        }
        p .again { a href=(view.in_same_language()) { (text.refresh) } }
    }
}

fn offer(method: &MethodView, lang: Lang) -> Markup {
    let label = method.label(lang);
    html! {
        form method="post" action=(method.choose_url) {
            button .method data-testid={ "method-" (method.id) } {
                span .badge data-brand=(method.id) aria-hidden="true" { (initial(label)) }
                span .label { (label) }
                span .chevron aria-hidden="true" {}
            }
        }
    }
}

fn chosen_method(method: &MethodView, view: &CashierView, text: &Text) -> Markup {
    let label = method.label(view.lang);
    html! {
        div .chosen data-testid={ "chosen-" (method.id) } {
            @match &method.choice {
                Choice::Offered => {}
                Choice::Preparing => {
                    p .note data-pending { span .spinner aria-hidden="true" {} (text.preparing) }
                }
                Choice::Refused { why } => {
                    div .refusal role="alert" data-testid="method-error" {
                        strong { (fill(text.refused, label)) }
                        @if let Some(why) = why { p { bdi { (why) } } }
                        p { (text.refused_hint) }
                    }
                    form method="post" action=(method.choose_url) {
                        button .big data-testid="retry" { (text.retry) }
                    }
                }
                Choice::Ready { code_url, open_url } => {
                    (ready(label, code_url.as_deref(), open_url.as_deref(), view.phone, text))
                }
            }
        }
    }
}

/// On a phone the button comes first and the code is for a second phone; on a desktop the code
/// comes first, and a link is only of use if the browser itself can open it.
fn ready(
    label: &str,
    code_url: Option<&str>,
    open_url: Option<&str>,
    phone: bool,
    text: &Text,
) -> Markup {
    let open = open_url.and_then(safe_link).filter(|it| phone || is_web(it));
    let caption = match (phone, open) {
        (false, _) => text.scan,
        (true, Some(_)) => text.scan_other,
        (true, None) => text.scan_only,
    };
    let code = html! {
        @if let Some(code_url) = code_url {
            @match qr::svg(code_url, &fill(text.qr_label, label)) {
                Some(svg) => figure {
                    div .frame { (svg) }
                    figcaption { (fill(caption, label)) }
                },
                None => p .note { (text.qr_too_long) },
            }
        }
    };
    html! {
        @match (phone, open) {
            (true, Some(url)) => {
                a .big data-testid="open-wallet" href=(url) { (fill(text.open, label)) }
                (code)
            }
            (false, Some(url)) => {
                (code)
                p .here { a data-testid="open-wallet" href=(url) { (fill(text.open_here, label)) } }
            }
            (_, None) => (code),
        }
    }
}

/// The wallet already asks the payer; the code stays within reach in case the payer lost it. It
/// is the same order, so using it again cannot pay twice.
fn paying(view: &CashierView, text: &Text) -> Markup {
    let ready = view.methods.iter().find(|it| matches!(it.choice, Choice::Ready { .. }));
    html! {
        p .note { span .spinner aria-hidden="true" {} }
        @if let Some(method) = ready {
            details { summary { (text.show_again) } (chosen_method(method, view, text)) }
        }
        p .again { a href=(view.in_same_language()) { (text.refresh) } }
    }
}

fn ending(view: &CashierView, return_url: Option<&str>, text: &Text) -> Markup {
    let success = matches!(view.state, CashierState::Success { .. });
    html! {
        @match return_url {
            Some(url) => {
                @let auto = (success && is_web(url)).then_some(RETURN_AFTER_S);
                a data-testid="return" href=(url) data-auto-s=[auto]
                    class=(if success { "big" } else { "big plain" }) { (text.back) }
                @if let Some(seconds) = auto {
                    p .again data-auto-note=(text.back_in) {
                        (fill(text.back_in, &seconds.to_string()))
                    }
                }
            }
            None if !view.state.is_open() => p .again { (text.may_close) },
            None => {}
        }
        @if view.state.is_open() {
            p .again { a href=(view.in_same_language()) { (text.refresh) } }
        }
    }
}

/// The payer can still act on the page.
const fn payable(state: CashierState) -> bool {
    matches!(state, CashierState::Waiting | CashierState::Paying)
}

/// The first letter for a method's badge.
fn initial(label: &str) -> String {
    label.chars().next().map(|it| it.to_uppercase().collect()).unwrap_or_default()
}

/// `¥123,456,789.00`, `HK$0.05`, `JP¥1,230`: never the same text for two currencies.
fn amount_text(amount: Money) -> String {
    let symbol = match amount.currency() {
        Currency::Cny => "¥",
        Currency::Hkd => "HK$",
        Currency::Usd => "US$",
        Currency::Eur => "€",
        Currency::Gbp => "£",
        Currency::Jpy => "JP¥",
        Currency::Krw => "₩",
        Currency::Sgd => "S$",
        Currency::Thb => "฿",
        Currency::Myr => "RM",
        Currency::Aud => "A$",
        Currency::Cad => "C$",
    };
    let major = amount.major();
    let (sign, digits) = major.strip_prefix('-').map_or(("", major.as_str()), |it| ("-", it));
    let (whole, decimals) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{symbol}{grouped}{decimals}")
}

/// `14:59`, `1:59:59`; a part of a second counts as a whole one, so 0:00 means over.
fn time_left(left_ms: i64) -> String {
    let seconds = (left_ms + 999) / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// A time of day, with the date unless it is today, and with the offset from UTC unless the reader
/// reads Chinese and it is Beijing's, which goes without saying.
fn moment(zone: &Zone, at: Timestamp, now: Timestamp, lang: Lang) -> Markup {
    let (exact, plain) = (zone.rfc3339(at), zone.plain(at));
    let time = if zone.day(at) == zone.day(now) { &plain[11..] } else { plain.as_str() };
    let offset = &exact[exact.len() - 6..];
    let unsaid = lang == Lang::Zh && offset == "+08:00";
    html! {
        time datetime=(exact) { (time) @if !unsaid { " (UTC" (offset) ")" } }
    }
}

/// Adds a query parameter to one of our own addresses.
fn with_query(url: &str, name: &str, value: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{name}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(id: &str, choice: Choice) -> MethodView {
        MethodView {
            id: id.into(),
            label_zh: "微信支付".into(),
            label_en: "WeChat Pay".into(),
            choose_url: format!("/c/abc/choose/{id}"),
            choice,
        }
    }

    fn ready(code_url: &str, open_url: &str) -> Choice {
        Choice::Ready { code_url: Some(code_url.into()), open_url: Some(open_url.into()) }
    }

    fn view() -> CashierView {
        let now = Timestamp::parse_rfc3339("2026-11-21T14:20:00+08:00").unwrap();
        CashierView {
            merchant: "青山茶社".into(),
            goods: "明前龙井 250g".into(),
            order_no: "T20261121000042".into(),
            amount: Money::new(12_850, Currency::Cny),
            state: CashierState::Waiting,
            methods: vec![method("wechat", ready("weixin://wxpay/x?pr=1", "https://w.example/"))],
            expires: now.plus_s(899),
            now,
            zone: Zone::shanghai(),
            return_url: Some("https://shop.example/done".into()),
            live_url: "/c/abc/live".into(),
            self_url: "/c/abc".into(),
            lang: Lang::Zh,
            phone: true,
        }
    }

    fn states(now: Timestamp) -> [CashierState; 7] {
        [
            CashierState::Waiting,
            CashierState::Paying,
            CashierState::Success { at: now, paid: Some(Money::new(1, Currency::Cny)) },
            CashierState::Expired,
            CashierState::Closed,
            CashierState::Failed,
            CashierState::InDoubt,
        ]
    }

    fn page(change: impl FnOnce(&mut CashierView)) -> String {
        let mut view = view();
        change(&mut view);
        render(&view).into_string()
    }

    /// Everything as long as the merchant API lets it be, and a code of the longest `code_url`.
    fn biggest(view: &mut CashierView) {
        view.merchant = "<\"商>".repeat(32);
        view.goods = "<\"&商".repeat(32);
        view.amount = Money::new(i64::MAX, Currency::Hkd);
        let url = format!("https://{}", "wX9&".repeat(126));
        view.methods = vec![
            method("wechat", ready(&url, &url)),
            method("alipay", Choice::Offered),
            method("unionpay", Choice::Offered),
            method("stripe", Choice::Offered),
            method("epay", Choice::Offered),
        ];
        view.return_url = Some(url);
    }

    #[test]
    fn the_biggest_page_is_under_30_kb_with_style_and_script() {
        for lang in [Lang::Zh, Lang::En] {
            for state in states(view().now) {
                let page = page(|it| {
                    biggest(it);
                    (it.lang, it.state) = (lang, state);
                });
                let total = page.len() + STYLE.len() + SCRIPT.len();
                assert!(total <= 30_000, "{lang:?} {state:?}: {total} bytes");
            }
        }
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "\"><script>alert(1)</script><img src=x onerror=alert(1)>";
        for state in states(view().now) {
            let page = page(|it| {
                it.state = state;
                it.merchant = evil.into();
                it.goods = evil.into();
                it.order_no = evil.into();
                it.return_url = Some(format!("https://x/{}", evil.replace(' ', "")));
                it.methods = vec![
                    method("a", Choice::Refused { why: Some(evil.into()) }),
                    method("b", Choice::Offered),
                ];
                it.methods[1].label_zh = evil.into();
                (it.self_url, it.live_url) = (evil.into(), evil.into());
            });
            assert_eq!(page.matches("<script").count(), 1, "ours alone");
            assert!(!page.contains("<img"));
            assert!(page.contains("&lt;script&gt;alert(1)"));
        }
    }

    #[test]
    fn only_listed_links_are_drawn() {
        let evil = "javascript:alert(1)";
        for state in states(view().now) {
            let page = page(|it| {
                it.state = state;
                it.return_url = Some(evil.into());
                it.methods = vec![method("wechat", ready("weixin://x", evil))];
            });
            assert!(!page.contains(evil), "{state:?}");
            assert!(!page.contains(r#"data-testid="return""#), "{state:?}");
        }
        let page = page(|it| it.state = CashierState::Closed);
        assert!(page.contains(r#"<a data-testid="return" href="https://shop.example/done""#));
    }

    /// The policy forbids inline style and script, and whatever comes from elsewhere.
    #[test]
    fn every_page_obeys_its_own_policy() {
        let mut pages: Vec<String> = states(view().now).map(|it| page(|v| v.state = it)).into();
        pages.push(page(biggest));
        pages.push(not_found(Lang::En).into_string());
        pages.push(unavailable(Lang::Zh).into_string());
        for page in pages {
            for banned in [" style=", "<style", " onclick", " onload", "src=\"http", "url(http"] {
                assert!(!page.contains(banned), "{banned} in {page}");
            }
            for quoted in page.split(ASSET_PREFIX).skip(1) {
                let name = quoted.split('"').next().unwrap();
                assert!(asset(name).is_some(), "{name} is not served");
            }
        }
        assert_eq!(asset("cashier-0.css"), None);
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }

    #[test]
    fn every_state_names_itself_and_only_open_ones_keep_asking() {
        for lang in [Lang::Zh, Lang::En] {
            for state in states(view().now) {
                let page = page(|it| (it.lang, it.state) = (lang, state));
                let (title, hint) = state.wording(lang.text());
                assert!(page.contains(&format!("data-state=\"{}\"", state.name())));
                assert!(page.contains(title) && page.contains(hint));
                assert_eq!(page.contains("data-live="), state.is_open(), "{state:?}");
                assert_eq!(page.contains("content=\"5\""), state.is_open(), "{state:?}");
                assert!(page.contains(&format!("<html lang=\"{}\">", lang.html())));
                let payer_may_act = matches!(state, CashierState::Waiting | CashierState::Paying);
                assert_eq!(page.contains("data-testid=\"qr\""), payer_may_act, "{state:?}");
            }
        }
    }

    #[test]
    fn success_goes_back_to_the_merchant_by_itself() {
        let success = CashierState::Success { at: view().now, paid: None };
        let page_to =
            |url: &str| page(|it| (it.state, it.return_url) = (success, Some(url.to_string())));
        let web = page_to("https://shop.example/done");
        assert!(web.contains(r#"content="3;url=https://shop.example/done""#));
        assert!(web.contains(r#"data-auto-s="3""#));
        // An app is only opened by a tap.
        let app = page_to("weixin://dl/business");
        assert!(app.contains(r#"href="weixin://dl/business""#));
        assert!(!app.contains("data-auto-s") && !app.contains("http-equiv"));
    }

    #[test]
    fn a_phone_gets_the_button_first_and_a_desktop_the_code() {
        let order = |page: &str| {
            let at = |id: &str| page.find(&format!("data-testid=\"{id}\""));
            (at("open-wallet"), at("qr"))
        };
        let (button, code) = order(&page(|_| {}));
        assert!(button.unwrap() < code.unwrap());
        let (button, code) = order(&page(|it| it.phone = false));
        assert!(button.unwrap() > code.unwrap());
        // A desktop browser cannot open a wallet's own scheme.
        let (button, code) = order(&page(|it| {
            it.phone = false;
            it.methods = vec![method("wechat", ready("weixin://x", "weixin://x"))];
        }));
        assert!(button.is_none() && code.is_some());
    }

    #[test]
    fn a_method_is_chosen_by_post_alone() {
        let page = page(|it| {
            it.methods = vec![method("wechat", Choice::Offered), method("alipay", Choice::Offered)];
        });
        for id in ["wechat", "alipay"] {
            let form = format!("<form method=\"post\" action=\"/c/abc/choose/{id}\">");
            assert!(page.contains(&form));
            assert!(page.contains(&format!("data-testid=\"method-{id}\"")));
            assert!(!page.contains(&format!("href=\"/c/abc/choose/{id}")));
        }
        assert!(!page.contains("data-testid=\"qr\""));
    }

    #[test]
    fn the_switch_keeps_the_address() {
        let href = |lang, url: &str| {
            page(|it| (it.lang, it.self_url) = (lang, url.into()))
                .split("data-testid=\"lang-switch\" href=\"")
                .nth(1)
                .and_then(|it| it.split('"').next().map(String::from))
        };
        assert_eq!(href(Lang::Zh, "/c/abc").as_deref(), Some("/c/abc?lang=en"));
        assert_eq!(href(Lang::En, "/c?t=abc").as_deref(), Some("/c?t=abc&amp;lang=zh"));
    }

    #[test]
    fn amounts_read_as_people_write_them() {
        let check = |minor, currency, want: &str| {
            assert_eq!(amount_text(Money::new(minor, currency)), want);
        };
        check(12_345_678_900, Currency::Cny, "¥123,456,789.00");
        check(1, Currency::Cny, "¥0.01");
        check(100_000, Currency::Hkd, "HK$1,000.00");
        check(99_999, Currency::Usd, "US$999.99");
        check(1_230, Currency::Jpy, "JP¥1,230");
        check(-123_456, Currency::Eur, "-€1,234.56");
        check(i64::MAX, Currency::Cny, "¥92,233,720,368,547,758.07");
    }

    #[test]
    fn times_say_no_more_than_needed() {
        let now = view().now;
        let check = |at, lang, want: &str| {
            let text = moment(&Zone::shanghai(), at, now, lang).into_string();
            assert!(text.contains(&format!("\">{want}</time>")), "{text}");
        };
        check(now.plus_s(899), Lang::Zh, "14:34:59");
        check(now.plus_s(899), Lang::En, "14:34:59 (UTC+08:00)");
        check(now.plus_s(86_400), Lang::Zh, "2026-11-22 14:20:00");
        assert_eq!(time_left(899_001), "15:00");
        assert_eq!(time_left(7_199_000), "1:59:59");
        assert_eq!(time_left(0), "00:00");
    }
}
