//! Operations: what a handler reads and answers, said by the types in its signature.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::sse::Sse;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::auth::{Principal, Ticket};
use crate::http::{Path, Problem, Query};

/// Media type of most bodies.
pub(super) const JSON: &str = "application/json";
/// The answer to whatever is refused, of every operation.
const REFUSED: &str = "#/components/responses/Refused";

/// One operation while it is described.
#[derive(Debug)]
pub struct Operation<'a> {
    pub schemas: &'a mut Schemas,
    /// By place and name.
    parameters: Vec<Value>,
    body: Option<Value>,
    responses: Map<String, Value>,
    needs_key: bool,
}

/// An argument of a handler, which says what it reads of a request.
pub trait Reads {
    fn describe(operation: &mut Operation<'_>);
}

/// A return type of a handler, which says how it answers.
pub trait Answers {
    fn describe(operation: &mut Operation<'_>);
}

/// A handler whose arguments and return type are described.
pub trait Described<A> {
    fn describe(operation: &mut Operation<'_>);
}

macro_rules! described {
    ($($argument:ident)*) => {
        impl<F, Fut, Answer, $($argument),*> Described<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut,
            Fut: Future<Output = Answer>,
            Answer: Answers,
            $($argument: Reads,)*
        {
            fn describe(operation: &mut Operation<'_>) {
                $($argument::describe(operation);)*
                Answer::describe(operation);
            }
        }
    };
}

described!();
described!(A);
described!(A B);
described!(A B C);
described!(A B C D);
described!(A B C D E);
described!(A B C D E G);

impl<'a> Operation<'a> {
    /// Begins the description of an operation; its path names its variables.
    pub(super) fn of(path: &str, schemas: &'a mut Schemas) -> Self {
        let variables = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let variables = variables.map(|name| name.trim_start_matches('*'));
        let variable =
            |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        let parameters = variables.map(variable).collect();
        Operation { schemas, parameters, body: None, responses: Map::new(), needs_key: false }
    }

