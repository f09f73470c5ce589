//! Which routes there are and which method each has.

use http::Method;

/// A route, as a path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Sse,
    Poll,
    Snapshot,
    History,
    State,
    Metrics,
    Series,
    Command,
    Presence,
    Publish,
    Activity,
    Feed,
    Marks,
    Preferences,
    Refresh,
    Ticket,
    Devices,
    Device,
    PageConfig,
    Page,
    /// A path below `/v1/` where nothing is.
    Nothing,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        match path.strip_prefix("/v1/") {
            Some("sse") => Self::Sse,
            Some("poll") => Self::Poll,
            Some("state") => Self::State,
            Some("presence") => Self::Presence,
            Some("publish") => Self::Publish,
            Some("activity") => Self::Activity,
            Some("feed") => Self::Feed,
            Some("marks") => Self::Marks,
            Some("preferences") => Self::Preferences,
            Some("refresh") => Self::Refresh,
            Some("tickets") => Self::Ticket,
            Some("devices") => Self::Devices,
            Some(rest) if rest.starts_with("devices/") => Self::Device,
            Some("metrics") => Self::Metrics,
            Some(rest) if rest.starts_with("metrics/") => Self::Series,
            Some(rest) if rest.starts_with("rooms/") && rest.ends_with("/snapshot") => Self::Snapshot,
            Some(rest) if rest.starts_with("rooms/") && rest.ends_with("/events") => Self::History,
            Some(rest) if rest.starts_with("commands/") => Self::Command,
            Some(_) => Self::Nothing,
            None if path == "/page.json" => Self::PageConfig,
            None => Self::Page,
        }
    }

    /// Whether it belongs to the API; else it is the page's, which only its own origin reads.
    pub(super) fn is_api(self) -> bool {
        !matches!(self, Self::Page | Self::PageConfig)
    }

    /// Whether a request with this method gets to the route.
    pub(super) fn answers(self, method: &Method) -> bool {
        match self {
            // Whatever the method, there is nothing.
            Self::Nothing => true,
            Self::Devices => [Method::GET, Method::HEAD, Method::POST].contains(method),
            Self::Device => *method == Method::DELETE,
            _ if self.is_post() => *method == Method::POST,
            _ => *method == Method::GET || *method == Method::HEAD,
        }
    }

    /// The method that does something, or those.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Devices => "GET, POST",
            Self::Device => "DELETE",
            _ if self.is_post() => "POST",
            _ => "GET",
        }
    }

    /// All methods, as `Allow` lists them.
    pub(super) fn allowed(self) -> &'static str {
        match self {
            Self::Devices => "GET, HEAD, POST, OPTIONS",
            Self::Device => "DELETE, OPTIONS",
            _ if self.is_post() => "POST, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    fn is_post(self) -> bool {
        matches!(
            self,
            Self::Command
                | Self::Publish
                | Self::Activity
                | Self::Marks
                | Self::Preferences
                | Self::Refresh
                | Self::Ticket
        )
    }

    /// The word in metric labels.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Poll => "poll",
            Self::Snapshot => "snapshot",
            Self::History => "history",
            Self::State => "state",
            Self::Metrics => "metrics",
            Self::Series => "series",
            Self::Command => "command",
            Self::Presence => "presence",
            Self::Publish => "publish",
            Self::Activity => "activity",
            Self::Feed => "feed",
            Self::Marks => "marks",
            Self::Preferences => "preferences",
            Self::Refresh => "refresh",
            Self::Ticket => "ticket",
            Self::Devices | Self::Device => "device",
            Self::PageConfig => "page_config",
            Self::Page => "page",
            Self::Nothing => "other",
        }
    }
}
