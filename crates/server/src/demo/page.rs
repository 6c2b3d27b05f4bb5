//! The demo's overview: where to click.

use axum::response::Html;
use maud::{DOCTYPE, PreEscaped, html};

const STYLE: &str = "body{font:16px/1.6 system-ui,'PingFang SC','Noto Sans CJK SC',sans-serif;\
max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1d2129;background:#fff}\
h1{font-size:1.6rem}a{color:#07814a}li{margin:.6rem 0}code{background:#f2f3f5;padding:.1rem .3rem;\
border-radius:4px;word-break:break-all}p{color:#4e5969}\
@media(prefers-color-scheme:dark){body{background:#17181a;color:#e5e6eb}a{color:#4cd08a}\
code{background:#2a2b2e}p{color:#a9aeb8}}";

pub fn overview(base_url: &str, cashier: &str, simulator: Option<&str>) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="zh-CN" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "飞钱 Feiqian demo" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "飞钱 Feiqian" }
                p { "演示环境：真实的平台，模拟的微信支付。The real platform, with a simulated WeChat Pay." }
                ol {
                    li { a href=(cashier) { "收银台 · Cashier" } " — 打开一笔新订单 · a fresh order to pay" }
                    @if let Some(simulator) = simulator {
                        li {
                            a href={ (simulator) "/wallet/" } { "模拟钱包 · Simulated wallet" }
                            " — 扫码或粘贴二维码内容 · scan or paste a code"
                        }
                    }
                    li { "商户接口 · Merchant API: " code { (base_url) "/v3/…" } " — 微信支付 V3 SDK 只需更换地址 · change only the base URL of a WeChat Pay V3 SDK" }
                }
            }
        }
    };
    Html(page.into_string())
}
