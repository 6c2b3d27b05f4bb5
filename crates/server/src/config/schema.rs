//! The JSON Schema of the configuration, made from its structures, and a file checked against it:
//! unknown and missing keys, types, ranges. What one value means for another is in `rules`.

use super::document::{Origin, element_names, join};
use super::{Config, Findings};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The schema. Sections stand where they are used, so that it reads like the file.
pub fn document() -> Value {
    static WHOLE: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
        let mut whole = settings.into_generator().into_root_schema_for::<Config>().to_value();
        add_secret_files(&mut whole);
        whole
    });
    WHOLE.clone()
}

/// Whatever may be secret may be read from a file: `url` gets a `url_file` beside it.
pub(super) fn add_secret_files(schema: &mut Value) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    let Some(properties) = properties else { return };
    let secret = |it: (&String, &Value)| (it.1["x-secret"] == true).then(|| it.0.clone());
    let secrets: Vec<String> = properties.iter().filter_map(secret).collect();
    for key in secrets {
        let live = properties[&key]["x-live"].clone();
        let mut file = json!({
            "description": format!("A file that holds `{key}`, instead of it."),
            "type": ["string", "null"],
        });
        if live == true {
            file["x-live"] = live;
        }
        properties.insert(format!("{key}_file"), file);
    }
    properties.values_mut().for_each(add_secret_files);
}

/// A key with its schema.
pub struct Leaf {
    /// `server.listen`; `channel[].id` in an array.
    pub path: String,
    pub schema: Value,
}

/// Every key that holds a value, in the order of the structures.
pub fn leaves() -> Vec<Leaf> {
    fn add(schema: &Value, path: &str, list: &mut Vec<Leaf>) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = join(path, key);
            if property["properties"].is_object() {
                add(property, &path, list);
            } else if property["items"]["properties"].is_object() {
                add(&property["items"], &format!("{path}[]"), list);
            } else {
                list.push(Leaf { path, schema: property.clone() });
            }
        }
    }
    let mut list = Vec::new();
    add(&document(), "", &mut list);
    list
}

/// The schema of the key at a path such as `server.listen`, `channel.wechat.id` or
/// `keys.additional[0].certificate`.
pub fn at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = schema;
    let mut parts = path.split('.');
    while let Some(part) = parts.next() {
        let (key, numbered) = part.split_once('[').map_or((part, false), |it| (it.0, true));
        here = here["properties"].get(key)?;
        if here["items"]["properties"].is_object() {
            here = &here["items"];
            if !numbered {
                parts.next();
            }
        }
    }
    Some(here)
}

fn is(schema: &Value, kind: &str) -> bool {
    match &schema["type"] {
        Value::String(it) => it == kind,
        Value::Array(list) => list.iter().any(|it| it == kind),
        _ => false,
    }
}

/// What a value should be, in words.
pub fn kind(schema: &Value) -> String {
    let words = |list: &Vec<Value>| {
        let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        format!("one of {}", words.join(", "))
    };
    if let Some(list) = schema["enum"].as_array() {
        return words(list);
    }
    let range = || match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        (Some(least), None) => format!("a whole number from {least}"),
        (None, Some(most)) => format!("a whole number up to {most}"),
        (None, None) => "a whole number".into(),
    };
    match () {
        () if is(schema, "integer") => range(),
        () if is(schema, "boolean") => "true or false".into(),
        () if schema["format"] == "address:port" => "an address with a port: 127.0.0.1:8080".into(),
        () if is(schema, "string") => "a text in quotes".into(),
        () if is(schema, "array") => "a list".into(),
        () if is(schema, "object") => "a section".into(),
        () => "of the right type".into(),
    }
}

/// A variable's text as a value, if it can be one.
pub fn parse(schema: &Value, text: &str) -> Option<Value> {
    if is(schema, "integer") {
        text.trim().parse::<i64>().ok().map(Value::from)
    } else if is(schema, "boolean") {
        text.trim().parse::<bool>().ok().map(Value::from)
    } else if is(schema, "string") {
        Some(text.into())
    } else if is(schema, "array") {
        Some(text.split(',').map(|it| Value::from(it.trim())).collect())
    } else {
        None
    }
}

