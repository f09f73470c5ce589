//! The gates: each way of asking, over HTTP and over a socket.

/// A way of asking over HTTP. `N` stands for the name that is asked for, `C` for a cursor.
pub(super) struct Route {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) body: &'static str,
    pub(super) names: Names,
    pub(super) cursor: Cursor,
}

/// What a gate's name is the name of.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Names {
    Room,
    Command,
    Nothing,
}

/// What becomes of a cursor that cannot be used.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cursor {
    /// Said where the rooms begin.
    Follows,
    /// Refused.
    Refused,
    None,
}

const fn read(name: &'static str, path: &'static str, names: Names, cursor: Cursor) -> Route {
    Route {
        name,
        method: "GET",
        path,
        body: "",
        names,
        cursor,
    }
}

const fn post(
    name: &'static str,
    path: &'static str,
    body: &'static str,
    names: Names,
    cursor: Cursor,
) -> Route {
    Route {
        name,
        method: "POST",
        path,
        body,
        names,
        cursor,
    }
}

pub(super) const ROUTES: [Route; 19] = [
    read("stream", "/v1/sse?room=N&cursor=C", Names::Room, Cursor::Follows),
    read(
        "held poll",
        "/v1/poll?room=N&cursor=C&wait=25",
        Names::Room,
        Cursor::Follows,
    ),
    read(
        "poll",
        "/v1/poll?room=N&cursor=C&wait=0",
        Names::Room,
        Cursor::Follows,
    ),
    read("snapshot", "/v1/rooms/N/snapshot", Names::Room, Cursor::None),
    read(
        "history",
        "/v1/rooms/N/events?before=C",
        Names::Room,
        Cursor::Refused,
    ),
    read("state", "/v1/state?room=N", Names::Room, Cursor::None),
    read("metrics", "/v1/metrics?room=N", Names::Room, Cursor::None),
    read("series", "/v1/metrics/m?room=N", Names::Room, Cursor::None),
    read("presence", "/v1/presence?room=N", Names::Room, Cursor::None),
    read("feed", "/v1/feed?before=C", Names::Nothing, Cursor::Refused),
    post(
        "command",
        "/v1/commands/N",
        r#"{"key":"k"}"#,
        Names::Command,
        Cursor::None,
    ),
    post(
        "publish",
        "/v1/publish",
        r#"{"room":"N","type":"t","data":1}"#,
        Names::Room,
        Cursor::None,
    ),
    post(
        "activity",
        "/v1/activity",
        r#"{"kind":"page"}"#,
        Names::Nothing,
        Cursor::None,
    ),
    post(
        "marks",
        "/v1/marks",
        r#"{"upTo":"C","as":"seen"}"#,
        Names::Nothing,
        Cursor::Refused,
    ),
    post(
        "ticket",
        "/v1/tickets",
        r#"{"rooms":["N"]}"#,
        Names::Room,
        Cursor::None,
    ),
    post(
        "refresh",
        "/v1/refresh",
        r#"{"connection":"N"}"#,
        Names::Nothing,
        Cursor::None,
    ),
    read("devices", "/v1/devices", Names::Nothing, Cursor::None),
    post(
        "device",
        "/v1/devices",
        r#"{"subscription":{"endpoint":"https://push.example/N","keys":{"p256dh":"N","auth":"N"}}}"#,
        Names::Nothing,
        Cursor::None,
    ),
    Route {
        method: "DELETE",
        ..read("device's end", "/v1/devices/N", Names::Nothing, Cursor::None)
    },
];

/// The same over a socket: a request and its body.
pub(super) const REQUESTS: [(&str, &str, Names, Cursor); 8] = [
    (
        "subscribe",
        r#"{"room":"N","cursor":"C"}"#,
        Names::Room,
        Cursor::Follows,
    ),
    (
        "history",
        r#"{"room":"N","before":"C"}"#,
        Names::Room,
        Cursor::Refused,
    ),
    ("presence", r#"{"room":"N"}"#, Names::Room, Cursor::None),
    (
        "publish",
        r#"{"room":"N","type":"t","data":1}"#,
        Names::Room,
        Cursor::None,
    ),
    (
        "command",
        r#"{"name":"N","key":"k"}"#,
        Names::Command,
        Cursor::None,
    ),
    ("feed", r#"{"before":"C"}"#, Names::Nothing, Cursor::Refused),
    (
        "mark",
        r#"{"upTo":"C","as":"seen"}"#,
        Names::Nothing,
        Cursor::Refused,
    ),
    ("refresh", r#"{"token":"T"}"#, Names::Nothing, Cursor::None),
];
