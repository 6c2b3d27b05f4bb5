//! The file as text, the environment over it, and where every value came from. What a key means
//! and whether a value fits is the schema's business.

use super::finding::{Finding, Findings, Severity, Spot};
use super::schema::{self, near};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

const PREFIX: &str = "FEIQIAN_";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File,
    Environment(String),
}

/// Where values came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub file: PathBuf,
    text: String,
    /// Where a key stands in the text.
    places: BTreeMap<String, usize>,
    /// The variables that set keys.
    variables: BTreeMap<String, String>,
    /// Variables that look like overrides and are none, with what they may have meant.
    near: Vec<(String, String)>,
}

/// Names of an array's elements: their `id` where they have one of their own, else their number.
pub fn element_names<'a>(array: &str, ids: &[Option<&'a str>]) -> Vec<String> {
    let first = |id: &'a str| ids.iter().position(|it| *it == Some(id));
    let name = |(index, id): (usize, &Option<&'a str>)| match id {
        Some(id) if !id.is_empty() && first(id) == Some(index) => format!("{array}.{id}"),
        Some(_) | None => format!("{array}[{index}]"),
    };
    ids.iter().enumerate().map(name).collect()
}

pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

/// Reads the text, lays the environment over it, and puts in what `key_file` names.
pub fn read(
    path: &Path,
    text: String,
    environment: impl IntoIterator<Item = (String, String)>,
) -> (Value, Origin, Findings) {
    let mut findings = Findings::default();
    let mut origin = Origin { text, ..Origin::at(path) };
    let text = origin.text.clone();
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        let offset = error.span().map_or(0, |it| it.start);
        findings.push(Finding {
            spot: Some(origin.spot(offset)),
            ..origin.finding(
                Severity::Error,
                "",
                error.message().replace('\n', "; "),
                "this is not TOML".into(),
                "correct the line; texts stand in quotes, sections in brackets".into(),
            )
        });
    }
    let mut value = origin.table(table.get_ref(), "", &mut findings);
    if errors.is_empty() {
        let whole = schema::document();
        for (name, text) in environment {
            origin.override_with(&whole, &mut value, &name, &text, &mut findings);
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        origin.open_secrets(&whole, &mut value, "", folder, &mut findings);
    }
    (value, origin, findings)
}

impl Origin {
    pub fn at(file: &Path) -> Origin {
        Origin { file: file.into(), ..Origin::default() }
    }

    pub fn source(&self, key: &str) -> Source {
        match self.variables.get(key) {
            Some(name) => Source::Environment(name.clone()),
            None if self.places.contains_key(key) => Source::File,
            None => Source::Default,
        }
    }

    pub(super) fn finding(
        &self,
        severity: Severity,
        key: &str,
        what: String,
        why: String,
        remedy: String,
    ) -> Finding {
        let variable = self.variables.get(key).cloned();
        let spot = self.places.get(key).filter(|_| variable.is_none()).map(|it| self.spot(*it));
        Finding { severity, key: key.into(), variable, spot, what, why, remedy }
    }

    fn spot(&self, offset: usize) -> Spot {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let start = before.rfind('\n').map_or(0, |it| it + 1);
        let text = self.text[start..].lines().next().unwrap_or("").to_owned();
        let column = before[start..].chars().count() + 1;
        Spot { line: before.matches('\n').count() + 1, column, text }
    }

