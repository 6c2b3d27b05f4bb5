//! Which addresses from outside may become links on our page.

/// Schemes that may stand in an `href`: the web, and wallets that a phone opens by address.
const SCHEMES: [&str; 7] = ["https", "http", "weixin", "alipays", "alipay", "alipayqr", "upwallet"];

/// Returns `url` if it is safe to link to, else `None`.
///
/// - Refused: a scheme that is not listed (`javascript:`, `data:`, relative addresses), a web
///   address without host, and any white space or control character, because browsers drop some
///   of those and read `java\tscript:` as a scheme.
/// - Not checked: whether the host is a good one. That is the merchant's business.
pub fn safe_link(url: &str) -> Option<&str> {
    if url.chars().any(|it| it.is_whitespace() || it.is_control()) {
        return None;
    }
    let (scheme, rest) = url.split_once(':')?;
    let known = SCHEMES.iter().find(|it| it.eq_ignore_ascii_case(scheme))?;
    let host = rest.strip_prefix("//").unwrap_or_default();
    let web = known.starts_with("http");
    let hosted = !host.is_empty() && !host.starts_with(['/', '\\', '?', '#']);
    (hosted || !web && !rest.is_empty()).then_some(url)
}

/// A web address that the page may also go to by itself; wallets want a tap.
pub(super) fn is_web(url: &str) -> bool {
    let scheme = url.split_once(':').map(|it| it.0).unwrap_or_default();
    ["http", "https"].iter().any(|it| it.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_schemes_become_links() {
        for url in [
            "https://shop.example/done?id=1&x=\"<>\"",
            "HTTP://127.0.0.1:8080/",
            "weixin://wxpay/bizpayurl?pr=abc",
            "alipays://platformapi/startapp?appId=20000067",
        ] {
            assert_eq!(safe_link(url), Some(url));
        }
        for url in [
            "",
            "/relative",
            "//host.example/",
            "shop.example",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "java\tscript:alert(1)",
            " https://shop.example",
            "https://shop.example/\n",
            "data:text/html,<script>alert(1)</script>",
            "vbscript:x",
            "file:///etc/passwd",
            "intent://scan#Intent;end",
            "https:shop.example",
            "https:///shop.example",
            "http:\\\\shop.example",
            "weixin:",
            "blob:https://shop.example/1",
        ] {
            assert_eq!(safe_link(url), None, "{url:?}");
        }
    }
}
