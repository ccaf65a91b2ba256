//! The files under `schemas/`: compiled schemas, samples, and the code's reading of the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jsonschema::{Registry, Validator};
use ledger_core::event::wire;
use ledger_core::request;
use serde_json::Value;

/// What producers send, before it is recorded.
pub const OFFERED: &str = "usage.offered.v1";
/// What the ledger publishes: these events never come in and are not in the journal.
pub const OUTPUTS: [&str; 1] = ["alert.fired.v1"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

pub fn text(path: &str) -> String {
    fs::read_to_string(folder().join(path)).unwrap_or_else(|error| panic!("schemas/{path}: {error}"))
}

pub struct Contract {
    pub schemas: BTreeMap<String, Value>,
    validators: BTreeMap<String, Validator>,
}

impl Contract {
    pub fn read() -> Contract {
        let mut schemas = BTreeMap::new();
        for file in fs::read_dir(folder()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if let Some(stem) = name.strip_suffix(".json") {
                schemas.insert(stem.to_owned(), serde_json::from_str(&text(&name)).expect(&name));
            }
        }
        let mut registry = Registry::new();
        for (name, schema) in schemas.clone() {
            assert!(jsonschema::meta::is_valid(&schema), "{name} is no schema of draft 2020-12");
            registry = registry.add(format!("ledger:/schemas/{name}.json"), schema).unwrap();
        }
        let registry = registry.prepare().unwrap();
        let build = |name: &String| {
            let schema = serde_json::json!({"$ref": format!("ledger:/schemas/{name}.json")});
            jsonschema::options().with_registry(&registry).offline().build(&schema).unwrap()
        };
        let validators = schemas.keys().map(|name| (name.clone(), build(name))).collect();
        Contract { schemas, validators }
    }

    pub fn has(&self, schema: &str) -> bool {
        self.validators.contains_key(schema)
    }

    pub fn fits(&self, schema: &str, event: &Value) -> bool {
        self.validators[schema].is_valid(event)
    }

    pub fn check_fits(&self, schema: &str, event: &Value) {
        let errors: Vec<String> = self.validators[schema]
            .iter_errors(event)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{schema}: {errors:?}\n{event}");
    }
}

pub struct Sample {
    /// Relative to `schemas/samples/`.
    pub path: String,
    /// Name of the schema: the sample's folder.
    pub schema: String,
    pub bytes: Vec<u8>,
}

impl Sample {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect(&self.path)
    }
}

/// Returns the samples of events that come in or are in the journal.
pub fn samples() -> Vec<Sample> {
    all_samples().into_iter().filter(|sample| !OUTPUTS.contains(&sample.schema.as_str())).collect()
}

pub fn all_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let root = folder().join("samples");
    for entry in fs::read_dir(&root).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let schema = entry.file_name().into_string().unwrap();
        for file in fs::read_dir(entry.path()).unwrap() {
            let file = file.unwrap();
            let path = format!("{schema}/{}", file.file_name().into_string().unwrap());
            samples.push(Sample { path, schema: schema.clone(), bytes: fs::read(file.path()).unwrap() });
        }
    }
    samples.sort_by(|a, b| a.path.cmp(&b.path));
    samples
}

/// Returns whether the code reads these bytes as an event of the type that the schema describes.
pub fn read_by_the_code(schema: &str, bytes: &[u8]) -> Result<(), String> {
    if schema == OFFERED {
        return request::read_offer(bytes).map(drop).map_err(|errors| format!("{errors:?}"));
    }
    let event = wire::decode(bytes).map_err(|error| error.to_string())?;
    let written_by = wire::schema_path(event.data.type_name());
    if written_by == format!("schemas/{schema}.json") { Ok(()) } else { Err(format!("is {written_by}")) }
}

/// Returns the paths (JSON pointers) of everything below the root.
pub fn leaves(json: &Value) -> Vec<String> {
    paths(json).into_iter().filter(|path| !path.is_empty()).collect()
}

/// Returns the paths of every object, the root too.
pub fn objects(json: &Value) -> Vec<String> {
    paths(json).into_iter().filter(|path| json.pointer(path).unwrap().is_object()).collect()
}

fn paths(json: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    let mut stack = vec![(String::new(), json)];
    while let Some((path, json)) = stack.pop() {
        match json {
            Value::Object(fields) => {
                stack.extend(fields.iter().map(|(key, value)| (format!("{path}/{key}"), value)))
            }
            Value::Array(items) => {
                stack.extend(items.iter().enumerate().map(|(n, value)| (format!("{path}/{n}"), value)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        paths.push(path);
    }
    paths
}

pub fn at<'a>(json: &'a mut Value, path: &str) -> &'a mut Value {
    json.pointer_mut(path).unwrap_or_else(|| panic!("no {path}"))
}

/// Puts a value at a path; its last field may be new.
pub fn put(json: &mut Value, path: &str, value: Value) {
    let (parent, field) = path.rsplit_once('/').unwrap();
    let fields = at(json, parent);
    if let Value::Array(items) = fields {
        items[field.parse::<usize>().unwrap()] = value;
    } else {
        fields[field] = value;
    }
}
