//! Routes with their descriptions: what is served and what is documented is one list.
//!
//! Every HTTP route of a service is added here, method by method, each with its [`Operation`]; the router and the OpenAPI
//! document are both made from it, so neither has anything that the other has not.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};

use crate::openapi::Operation;

/// A method that a route answers to. Where `GET` is, `HEAD` is too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Does something.
    Post,
    /// Sets something.
    Put,
    /// Takes something away.
    Delete,
    /// What a browser asks before it sends a page's request elsewhere.
    Options,
}

impl Method {
    /// The name as OpenAPI writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Options => "options",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Delete => MethodFilter::DELETE,
            Self::Options => MethodFilter::OPTIONS,
        }
    }
}

/// One method of one path, described.
#[derive(Clone, Debug)]
pub struct Described {
    /// The path; parameters as `{name}`.
    pub path: &'static str,
    /// The method.
    pub method: Method,
    /// What it does.
    pub operation: Operation,
}

/// A router that knows what its routes do. `S` is the state that handlers ask for, as in axum.
#[derive(Clone, Debug)]
pub struct Routes<S = ()> {
    router: Router<S>,
    described: Vec<Described>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self {
            router: Router::new(),
            described: Vec::new(),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one method of a path.
    ///
    /// # Panics
    /// Where it is there already, as axum does: a mistake in the code that the first start shows.
    #[must_use]
    pub fn on<H, T>(mut self, method: Method, path: &'static str, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.route(path, on(method.filter(), handler));
        self.described(method, path, operation)
    }

    /// Adds `GET` (and so `HEAD`).
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(
        self,
        path: &'static str,
        operation: Operation,
        handler: H,
    ) -> Self {
        self.on(Method::Get, path, operation, handler)
    }

    /// Adds `POST`.
    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(
        self,
        path: &'static str,
        operation: Operation,
        handler: H,
    ) -> Self {
        self.on(Method::Post, path, operation, handler)
    }

    /// Adds `PUT`.
    #[must_use]
    pub fn put<H: Handler<T, S>, T: 'static>(
        self,
        path: &'static str,
        operation: Operation,
        handler: H,
    ) -> Self {
        self.on(Method::Put, path, operation, handler)
    }

    /// Adds `DELETE`.
    #[must_use]
    pub fn delete<H: Handler<T, S>, T: 'static>(
        self,
        path: &'static str,
        operation: Operation,
        handler: H,
    ) -> Self {
        self.on(Method::Delete, path, operation, handler)
    }

    /// Describes what something else than the router serves, such as the upgrade to a WebSocket.
    #[must_use]
    pub fn described(mut self, method: Method, path: &'static str, operation: Operation) -> Self {
        self.described.push(Described {
            path,
            method,
            operation,
        });
        self
    }

    /// Adds all routes of another.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.described.extend(other.described);
        self
    }

    /// Gives the handlers their state.
    #[must_use]
    pub fn with_state(self, state: S) -> Routes {
        Routes {
            router: self.router.with_state(state),
            described: self.described,
        }
    }

    /// What is described so far.
    #[must_use]
    pub fn descriptions(&self) -> &[Described] {
        &self.described
    }

    /// The router, for serving; take [`Routes::descriptions`] before.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}
