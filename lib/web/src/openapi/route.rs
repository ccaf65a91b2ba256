//! Routes: a path, its handler, and how the document describes it.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{self, MethodRouter};
use serde_json::{Value, json};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use super::operation::{Answers, Described, Operation};
use super::schemas::Schemas;

/// One operation of an API.
pub struct Route<S> {
    pub path: &'static str,
    /// In lower case.
    pub method: &'static str,
    handler: MethodRouter<S>,
    describe: Vec<fn(&mut Operation<'_>)>,
    words: Words,
}

/// What types can't say of an operation.
#[derive(Debug, Default)]
struct Words {
    /// In verbNoun; unique.
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    /// Codes of problems that few operations have.
    problems: &'static [&'static str],
    tag: &'static str,
}

macro_rules! methods {
    ($($method:ident)*) => {$(
        /// Makes the route of a handler and its method.
        pub fn $method<S, H, T, A>(path: &'static str, handler: H) -> Route<S>
        where
            S: Clone + Send + Sync + 'static,
            H: Handler<T, S> + Described<A>,
            T: 'static,
        {
            let describe: fn(&mut Operation<'_>) = <H as Described<A>>::describe;
            let (handler, method) = (routing::$method(handler), stringify!($method));
            Route { path, method, handler, describe: vec![describe], words: Words::default() }
        }
    )*};
}

methods!(get post put patch delete);

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// Names the operation, in verbNoun, and says in a sentence what it does.
    pub fn named(mut self, id: &'static str, summary: &'static str) -> Self {
        (self.words.id, self.words.summary) = (id, summary);
        self
    }

    /// Says what a caller has to know besides.
    pub fn says(mut self, description: &'static str) -> Self {
        self.words.description = description;
        self
    }

    /// Names the codes of problems of this operation's own.
    pub fn refuses(mut self, problems: &'static [&'static str]) -> Self {
        self.words.problems = problems;
        self
    }

    /// Says to which part of the API the operation belongs.
    pub fn tagged(mut self, tag: &'static str) -> Self {
        self.words.tag = tag;
        self
    }

    /// Adds to the description what the handler's types don't say.
    pub fn with(mut self, describe: fn(&mut Operation<'_>)) -> Self {
        self.describe.push(describe);
        self
    }

    /// Changes each request before the handler sees it, so that it answers in another form.
    pub fn answering<A: Answers>(mut self, change: fn(Request) -> Request) -> Self {
        let change = move |request| std::future::ready(change(request));
        self.handler = self.handler.layer(middleware::map_request(change));
        self.describe.push(|operation| {
            operation.answers_otherwise();
            A::describe(operation);
        });
        self
    }

    /// Compresses answers by zstd or gzip for those who accept it, as they are made.
    pub fn compressed(mut self) -> Self {
        self.handler = self.handler.layer(CompressionLayer::new().quality(CompressionLevel::Fastest));
        self
    }

    /// Returns the operation as it stands in the document.
    pub(super) fn describe(&self, schemas: &mut Schemas) -> Value {
        let mut operation = Operation::of(self.path, schemas);
        for describe in &self.describe {
            describe(&mut operation);
        }
        let mut operation = operation.finish();
        let Words { id, summary, description, problems, tag } = self.words;
        operation["operationId"] = id.into();
        operation["summary"] = summary.into();
        operation["tags"] = json!([tag]);
        let codes = problems.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        let codes = if codes.is_empty() { codes } else { format!("Its own problems: {codes}.") };
        let said: Vec<&str> = [description, &codes].into_iter().filter(|said| !said.is_empty()).collect();
        if !said.is_empty() {
            operation["description"] = said.join("\n\n").into();
        }
        operation
    }
}

/// Builds the router of all routes.
pub fn router<S: Clone + Send + Sync + 'static>(routes: Vec<Route<S>>) -> Router<S> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler))
}
