//! Which addresses a merchant may have us call. A notification URL comes from outside, so it must
//! not reach what stands behind our own walls (SSRF).
//!
//! Pure: looks at what is written. Names are judged once more by the addresses they resolve to,
//! in `notify_client`.

use reqwest::Url;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefusal {
    #[error("notification address {0:?} is not an absolute URL such as https://shop.example/pay")]
    NotAUrl(String),
    #[error("notification address has scheme {0}; use https, or http if you must")]
    Scheme(String),
    #[error("notification address holds a user name or password; take them out")]
    UserInfo,
    #[error("notification address names {0}, which is not reachable from the public internet")]
    NotPublic(String),
}

/// Whether `url` may be called.
///
/// - Input: `allow_private` lifts the rule about addresses (demo, tests, a walled installation),
///   not those about scheme and user name.
/// - Not judged: what a name resolves to.
pub fn check_notify_url(url: &str, allow_private: bool) -> Result<(), UrlRefusal> {
    let not_a_url = || UrlRefusal::NotAUrl(url.chars().take(100).collect());
    let parsed = Url::parse(url).map_err(|_| not_a_url())?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(UrlRefusal::Scheme(parsed.scheme().chars().take(32).collect()));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(UrlRefusal::UserInfo);
    }
    let host = parsed.host_str().filter(|it| !it.is_empty()).ok_or_else(not_a_url)?;
    if allow_private || is_public_host(host) {
        Ok(())
    } else {
        Err(UrlRefusal::NotPublic(host.chars().take(100).collect()))
    }
}

/// - Input: a host as `Url` normalises it: `0x7f.1` has become `127.0.0.1` by then.
fn is_public_host(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(address) => is_public(address),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name != "localhost" && !name.ends_with(".localhost")
        }
    }
}

