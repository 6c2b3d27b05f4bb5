//! The configuration in effect, value by value, and how two of them differ.

use super::document::{element_names, join};
use super::{Config, Source, schema};
use serde_json::Value;
use std::collections::BTreeMap;

/// A value that holds, and where it came from.
pub struct Shown {
    pub key: String,
    /// As JSON; `null` is not set.
    pub value: Value,
    pub source: Source,
}

/// Every value that holds. Secrets are replaced by a word.
pub fn shown(config: &Config) -> Vec<Shown> {
    let whole = schema::document();
    let is_secret = |key: &str| schema::at(&whole, key).is_some_and(|it| it["x-secret"] == true);
    let show = |(key, value): (String, Value)| {
        let value = if is_secret(&key) && !value.is_null() { "(secret)".into() } else { value };
        Shown { source: config.origin.source(&key), key, value }
    };
    flat(config).into_iter().map(show).collect()
}

fn flat(config: &Config) -> Vec<(String, Value)> {
    fn add(value: &Value, path: &str, list: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(object) => {
                object.iter().for_each(|(key, value)| add(value, &join(path, key), list));
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let ids: Vec<_> = items.iter().map(|it| it["id"].as_str()).collect();
                let names = element_names(path, &ids);
                names.iter().zip(items).for_each(|(name, item)| add(item, name, list));
            }
            other => list.push((path.to_owned(), other.clone())),
        }
    }
    let mut list = Vec::new();
    // Numbers, texts and lists: nothing that JSON could not hold.
    let value = serde_json::to_value(config).unwrap_or_default();
    add(&value, "", &mut list);
    list
}

/// Keys whose values differ, among those that a running process takes over (`live`) or does not.
pub fn changes(old: &Config, new: &Config, live: bool) -> Vec<String> {
    let whole = schema::document();
    let is_live = |key: &str| schema::at(&whole, key).is_some_and(|it| it["x-live"] == true);
    let [old, new] = [old, new].map(|it| flat(it).into_iter().collect::<BTreeMap<_, _>>());
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let differs = |key: &&&String| old.get(**key) != new.get(**key) && is_live(key) == live;
    keys.iter().filter(differs).map(|it| (*it).clone()).collect()
}
