//! Which of the two languages a payer reads.

/// A language of the payer's pages. A third one is a variant here and a column in `text.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lang {
    Zh,
    En,
}

impl Lang {
    /// Chooses by what the payer asked for just now, then asked for before, then the browser.
    ///
    /// - Input: the `lang` query value, the `lang` cookie's value, the `Accept-Language` header.
    ///   Values that name neither language count as absent.
    /// - Output: of the header, the language with the highest `q`, the earlier of equals. Someone
    ///   whose browser only speaks other languages gets English; nothing readable gives Chinese.
    /// - Source: RFC 9110 §12.4.2 and §12.5.4.
    pub fn from_request(
        query_lang: Option<&str>,
        cookie: Option<&str>,
        accept_language: Option<&str>,
    ) -> Lang {
        let named = |it: Option<&str>| it.and_then(Lang::from_tag);
        named(query_lang)
            .or_else(|| named(cookie))
            .or_else(|| accept_language.and_then(preferred))
            .unwrap_or(Lang::Zh)
    }

    /// Reads a language tag by its first part: `zh`, `zh-Hant-HK`, `EN_us`.
    pub fn from_tag(tag: &str) -> Option<Lang> {
        let primary = tag.trim().split(['-', '_']).next()?;
        if primary.eq_ignore_ascii_case("zh") {
            Some(Lang::Zh)
        } else if primary.eq_ignore_ascii_case("en") {
            Some(Lang::En)
        } else {
            None
        }
    }

    /// The value for the `lang` query parameter and cookie.
    pub const fn code(self) -> &'static str {
        match self {
            Lang::Zh => "zh",
            Lang::En => "en",
        }
    }

    /// The value for the HTML `lang` attribute.
    pub const fn html(self) -> &'static str {
        match self {
            Lang::Zh => "zh-CN",
            Lang::En => "en",
        }
    }

    /// The one the switch leads to.
    pub const fn other(self) -> Lang {
        match self {
            Lang::Zh => Lang::En,
            Lang::En => Lang::Zh,
        }
    }
}

fn preferred(header: &str) -> Option<Lang> {
    let mut best: Option<(u16, Lang)> = None;
    for range in header.split(',') {
        let mut parts = range.split(';');
        let tag = parts.next().unwrap_or_default().trim();
        let weight = match parts.map(str::trim).find_map(|it| it.strip_prefix(['q', 'Q'])) {
            None => Some(1000),
            Some(rest) => rest.trim_start().strip_prefix('=').and_then(|it| thousandths(it.trim())),
        };
        let lang = match tag {
            "*" => Some(Lang::Zh),
            _ if is_tag(tag) => Some(Lang::from_tag(tag).unwrap_or(Lang::En)),
            _ => None,
        };
        let (Some(lang), Some(weight)) = (lang, weight) else { continue };
        // A language that the pages have beats one they lack, whatever the weights.
        let spoken = tag == "*" || Lang::from_tag(tag).is_some();
        let rank = if spoken { weight + 1000 } else { weight };
        if weight > 0 && best.is_none_or(|(most, _)| rank > most) {
            best = Some((rank, lang));
        }
    }
    best.map(|(_, lang)| lang)
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty() && tag.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_')
}

/// Reads a weight of `0` to `1` with up to three decimals as 0 to 1000.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.len() <= 3 && decimals.bytes().all(|it| it.is_ascii_digit());
    let value = match whole {
        "0" | "1" if digits => format!("{whole}{decimals:0<3}").parse().ok()?,
        _ => return None,
    };
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_just_now_wins() {
        let check = |query, cookie, accept, want| {
            let got = Lang::from_request(query, cookie, accept);
            assert_eq!(got, want, "{query:?} {cookie:?} {accept:?}");
        };
        check(Some("en"), Some("zh"), Some("zh-CN"), Lang::En);
        check(Some("fr"), Some("en"), Some("zh-CN"), Lang::En);
        check(Some(""), Some("x"), Some("zh-CN"), Lang::Zh);
        check(None, None, None, Lang::Zh);
    }

    #[test]
    fn the_browser_is_believed_by_its_weights() {
        #[track_caller]
        fn check(header: &str, want: Lang) {
            assert_eq!(Lang::from_request(None, None, Some(header)), want, "{header}");
        }
        check("zh-CN,zh;q=0.9,en;q=0.8", Lang::Zh);
        check("en-GB,en;q=0.9,zh;q=0.8", Lang::En);
        check("en;q=0.2, zh-Hant-HK;q=0.7", Lang::Zh);
        check("EN ; Q = 1.000 , zh;q=0.999", Lang::En);
        check("zh, en", Lang::Zh);
        check("en, zh", Lang::En);
        check("zh;q=0, en;q=0.1", Lang::En);
        check("fr-FR,fr;q=0.9", Lang::En);
        check("fr, zh;q=0.1", Lang::Zh);
        check("*", Lang::Zh);
        check("en;q=0.5, *;q=0.1", Lang::En);
        // Nothing readable: as if absent.
        check("", Lang::Zh);
        check("en;q=high", Lang::Zh);
        check("en;q=1.5", Lang::Zh);
        check("<script>,,;;q=1", Lang::Zh);
    }
}