/// Whether packets to `address` leave for the public internet.
///
/// - Source: the special-purpose address registries of IANA (RFC 6890 and its updates).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => is_public_v4(it),
        IpAddr::V6(it) => is_public_v6(it),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0, ..] => true,             // This network.
        [10, ..] => true,            // Private.
        [100, 64..=127, ..] => true, // Carrier-grade NAT.
        [127, ..] => true,           // Loopback.
        [169, 254, ..] => true,      // Link-local, where clouds keep their metadata.
        [172, 16..=31, ..] => true,  // Private.
        [192, 0, 0 | 2, _] => true,  // Protocol assignments; documentation.
        [192, 88, 99, _] => true,    // 6to4 relays, withdrawn.
        [192, 168, ..] => true,      // Private.
        [198, 18 | 19, ..] => true,  // Benchmarks.
        [198, 51, 100, _] => true,   // Documentation.
        [203, 0, 113, _] => true,    // Documentation.
        [224..=255, ..] => true,     // Multicast, reserved, broadcast.
        [1..=223, ..] => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64 (RFC 6052): as public as the address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        [0x2001, 0..=0x01ff, ..] => false, // Teredo and other protocol assignments.
        [0x2001, 0x0db8, ..] => false,     // Documentation.
        [0x2002, ..] => false,             // 6to4: hides an IPv4 address, withdrawn.
        [0x3fff, ..] => false,             // Documentation.
        // Global unicast is 2000::/3. All else is loopback, IPv4-mapped, unique local,
        // link-local, site-local, multicast or unassigned.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_behind_the_wall_are_refused() {
        let check = |url: &str, want: Result<(), UrlRefusal>| {
            assert_eq!(check_notify_url(url, false), want, "{url}");
        };
        let public = [
            "https://shop.example/pay",
            "http://shop.example:8080/pay?x=1",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
            "https://[64:ff9b::808:808]/",
            "https://192.0.3.1/",
            "https://100.63.0.1/",
            "https://100.128.0.1/",
            "https://172.32.0.1/",
            "https://商店.example/",
        ];
        public.iter().for_each(|url| check(url, Ok(())));
        for (url, host) in [
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://127.1/", "127.0.0.1"),
            ("http://0x7f.0.0.1/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://017700000001/", "127.0.0.1"),
            ("http://0.0.0.0/", "0.0.0.0"),
            ("http://0.1.2.3/", "0.1.2.3"),
            ("http://10.0.0.1/", "10.0.0.1"),
            ("http://100.64.0.1/", "100.64.0.1"),
            ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
            ("http://172.16.0.1/", "172.16.0.1"),
            ("http://192.168.1.1/", "192.168.1.1"),
            ("http://198.18.0.1/", "198.18.0.1"),
            ("http://224.0.0.1/", "224.0.0.1"),
            ("http://255.255.255.255/", "255.255.255.255"),
            ("http://[::]/", "[::]"),
            ("http://[::1]/", "[::1]"),
            ("http://[::ffff:127.0.0.1]/", "[::ffff:7f00:1]"),
            ("http://[::ffff:8.8.8.8]/", "[::ffff:808:808]"),
            ("http://[::7f00:1]/", "[::7f00:1]"),
            ("http://[64:ff9b::7f00:1]/", "[64:ff9b::7f00:1]"),
            ("http://[64:ff9b:1::1]/", "[64:ff9b:1::1]"),
            ("http://[2002:7f00:1::]/", "[2002:7f00:1::]"),
            ("http://[2001:0:1::]/", "[2001:0:1::]"),
            ("http://[fc00::1]/", "[fc00::1]"),
            ("http://[fd12::1]/", "[fd12::1]"),
            ("http://[fe80::1]/", "[fe80::1]"),
            ("http://[fec0::1]/", "[fec0::1]"),
            ("http://[ff02::1]/", "[ff02::1]"),
            ("http://localhost/", "localhost"),
            ("http://LOCALHOST./", "localhost."),
            ("http://a.localhost:3000/", "a.localhost"),
            ("http://①②⑦.0.0.1/", "127.0.0.1"),
        ] {
            check(url, Err(UrlRefusal::NotPublic(host.into())));
            assert_eq!(check_notify_url(url, true), Ok(()), "{url}");
        }
    }

    #[test]
    fn odd_urls_are_refused_even_inside_the_wall() {
        let check = |url: &str, want: UrlRefusal| {
            assert_eq!(check_notify_url(url, false), Err(want.clone()), "{url}");
            assert_eq!(check_notify_url(url, true), Err(want), "{url}");
        };
        check("", UrlRefusal::NotAUrl("".into()));
        check("/pay", UrlRefusal::NotAUrl("/pay".into()));
        check("shop.example", UrlRefusal::NotAUrl("shop.example".into()));
        check("https://", UrlRefusal::NotAUrl("https://".into()));
        check("file:///etc/passwd", UrlRefusal::Scheme("file".into()));
        check("gopher://shop.example/", UrlRefusal::Scheme("gopher".into()));
        check("ftp://shop.example/", UrlRefusal::Scheme("ftp".into()));
        check("https://user@shop.example/", UrlRefusal::UserInfo);
        check("https://:word@shop.example/", UrlRefusal::UserInfo);
        check("https://8.8.8.8@127.0.0.1/", UrlRefusal::UserInfo);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(url in ".*") {
            let _ = check_notify_url(&url, false);
        }

        /// However an IPv4 address is written into IPv6, it is never more public.
        #[test]
        fn embedding_hides_nothing(bits in any::<u32>()) {
            let inner = Ipv4Addr::from_bits(bits);
            prop_assert!(!is_public(IpAddr::V6(inner.to_ipv6_mapped())));
            prop_assert!(!is_public(IpAddr::V6(inner.to_ipv6_compatible())));
            let nat64 = Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(bits));
            prop_assert_eq!(is_public(IpAddr::V6(nat64)), is_public(IpAddr::V4(inner)));
        }
    }
}