    /// Returns the operation without its words.
    pub(super) fn finish(mut self) -> Value {
        self.responses.insert("default".to_owned(), json!({"$ref": REFUSED}));
        let mut operation = json!({"responses": self.responses});
        if !self.parameters.is_empty() {
            operation["parameters"] = Value::Array(self.parameters);
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        if !self.needs_key {
            operation["security"] = json!([]);
        }
        operation
    }

    /// Says that callers need a key.
    pub fn needs_key(&mut self) {
        self.needs_key = true;
    }

    /// Gives a variable of the path the schema of a type.
    pub fn variable<T: JsonSchema>(&mut self, name: &str) {
        let schema = self.schemas.of_request::<T>();
        self.set_variable(name, &schema);
    }

    fn set_variable(&mut self, name: &str, schema: &Value) {
        let variable =
            self.parameters.iter_mut().find(|known| known["in"] == "path" && known["name"] == name);
        if let Some(variable) = variable {
            *variable = parameter("path", name, true, schema.clone());
        }
    }

    /// Gives the path's variables the schemas of the type that they are read into: a field each, or one after the other.
    fn variables<T: JsonSchema>(&mut self) {
        let schema = self.schemas.of_parameters::<T>();
        if let Some(fields) = schema["properties"].as_object() {
            for (name, field) in fields {
                self.set_variable(name, field);
            }
            return;
        }
        let names: Vec<Value> = self.parameters.iter().map(|variable| variable["name"].clone()).collect();
        let one = [self.schemas.of_request::<T>()];
        let places = schema["prefixItems"].as_array().map_or(one.as_slice(), Vec::as_slice);
        for (name, place) in names.iter().zip(places) {
            self.set_variable(name.as_str().unwrap_or_default(), place);
        }
    }

    /// Adds the fields of the type that the query is read into.
    pub fn query<T: JsonSchema>(&mut self) {
        for field in self.schemas.fields_of::<T>() {
            self.parameters.push(parameter("query", &field.name, field.is_required, field.schema));
        }
    }

    /// Adds a header that the operation reads.
    pub fn header<T: JsonSchema>(&mut self, name: &str, is_required: bool, description: &str) {
        let mut schema = self.schemas.of_request::<T>();
        schema["description"] = description.into();
        self.parameters.push(parameter("header", name, is_required, schema));
    }

    /// Adds a content type in which the body may come.
    pub fn takes(&mut self, media_type: &str, schema: Value) {
        let body = self.body.get_or_insert_with(|| json!({"required": true, "content": {}}));
        body["content"][media_type] = json!({"schema": schema});
    }

    /// Says that the body may be left out.
    pub fn body_is_optional(&mut self) {
        if let Some(body) = &mut self.body {
            body["required"] = false.into();
        }
    }

    /// Adds an answer.
    pub fn answers(&mut self, status: u16, description: &str, media_type: &str, schema: Value) {
        let content = json!({media_type: {"schema": schema}});
        let answer = json!({"description": description, "content": content});
        self.responses.insert(status.to_string(), answer);
    }

    /// Adds an answer that names another address.
    pub fn redirects(&mut self, description: &str) {
        let location = json!({"description": "The other address.", "schema": {"type": "string"}});
        let answer = json!({"description": description, "headers": {"Location": location}});
        self.responses.insert("307".to_owned(), answer);
    }

    /// Adds an answer in JSON.
    pub fn answers_json<T: JsonSchema>(&mut self, status: u16, description: &str) {
        let schema = self.schemas.of_answer::<T>();
        self.answers(status, description, JSON, schema);
    }

    /// Adds a header to all answers so far.
    pub fn answers_with<T: JsonSchema>(&mut self, header: &str, description: &str) {
        let schema = self.schemas.of_answer::<T>();
        for answer in self.responses.values_mut() {
            answer["headers"][header] = json!({"description": description, "schema": schema});
        }
    }

    /// Forgets the answers so far: another layer gives them another form.
    pub(super) fn answers_otherwise(&mut self) {
        self.responses.clear();
    }
}

fn parameter(place: &str, name: &str, is_required: bool, mut schema: Value) -> Value {
    let said = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    let mut parameter = json!({"name": name, "in": place, "required": is_required, "schema": schema});
    if let Some(said) = said {
        parameter["description"] = said;
    }
    parameter
}

impl<S> Reads for State<S> {
    fn describe(_: &mut Operation<'_>) {}
}

/// What a handler looks up in the headers, its own type says or its route.
impl Reads for HeaderMap {
    fn describe(_: &mut Operation<'_>) {}
}

/// A request whose body the route describes.
impl Reads for Request {
    fn describe(_: &mut Operation<'_>) {}
}

impl Reads for Principal {
    fn describe(operation: &mut Operation<'_>) {
        operation.needs_key();
    }
}

impl Reads for Ticket {
    fn describe(operation: &mut Operation<'_>) {
        operation.needs_key();
    }
}

impl<T: JsonSchema> Reads for Query<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.query::<T>();
    }
}

impl<T: JsonSchema> Reads for Path<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.variables::<T>();
    }
}

impl<T: Reads> Reads for Result<T, Problem> {
    fn describe(operation: &mut Operation<'_>) {
        T::describe(operation);
    }
}

/// Every operation answers with a problem whatever it refuses.
impl<T: Answers> Answers for Result<T, Problem> {
    fn describe(operation: &mut Operation<'_>) {
        T::describe(operation);
    }
}

impl<T: JsonSchema> Answers for Json<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_json::<T>(200, "Done.");
    }
}

impl<S> Answers for Sse<S> {
    fn describe(operation: &mut Operation<'_>) {
        let events = json!({"type": "string"});
        operation.answers(200, "Events, until either side ends the answer.", "text/event-stream", events);
    }
}
