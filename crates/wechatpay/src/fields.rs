//! Reading the members of a request one by one, and refusing each by its name.
//!
//! Knows JSON and the wording of refusals; does not know which members a request has.

use crate::error::{ApiError, Location, Text};
use kernel::{Currency, Timestamp};
use serde_json::{Map, Value};

/// Where production is stricter than its clients need. All off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Refuse `null` members instead of taking them as absent.
    pub refuse_null: bool,
    /// Refuse characters of four bytes (emoji).
    pub refuse_four_bytes: bool,
}

/// What a length is counted in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Chars(usize, usize),
    Bytes(usize, usize),
}

/// The members of one JSON object of a request body.
pub(crate) struct Fields<'a> {
    members: &'a Map<String, Value>,
    pointer: String,
    reading: Reading,
}

/// The label of a member: its name in Chinese, as production's messages have it.
pub(crate) type Label = &'static str;

impl<'a> Fields<'a> {
    pub(crate) fn root(value: &'a Value, reading: Reading) -> Result<Fields<'a>, ApiError> {
        match value {
            Value::Object(members) => Ok(Fields { members, pointer: String::new(), reading }),
            _ => Err(ApiError::body_not_json("the outermost value is not an object")),
        }
    }

    fn get(&self, name: &str, label: Label) -> Result<Option<&'a Value>, ApiError> {
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::Null) if !self.reading.refuse_null => Ok(None),
            Some(Value::Null) => Err(self.refuse(
                name,
                label,
                "非空规则校验失败，不允许传null，无值时请不要传此字段",
                "must not be null; leave the member out",
            )),
            Some(value) => Ok(Some(value)),
        }
    }

    /// A refusal of this member. `zh` follows “映射到字段…”, `en` follows the pointer.
    pub(crate) fn refuse(&self, name: &str, label: Label, zh: &str, en: &str) -> ApiError {
        let pointer = format!("{}/{name}", self.pointer);
        let issue = Text::new(
            format!("输入源“/body{pointer}”映射到字段“{label}”{zh}"),
            format!("{pointer} {en}"),
        );
        ApiError::param(Location::Body, pointer, self.members.get(name).map(shown), issue)
    }

    fn missing(&self, name: &str, label: Label) -> ApiError {
        self.refuse(name, label, "必填性规则校验失败，此字段为必填项", "is required")
    }

    pub(crate) fn required<T>(
        &self,
        name: &str,
        label: Label,
        found: Option<T>,
    ) -> Result<T, ApiError> {
        found.ok_or_else(|| self.missing(name, label))
    }

    pub(crate) fn text(
        &self,
        name: &str,
        label: Label,
        length: Length,
    ) -> Result<Option<String>, ApiError> {
        let text = match self.get(name, label)? {
            None => return Ok(None),
            Some(Value::String(text)) => text,
            Some(_) => {
                let zh = "类型校验失败，此字段需要一个字符串";
                return Err(self.refuse(name, label, zh, "must be a string"));
            }
        };
        if self.reading.refuse_four_bytes && text.chars().any(|it| it.len_utf8() == 4) {
            let zh = "字符集校验失败，不支持4字节字符（如表情符号）";
            return Err(self.refuse(name, label, zh, "must not have characters of four bytes"));
        }
        let (count, unit, units, min, max) = match length {
            Length::Chars(min, max) => (text.chars().count(), "字符数", "characters", min, max),
            Length::Bytes(min, max) => (text.len(), "字节数", "bytes", min, max),
        };
        if count < min {
            let zh = format!("字符串规则校验失败，{unit} {count}，小于最小值 {min}");
            let en = format!("has {count} {units}; at least {min} are needed");
            return Err(self.refuse(name, label, &zh, &en));
        }
        if count > max {
            let zh = format!("字符串规则校验失败，{unit} {count}，大于最大值 {max}");
            let en = format!("has {count} {units}; at most {max} are allowed");
            return Err(self.refuse(name, label, &zh, &en));
        }
        Ok(Some(text.clone()))
    }

    pub(crate) fn required_text(
        &self,
        name: &str,
        label: Label,
        length: Length,
    ) -> Result<String, ApiError> {
        let found = self.text(name, label, length)?;
        self.required(name, label, found)
    }

    /// A number of a merchant's own: ASCII letters, digits and `extra`.
    pub(crate) fn number_name(
        &self,
        name: &str,
        label: Label,
        length: Length,
        extra: &str,
    ) -> Result<Option<String>, ApiError> {
        let found = self.text(name, label, length)?;
        let odd = |it: &char| !it.is_ascii_alphanumeric() && !extra.contains(*it);
        match found.as_ref().and_then(|it| it.chars().find(odd)) {
            None => Ok(found),
            Some(odd) => {
                let zh = format!(
                    "字符串规则校验失败，含有不允许的字符 {odd:?}，只能是数字、大小写字母和 {extra}"
                );
                let en = format!("has {odd:?}; use only digits, letters and {extra}");
                Err(self.refuse(name, label, &zh, &en))
            }
        }
    }

    /// An address for notifications: http or https, a host, neither query nor fragment. Whether
    /// the host is public is for the caller to judge, before anything is sent there.
    pub(crate) fn notify_url(
        &self,
        name: &str,
        label: Label,
        max: usize,
    ) -> Result<Option<String>, ApiError> {
        let Some(url) = self.text(name, label, Length::Chars(1, max))? else { return Ok(None) };
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.and_then(|it| it.split('/').next()).unwrap_or("");
        let clean = url.bytes().all(|it| it.is_ascii_graphic());
        let (zh, en) = if rest.is_none() {
            ("格式校验失败，应以 https:// 或 http:// 开头", "must begin with https:// or http://")
        } else if url.contains(['?', '#']) {
            ("格式校验失败，不允许携带查询串", "must not have a query or fragment")
        } else if host.is_empty() || host.contains('@') || !clean {
            ("格式校验失败，不是合法的URL", "is not a URL")
        } else {
            return Ok(Some(url));
        };
        Err(self.refuse(name, label, zh, en))
    }

    /// A whole number, at least `min`.
    pub(crate) fn integer(
        &self,
        name: &str,
        label: Label,
        min: i64,
    ) -> Result<Option<i64>, ApiError> {
        let number = match self.get(name, label)? {
            None => return Ok(None),
            Some(Value::Number(number)) => number,
            Some(Value::String(_)) => {
                let zh = "类型校验失败，此字段需要一个整数，请去掉引号";
                return Err(self.refuse(name, label, zh, "must be a number without quotes"));
            }
            Some(_) => {
                let zh = "类型校验失败，此字段需要一个整数";
                return Err(self.refuse(name, label, zh, "must be a whole number"));
            }
        };
        let below = number.as_f64().is_some_and(|it| it < min as f64);
        match number.as_i64() {
            Some(value) if value >= min => Ok(Some(value)),
            Some(_) => Err(self.too_small(name, label, min)),
            None if number.is_u64() || number.as_f64().is_some_and(|it| it.abs() >= 9.2e18) => {
                if below {
                    return Err(self.too_small(name, label, min));
                }
                let zh = format!("数值规则校验失败，值高于最大值 {}", i64::MAX);
                let en = format!("must be at most {}", i64::MAX);
                Err(self.refuse(name, label, &zh, &en))
            }
            None => {
                let zh = "类型校验失败，此字段需要一个整数，不支持小数";
                let en = "must be a whole number: amounts are in fen, 12.50 yuan is 1250";
                Err(self.refuse(name, label, zh, en))
            }
        }
    }

    fn too_small(&self, name: &str, label: Label, min: i64) -> ApiError {
        let pointer = format!("{}/{name}", self.pointer);
        // Production's own words for numbers.
        let zh = format!(
            "输入源“/body{pointer}”映射到数值字段“{label}”规则校验失败，值低于最小值 {min}"
        );
        let en = format!("{pointer} must be at least {min}");
        let value = self.members.get(name).map(shown);
        ApiError::param(Location::Body, pointer, value, Text::new(zh, en))
    }

    pub(crate) fn required_integer(
        &self,
        name: &str,
        label: Label,
        min: i64,
    ) -> Result<i64, ApiError> {
        let found = self.integer(name, label, min)?;
        self.required(name, label, found)
    }

    pub(crate) fn boolean(&self, name: &str, label: Label) -> Result<Option<bool>, ApiError> {
        match self.get(name, label)? {
            None => Ok(None),
            Some(Value::Bool(it)) => Ok(Some(*it)),
            Some(_) => {
                let zh = "类型校验失败，此字段需要一个布尔值";
                Err(self.refuse(name, label, zh, "must be true or false"))
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word(
        &self,
        name: &str,
        label: Label,
        words: &[&str],
    ) -> Result<Option<String>, ApiError> {
        let found = self.text(name, label, Length::Chars(1, 64))?;
        match &found {
            Some(word) if !words.contains(&word.as_str()) => {
                let list = words.join(", ");
                let zh = format!("枚举规则校验失败，值不在取值范围内：{list}");
                Err(self.refuse(name, label, &zh, &format!("must be one of: {list}")))
            }
            _ => Ok(found),
        }
    }

    /// A currency that we book; absent is CNY.
    pub(crate) fn currency(&self, name: &str, label: Label) -> Result<Option<Currency>, ApiError> {
        let Some(code) = self.text(name, label, Length::Chars(1, 16))? else { return Ok(None) };
        match Currency::parse(&code) {
            Some(it) => Ok(Some(it)),
            None => {
                let zh = "枚举规则校验失败，不支持的货币类型";
                let en = "is a currency that we do not know; write CNY";
                Err(self.refuse(name, label, zh, en))
            }
        }
    }

    pub(crate) fn time(&self, name: &str, label: Label) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(name, label, Length::Chars(1, 64))? else { return Ok(None) };
        match Timestamp::parse_rfc3339(&text) {
            // Whole seconds, as it is written: else a request would not equal its own rendering.
            Ok(it) => Ok(Some(Timestamp::from_ms(it.seconds() * 1_000))),
            Err(_) => {
                let zh = "格式校验失败，应为 RFC 3339 时间，例如 2018-06-08T10:34:56+08:00";
                let en = "must be an RFC 3339 time such as 2018-06-08T10:34:56+08:00";
                Err(self.refuse(name, label, zh, en))
            }
        }
    }

    pub(crate) fn object(&self, name: &str, label: Label) -> Result<Option<Fields<'a>>, ApiError> {
        match self.get(name, label)? {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Fields {
                members,
                pointer: format!("{}/{name}", self.pointer),
                reading: self.reading,
            })),
            Some(_) => {
                let zh = "类型校验失败，此字段需要一个JSON对象";
                Err(self.refuse(name, label, zh, "must be an object"))
            }
        }
    }

    fn array(&self, name: &str, label: Label) -> Result<Option<&'a Vec<Value>>, ApiError> {
        match self.get(name, label)? {
            None => Ok(None),
            Some(Value::Array(items)) if items.is_empty() => {
                let zh = "数组规则校验失败，元素个数 0，小于最小值 1";
                Err(self.refuse(name, label, zh, "is empty; leave it out or put an item in"))
            }
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => {
                let zh = "类型校验失败，此字段需要一个数组";
                Err(self.refuse(name, label, zh, "must be an array"))
            }
        }
    }

    /// An array of objects with at least one item; empty if the member is absent.
    pub(crate) fn objects(&self, name: &str, label: Label) -> Result<Vec<Fields<'a>>, ApiError> {
        let Some(items) = self.array(name, label)? else { return Ok(Vec::new()) };
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let Value::Object(members) = item else {
                let zh = format!("类型校验失败，第 {index} 个元素需要是一个JSON对象");
                let en = format!("must hold objects; item {index} is none");
                return Err(self.refuse(name, label, &zh, &en));
            };
            let pointer = format!("{}/{name}/{index}", self.pointer);
            out.push(Fields { members, pointer, reading: self.reading });
        }
        Ok(out)
    }

    /// An array of words out of `words`; empty if the member is absent.
    pub(crate) fn words(
        &self,
        name: &str,
        label: Label,
        words: &[&str],
    ) -> Result<Vec<String>, ApiError> {
        let Some(items) = self.array(name, label)? else { return Ok(Vec::new()) };
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            match item.as_str() {
                Some(word) if words.contains(&word) => out.push(word.to_owned()),
                _ => {
                    let list = words.join(", ");
                    let zh = format!("枚举规则校验失败，值不在取值范围内：{list}");
                    let en = format!("must hold only: {list}");
                    return Err(self.refuse(name, label, &zh, &en));
                }
            }
        }
        Ok(out)
    }

    /// The member as compact JSON, to count its bytes.
    pub(crate) fn compact_len(&self, name: &str) -> usize {
        self.members.get(name).map_or(0, |it| it.to_string().len())
    }
}

/// What an error shows of a value: scalars, long text cut; of others only what they are.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > 128 => {
            Value::from(format!("{}…", text.chars().take(128).collect::<String>()))
        }
        Value::Object(_) => Value::from("{…}"),
        Value::Array(_) => Value::from("[…]"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
