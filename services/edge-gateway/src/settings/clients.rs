//! What one client may send, and what may wait for it.

use roomcast_chassis::config::Reader;
use roomcast_issuers::Tenancy;
use roomcast_proto::limits;

use crate::bucket::Rate;
use crate::{beat, outbox, session, shard, ws};

pub(super) fn read(reader: &mut Reader<'_>, tenancy: Tenancy) -> shard::Limits {
    let beat = beat::Pace {
        every: reader.seconds(
            "ROOMCAST_PING_SECONDS",
            limits::PING_EVERY.as_secs(),
            1..=300,
            "Seconds between two pings of a client; less than what proxies in between wait for a word.",
        ),
        within: reader.seconds(
            "ROOMCAST_PONG_SECONDS",
            limits::PONG_WITHIN.as_secs(),
            1..=60,
            "Seconds in which a client must answer a ping (else 4004).",
        ),
    };
    // Twice that fits into the least burst of bytes, and NATS takes it with what we add.
    let message_bytes_max = reader.number(
        "ROOMCAST_MESSAGE_BYTES_MAX",
        limits::CLIENT_MESSAGE_BYTES_MAX,
        (16 << 10)..=(64 << 10),
        "Bytes of one message of a client (else 1009), and of a request's body (else 413); clients are told.",
    );
    shard::Limits {
        ws: ws::Limits {
            message_bytes_max,
            fragments_max: reader.number(
                "ROOMCAST_FRAGMENTS_MAX",
                1_024,
                1..=65_536,
                "Frames in which one message of a client may come (else 1009).",
            ),
        },
        authenticate_within: reader.seconds(
            "ROOMCAST_AUTHENTICATE_SECONDS",
            limits::AUTHENTICATE_WITHIN.as_secs(),
            1..=60,
            "Seconds in which a connection must have shown a token (else 4500).",
        ),
        answer_bytes_max: reader.number(
            "ROOMCAST_ANSWER_BYTES_MAX",
            256 << 10,
            (128 << 10)..=(256 << 10),
            "Bytes of events in a page of history or of notifications, or in a snapshot; what would be longer holds fewer.",
        ),
        comment_every: reader.seconds(
            "ROOMCAST_COMMENT_SECONDS",
            limits::COMMENT_EVERY.as_secs(),
            1..=60,
            "Seconds after which a stream that has nothing to say says a comment; less than what proxies in between wait for a word.",
        ),
        outbox: outbox::Limits {
            bytes_max: reader.number(
                "ROOMCAST_OUTBOX_BYTES_MAX",
                1 << 20,
                (256 << 10)..=(64 << 20),
                "Bytes that may wait for one client; then it is told to come back (4002).",
            ),
            frames_max: reader.number(
                "ROOMCAST_OUTBOX_FRAMES_MAX",
                1_024,
                16..=65_536,
                "Messages that may wait for one client; then it is told to come back (4002).",
            ),
        },
        session: session::Limits {
            cursors: tenancy.cursors,
            ping_every: beat.every,
            message_bytes_max,
            // A page that is clicked through is below it.
            activity: Rate {
                per_second: reader.number(
                    "ROOMCAST_ACTIVITY_RATE",
                    1,
                    1..=10_000,
                    "Activities a second of one client; what is more is dropped.",
                ),
                burst: reader.number(
                    "ROOMCAST_ACTIVITY_BURST",
                    5,
                    1..=10_000,
                    "Activities at once of one client.",
                ),
            },
            rooms_max: reader.number(
                "ROOMCAST_ROOMS_PER_REQUEST_MAX",
                limits::CONNECT_ROOMS_MAX,
                1..=512,
                "Rooms that a `connect`, a stream or a poll may name (else `limit`).",
            ),
            subscriptions_max: reader.number(
                "ROOMCAST_SUBSCRIPTIONS_MAX",
                limits::SUBSCRIPTIONS_MAX,
                1..=512,
                "Rooms that one connection may ask for; rooms joined by the policy do not count.",
            ),
            requests: Rate {
                per_second: reader.number(
                    "ROOMCAST_REQUEST_RATE",
                    20,
                    1..=10_000,
                    "Messages a second of one client.",
                ),
                burst: reader.number(
                    "ROOMCAST_REQUEST_BURST",
                    60,
                    1..=10_000,
                    "Messages at once of one client.",
                ),
            },
        },
        ingress: Rate {
            per_second: reader.number(
                "ROOMCAST_INGRESS_BYTES_RATE",
                32 << 10,
                1_024..=(64 << 20),
                "Bytes a second that one connection may send: more ends a WebSocket or a stream (4006); requests are read more slowly. Raise \
                 it behind a proxy that sends many users' requests over one connection.",
            ),
            burst: reader.number(
                "ROOMCAST_INGRESS_BYTES_BURST",
                256 << 10,
                (128 << 10)..=(256 << 20),
                "Bytes that one connection may send at once; at least two of the longest messages.",
            ),
        },
        beat,
        write_timeout: reader.seconds(
            "ROOMCAST_WRITE_SECONDS",
            5,
            1..=300,
            "Seconds in which a client must take some of what waits for it (else 4002; a connection of requests is cut).",
        ),
        quiet_every: reader.seconds(
            "ROOMCAST_QUIET_SECONDS",
            limits::QUIET_CAUGHT_UP_EVERY.as_secs(),
            1..=600,
            "Seconds after which the members of a quiet room are told a newer cursor, so that none grows too old.",
        ),
        page_events: reader.number(
            "ROOMCAST_RECOVERY_PAGE_EVENTS",
            300,
            1..=10_000,
            "Missed events sent to a returning client before it must have taken them.",
        ),
        flush_window: reader.milliseconds(
            "ROOMCAST_FLUSH_MILLIS",
            20,
            1..=1_000,
            "Milliseconds that the events of a busy room wait for each other, to leave in one write; in a quiet room \
             nothing waits. 1: hardly ever.",
        ),
    }
}
