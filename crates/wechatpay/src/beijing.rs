//! Times as WeChat Pay writes them: Beijing time, whole seconds.
//!
//! Does not read a clock and knows no other zone.

use kernel::{BusinessDay, Timestamp, Zone};
use std::sync::LazyLock;

/// UTC+8 the year round: `Asia/Shanghai` knows the summer times of 1986 to 1991, WeChat Pay does not.
static ZONE: LazyLock<Zone> =
    LazyLock::new(|| Zone::named("Etc/GMT-8").expect("the zone list is compiled in"));

/// `2018-06-08T10:34:56+08:00`
pub fn rfc3339(at: Timestamp) -> String {
    ZONE.rfc3339(at)
}

/// `2018-06-08 10:34:56`, as bills print it.
pub fn plain(at: Timestamp) -> String {
    ZONE.plain(at)
}

/// Reads what [`plain`] writes; `None` for anything else.
pub fn parse_plain(text: &str) -> Option<Timestamp> {
    let (day, time) = text.split_once(' ')?;
    let colons = time.len() == 8 && time.bytes().all(|it| it.is_ascii_digit() || it == b':');
    let digits = day.len() == 10 && day.bytes().all(|it| it.is_ascii_digit() || it == b'-');
    if !(colons && digits) {
        return None;
    }
    Timestamp::parse_rfc3339(&format!("{day}T{time}+08:00")).ok()
}

/// The business day of a moment.
pub fn day(at: Timestamp) -> BusinessDay {
    ZONE.day(at)
}

/// The first moment of a business day.
pub fn start(day: BusinessDay) -> Timestamp {
    ZONE.start(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_time_reads_back() {
        let at = Timestamp::from_ms(1_700_000_000_000);
        assert_eq!(plain(at), "2023-11-15 06:13:20");
        assert_eq!(parse_plain(&plain(at)), Some(at));
        for text in ["", "2023-11-15", "2023-11-15 6:13:20", "2023-11-15 25:13:20", "x y"] {
            assert_eq!(parse_plain(text), None, "{text}");
        }
    }
}
