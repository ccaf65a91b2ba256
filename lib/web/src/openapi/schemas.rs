//! Schemas: the named schemas of one document, collected while its operations are described.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::tidy::{Direction, tidy};

/// Where references lead.
const DEFINITIONS: &str = "/components/schemas";

/// Types as they are read and as they are written: a field may be optional in requests and always stand in answers.
#[derive(Debug)]
pub struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

/// A field of an object, as a parameter of its own.
#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub schema: Value,
    pub is_required: bool,
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = DEFINITIONS.into();
                settings.meta_schema = None;
            })
        };
        Schemas {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    /// Returns the schema of a type that requests carry: a reference, if it has a name.
    pub fn of_request<T: JsonSchema>(&mut self) -> Value {
        tidied(self.requests.subschema_for::<T>(), Direction::Request)
    }

    /// Returns the schema of a type that answers carry: a reference, if it has a name.
    pub fn of_answer<T: JsonSchema>(&mut self) -> Value {
        tidied(self.answers.subschema_for::<T>(), Direction::Answer)
    }

    /// Returns the schema of a type that parameters are read into, by itself.
    pub(super) fn of_parameters<T: JsonSchema>(&mut self) -> Value {
        tidied(T::json_schema(&mut self.requests), Direction::Request)
    }

    /// Returns the fields of a type that a query is read into.
    pub(super) fn fields_of<T: JsonSchema>(&mut self) -> Vec<Field> {
        let mut schema = self.of_parameters::<T>();
        let is_required = |name: &str, schema: &Value| {
            let required = schema["required"].as_array();
            required.is_some_and(|names| names.iter().any(|required| required == name))
        };
        let Value::Object(properties) = schema["properties"].take() else { return Vec::new() };
        let field = |(name, field): (String, Value)| {
            let is_required = is_required(&name, &schema);
            Field { name, schema: field, is_required }
        };
        properties.into_iter().map(field).collect()
    }

    /// Returns all named schemas.
    ///
    /// Panics if one name means one thing in requests and another in answers: the two types need names of their own.
    pub(super) fn into_components(mut self) -> Map<String, Value> {
        let mut named = self.answers.take_definitions(false);
        named.values_mut().for_each(|schema| tidy(schema, Direction::Answer));
        for (name, mut schema) in self.requests.take_definitions(false) {
            tidy(&mut schema, Direction::Request);
            let other = named.insert(name.clone(), schema.clone());
            assert!(
                other.is_none_or(|other| other == schema),
                "{name} is read otherwise than it is written: {schema:#}"
            );
        }
        named
    }
}

fn tidied(schema: Schema, direction: Direction) -> Value {
    let mut schema = schema.to_value();
    tidy(&mut schema, direction);
    schema
}