    fn table(&mut self, table: &DeTable<'_>, path: &str, findings: &mut Findings) -> Value {
        let mut object = Map::new();
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|it| it.0.span().start);
        for (key, value) in keys {
            let name: &str = key.get_ref();
            let path = join(path, name);
            self.places.insert(path.clone(), key.span().start);
            object.insert(name.into(), self.value(value, &path, findings));
        }
        Value::Object(object)
    }

    fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        findings: &mut Findings,
    ) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.into(),
                    Err(error) => {
                        let what = format!("{number} is too large: {error}");
                        findings.error(self, path, what, "it has 64 bits", "write less");
                        Value::from(0)
                    }
                }
            }
            DeValue::Float(number) => {
                number.as_str().parse::<f64>().map_or(Value::Null, Value::from)
            }
            DeValue::Boolean(it) => (*it).into(),
            DeValue::Datetime(it) => Value::from(it.to_string()),
            DeValue::Array(items) => self.array(items, path, findings),
            DeValue::Table(table) => self.table(table, path, findings),
        }
    }

    fn array(&mut self, items: &DeArray<'_>, path: &str, findings: &mut Findings) -> Value {
        let id = |it: &Spanned<DeValue<'_>>| {
            it.get_ref().get("id").and_then(|it| it.get_ref().as_str()).map(ToOwned::to_owned)
        };
        let ids: Vec<Option<String>> = items.iter().map(id).collect();
        let ids: Vec<Option<&str>> = ids.iter().map(Option::as_deref).collect();
        let named = element_names(path, &ids).into_iter().zip(items.iter());
        let one = |(name, item): (String, &Spanned<DeValue<'_>>)| {
            self.places.insert(name.clone(), item.span().start);
            self.value(item, &name, findings)
        };
        named.map(one).collect()
    }

    /// Takes a variable in, if it is one of ours.
    fn override_with(
        &mut self,
        whole: &Value,
        value: &mut Value,
        name: &str,
        text: &str,
        findings: &mut Findings,
    ) {
        let Some(rest) = name.strip_prefix(PREFIX) else { return };
        let known = variables(whole, value);
        let Some((_, path)) = known.iter().find(|it| it.0 == name) else {
            let names: Vec<&str> = known.iter().map(|it| it.0.as_str()).collect();
            if rest.contains("__") {
                let why = "a variable that nobody reads is a setting that silently does nothing";
                let remedy = match near(name, &names) {
                    Some(near) => format!("did you mean {near}? Otherwise unset it"),
                    None => "unset it; `feiqian config show` lists all keys".into(),
                };
                let what = format!("variable {name} overrides nothing");
                findings.error(self, "", what, why, remedy);
            } else if let Some(meant) = names.iter().find(|it| it.replace("__", "_") == *name) {
                self.near.push((name.into(), (*meant).into()));
            }
            return;
        };
        let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
        let Some(property) = schema::at(whole, path) else { return };
        self.variables.insert(path.clone(), name.into());
        let Some(parsed) = schema::parse(property, text) else {
            let what = format!("{name} is {text:?}, which is not {}", schema::kind(property));
            findings.error(self, path, what, "it cannot be read", "correct or unset the variable");
            return;
        };
        let Some(object) = object_at(value, section) else { return };
        // A secret and the file that holds it are one setting.
        match key.strip_suffix("_file") {
            Some(secret) => object.remove(secret),
            None => object.remove(&format!("{key}_file")),
        };
        object.insert(key.into(), parsed);
    }

    /// `url_file = "…"` becomes `url = (what the file holds)`, for every key that is secret.
    fn open_secrets(
        &mut self,
        schema: &Value,
        value: &mut Value,
        path: &str,
        folder: &Path,
        findings: &mut Findings,
    ) {
        let Some(object) = value.as_object_mut() else { return };
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let (path, file_key) = (join(path, key), format!("{key}_file"));
            if property["x-secret"] != true {
                match object.get_mut(key) {
                    Some(Value::Array(items)) => {
                        let ids: Vec<_> = items.iter().map(|it| it["id"].as_str()).collect();
                        let names = element_names(&path, &ids);
                        for (name, item) in names.iter().zip(items) {
                            self.open_secrets(&property["items"], item, name, folder, findings);
                        }
                    }
                    Some(inner) => self.open_secrets(property, inner, &path, folder, findings),
                    None => {}
                }
                continue;
            }
            let Some(Value::String(file)) = object.get(&file_key).cloned() else { continue };
            let file_path = format!("{path}_file");
            if object.contains_key(key) {
                let what = format!("{path} and {file_path} are both given");
                let why = "they are one setting";
                findings.error(self, &file_path, what, why, "keep one of the two");
                continue;
            }
            object.remove(&file_key);
            if let Some(place) = self.places.get(&file_path).copied() {
                self.places.insert(path.clone(), place);
            }
            if let Some(name) = self.variables.get(&file_path).cloned() {
                self.variables.insert(path.clone(), name);
            }
            match std::fs::read_to_string(folder.join(&file)) {
                Ok(text) => {
                    object.insert(key.clone(), text.trim().into());
                }
                Err(error) => {
                    let what = format!("{file} cannot be read");
                    let remedy = "check the path and its rights";
                    findings.error(self, &file_path, what, error.to_string(), remedy);
                }
            }
        }
    }

    pub(super) fn warn_about_near_variables(&self, findings: &mut Findings) {
        for (name, meant) in &self.near {
            let what = format!("variable {name} overrides nothing");
            let why = "two underscores stand between section and key";
            findings.warning(self, "", what, why, format!("did you mean {meant}?"));
        }
    }
}

