//! Moments, zones and business days. Nothing here reads a clock: the time is always an argument.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::fmt;

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("{0:?} is not an RFC 3339 time such as 2018-06-08T10:34:56+08:00")]
    NotRfc3339(String),
    #[error("{0:?} is not a date such as 2018-06-08")]
    NotADate(String),
    #[error("{0:?} is no time zone of the IANA list, such as Asia/Shanghai")]
    NoSuchZone(String),
}

/// The last moment that calendars here can show: 9999-12-30.
const LAST_MS: i64 = 253_402_128_000_000;

impl Timestamp {
    /// Clamps to what a four-digit year can show.
    pub const fn from_ms(ms: i64) -> Timestamp {
        if ms < 0 {
            Timestamp(0)
        } else if ms > LAST_MS {
            Timestamp(LAST_MS)
        } else {
            Timestamp(ms)
        }
    }

    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down, as signatures carry them.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub const fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp::from_ms(self.0.saturating_add(ms))
    }

    pub const fn plus_s(self, seconds: i64) -> Timestamp {
        self.plus_ms(seconds.saturating_mul(1000))
    }

    /// `self − earlier` in milliseconds, negative if `earlier` is later.
    pub const fn ms_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }

    pub fn parse_rfc3339(text: &str) -> Result<Timestamp, TimeError> {
        match text.parse::<jiff::Timestamp>() {
            Ok(it) => Ok(Timestamp::from_ms(it.as_millisecond())),
            Err(_) => Err(TimeError::NotRfc3339(text.chars().take(64).collect())),
        }
    }
}

/// Where business days begin at midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    pub fn named(name: &str) -> Result<Zone, TimeError> {
        TimeZone::get(name).map(Zone).map_err(|_| TimeError::NoSuchZone(name.into()))
    }

    /// Beijing time, the default: no daylight saving since 1991.
    pub fn shanghai() -> Zone {
        Zone(TimeZone::get("Asia/Shanghai").expect("the zone list is compiled in"))
    }

    fn local(&self, at: Timestamp) -> jiff::Zoned {
        let moment = jiff::Timestamp::from_millisecond(at.0).expect("Timestamp is clamped");
        moment.to_zoned(self.0.clone())
    }

    /// `2018-06-08T10:34:56+08:00`, whole seconds.
    pub fn rfc3339(&self, at: Timestamp) -> String {
        self.local(at).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// `2018-06-08 10:34:56`, as bills print it.
    pub fn plain(&self, at: Timestamp) -> String {
        self.local(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The business day that `at` falls on.
    pub fn day(&self, at: Timestamp) -> BusinessDay {
        BusinessDay(self.local(at).date())
    }

    /// The first moment of `day`.
    pub fn start(&self, day: BusinessDay) -> Timestamp {
        let midnight = day.0.to_zoned(self.0.clone()).expect("a four-digit year has midnights");
        Timestamp::from_ms(midnight.timestamp().as_millisecond())
    }
}

/// A day of the books, in the configured zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BusinessDay(Date);

impl BusinessDay {
    /// Reads `2018-06-08`.
    pub fn parse(text: &str) -> Result<BusinessDay, TimeError> {
        let bad = || TimeError::NotADate(text.chars().take(64).collect());
        let plain = text.len() == 10 && text.bytes().all(|it| it.is_ascii_digit() || it == b'-');
        let date = if plain { text.parse::<Date>().ok() } else { None };
        date.filter(|it| it.year() >= 1970).map(BusinessDay).ok_or_else(bad)
    }

    /// `days` later, earlier if negative; stops at the ends of the calendar.
    pub fn plus_days(self, days: i32) -> BusinessDay {
        BusinessDay(
            self.0.saturating_add(jiff::Span::new().days(i64::from(days).clamp(-7_000, 7_000))),
        )
    }

    /// `20180608`.
    pub fn compact(self) -> String {
        self.0.strftime("%Y%m%d").to_string()
    }
}

/// `2018-06-08`.
impl fmt::Display for BusinessDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_day_begins_at_midnight_in_its_zone() {
        let zone = Zone::shanghai();
        let eve = Timestamp::parse_rfc3339("2026-11-21T23:59:59+08:00").unwrap();
        assert_eq!(zone.day(eve).to_string(), "2026-11-21");
        assert_eq!(zone.day(eve.plus_s(1)).to_string(), "2026-11-22");
        assert_eq!(zone.start(zone.day(eve.plus_s(1))), eve.plus_s(1));
        assert_eq!(zone.plain(eve), "2026-11-21 23:59:59");
        assert_eq!(zone.day(eve).plus_days(10).compact(), "20261201");
    }

    #[test]
    fn odd_dates_and_times_are_refused() {
        for text in ["2026-2-3", "2026-02-30", "1969-12-31", "+002026-01-01", "", "2026-01-01T00"] {
            assert!(BusinessDay::parse(text).is_err(), "{text}");
        }
        for text in ["2026-01-01", "2026-01-01T00:00:00", "soon", ""] {
            assert!(Timestamp::parse_rfc3339(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn rfc3339_reads_back(ms in 0i64..LAST_MS) {
            let at = Timestamp::from_ms(ms / 1000 * 1000);
            prop_assert_eq!(Timestamp::parse_rfc3339(&Zone::shanghai().rfc3339(at)), Ok(at));
        }
    }
}