/// Compares a document with the schema of the configuration.
pub fn check(value: &Value, origin: &Origin, findings: &mut Findings) {
    // What could not be parsed is missing for a reason that was given, or odd because of it.
    let broken: Vec<usize> =
        findings.iter().filter_map(|it| it.spot.as_ref()).map(|it| it.line).collect();
    let mut found = Findings::default();
    check_object(&document(), value, "", origin, &mut found);
    for finding in found.iter() {
        let fresh = |line| !broken.contains(&line);
        if broken.is_empty() || finding.spot.as_ref().is_some_and(|it| fresh(it.line)) {
            findings.push(finding.clone());
        }
    }
}

fn check_object(
    schema: &Value,
    value: &Value,
    path: &str,
    origin: &Origin,
    findings: &mut Findings,
) {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let Some(object) = value.as_object() else {
        let what = format!("{path} is not a section");
        let remedy = format!("write [{path}] and its keys below");
        findings.error(origin, path, what, "it holds keys of its own", remedy);
        return;
    };
    for (key, value) in object {
        let here = join(path, key);
        match properties.get(key) {
            Some(property) => check_value(property, value, &here, origin, findings),
            None => {
                let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                let remedy = match near(key, &names) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("remove it; there are: {}", names.join(", ")),
                };
                let why = "a key that nobody reads is a setting that silently does nothing";
                findings.error(origin, &here, format!("{here} is not a key"), why, remedy);
            }
        }
    }
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    for key in required.iter().filter_map(Value::as_str).filter(|it| !object.contains_key(*it)) {
        let here = join(path, key);
        let meaning = properties[key]["description"].as_str().unwrap_or("it has no default");
        let remedy = match path {
            "" => format!("add a section [{key}]"),
            path => format!("add {key} to [{path}]: {}", kind(&properties[key])),
        };
        findings.error(origin, &here, format!("{here} is missing"), meaning, remedy);
    }
}

fn check_value(
    schema: &Value,
    value: &Value,
    path: &str,
    origin: &Origin,
    findings: &mut Findings,
) {
    if schema["properties"].is_object() {
        return check_object(schema, value, path, origin, findings);
    }
    if let (Value::Array(items), true) = (value, is(schema, "array")) {
        let ids: Vec<_> = items.iter().map(|it| it["id"].as_str()).collect();
        for (name, item) in element_names(path, &ids).iter().zip(items) {
            check_value(&schema["items"], item, name, origin, findings);
        }
        return;
    }
    let typed = match value {
        Value::Bool(_) => is(schema, "boolean"),
        Value::Number(it) if it.is_i64() => is(schema, "integer"),
        Value::Number(_) => is(schema, "number"),
        Value::String(text) => {
            let listed = schema["enum"].as_array().is_none_or(|it| it.contains(value));
            let address =
                schema["format"] != "address:port" || text.parse::<std::net::SocketAddr>().is_ok();
            is(schema, "string") && listed && address
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    let within = value.as_i64().is_none_or(|it| {
        schema["minimum"].as_i64().is_none_or(|least| it >= least)
            && schema["maximum"].as_i64().is_none_or(|most| it <= most)
    });
    if !typed || !within {
        let shown =
            if schema["x-secret"] == true { "what it holds".into() } else { value.to_string() };
        let what = format!("{path} is {shown}, not {}", kind(schema));
        let why = schema["description"].as_str().unwrap_or("it means something else");
        findings.error(origin, path, what, why, format!("write {}", kind(schema)));
    }
}

/// The candidate that was probably meant: at most a third of its letters differ.
pub fn near(word: &str, candidates: &[&str]) -> Option<String> {
    let distances = candidates.iter().map(|it| (distance(word, it), *it));
    let (least, best) = distances.min()?;
    (least <= (word.len().max(best.len()) / 3).clamp(1, 4)).then(|| best.to_owned())
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = match (i, j) {
                (0, it) | (it, 0) => it,
                (i, j) => {
                    let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                    let least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped =
                        i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                    if swapped { least.min(rows[i - 2][j - 2] + 1) } else { least }
                }
            };
        }
    }
    rows[one.len()][other.len()]
}