/// Every variable that may be set, with the key that it sets.
fn variables(whole: &Value, value: &Value) -> Vec<(String, String)> {
    let mut list = Vec::new();
    add_variables(whole, value, "", PREFIX, &mut list);
    list
}

fn add_variables(
    schema: &Value,
    value: &Value,
    path: &str,
    variable: &str,
    list: &mut Vec<(String, String)>,
) {
    let upper = |it: &str| it.to_ascii_uppercase().replace('-', "_");
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let (path, name) = (join(path, key), format!("{variable}{}", upper(key)));
        if property["properties"].is_object() {
            add_variables(property, &value[key], &path, &format!("{name}__"), list);
        } else if property["items"]["properties"].is_object() {
            let items = value[key].as_array().map_or(&[][..], Vec::as_slice);
            let ids: Vec<_> = items.iter().map(|it| it["id"].as_str()).collect();
            for ((element, id), item) in element_names(&path, &ids).iter().zip(&ids).zip(items) {
                if let Some(id) = id {
                    let prefix = format!("{name}__{}__", upper(id));
                    add_variables(&property["items"], item, element, &prefix, list);
                }
            }
        } else {
            list.push((name, path));
        }
    }
}

/// The object at a path such as `server` or `channel.wechat`; sections are made as needed.
fn object_at<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut here = value;
    for key in path.split('.').filter(|it| !it.is_empty()) {
        here = match here {
            Value::Array(items) => items.iter_mut().find(|it| it["id"] == key)?,
            Value::Object(object) => object.entry(key).or_insert_with(|| Value::Object(Map::new())),
            _ => return None,
        };
    }
    here.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A secret may stand in the file, in a file of its own, or in the environment; once.
    #[test]
    fn a_secret_may_be_in_a_file_of_its_own() {
        let mut schema = json!({ "properties": { "store": { "properties": {
            "url": { "type": "string", "x-secret": true }
        } } } });
        schema::add_secret_files(&mut schema);
        assert!(schema::at(&schema, "store.url_file").is_some());
        let folder = std::env::temp_dir().join(format!("feiqian-secret-{}", seal::random_nonce()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("url"), "postgres://secret\n").unwrap();

        let check = |mut value: Value, variable: Option<(&str, &str)>| {
            let (mut origin, mut findings) = (Origin::default(), Findings::default());
            if let Some((name, text)) = variable {
                origin.override_with(&schema, &mut value, name, text, &mut findings);
            }
            origin.open_secrets(&schema, &mut value, "", &folder, &mut findings);
            (value["store"]["url"].as_str().map(ToOwned::to_owned), findings)
        };
        let file = || json!({ "store": { "url_file": "url" } });
        assert_eq!(check(file(), None).0.as_deref(), Some("postgres://secret"));
        let variable = Some(("FEIQIAN_STORE__URL_FILE", "url"));
        let inline = || json!({ "store": { "url": "x" } });
        assert_eq!(check(inline(), variable).0.as_deref(), Some("postgres://secret"));
        let variable = Some(("FEIQIAN_STORE__URL", "y"));
        assert_eq!(check(file(), variable).0.as_deref(), Some("y"));
        let (_, both) = check(json!({ "store": { "url": "x", "url_file": "url" } }), None);
        assert!(both.to_string().contains("both given"), "{both}");
        let mut list = json!({ "hook": [{ "url_file": "url" }, { "url": "y" }] });
        let one = schema["properties"]["store"].clone();
        let schema = json!({ "properties": { "hook": { "type": "array", "items": one } } });
        let mut findings = Findings::default();
        Origin::default().open_secrets(&schema, &mut list, "", &folder, &mut findings);
        assert_eq!(list, json!({ "hook": [{ "url": "postgres://secret" }, { "url": "y" }] }));
        let (_, absent) = check(json!({ "store": { "url_file": "nowhere" } }), None);
        assert!(absent.to_string().contains("cannot be read"), "{absent}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
