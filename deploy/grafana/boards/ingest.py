board = Board("ingest", "Roomcast: ingest and NATS", "What comes in, what is refused, how fast NATS takes it.")
row, panel = board.row, board.panel

row("What comes in")
panel("Events per second", "Events by door and outcome: stored, duplicate, sent (ephemeral), refused.",
      "duplicate: a publisher repeats; see publishes sent again. refused: see the codes.",
      rate("roomcast_ingest_events_total", "door", "outcome"))
panel("Requests per second", "Requests that asked to publish, by door.",
      "As many requests as events: publishers could send batches, which cost a tenth.",
      rate("roomcast_ingest_requests_total", "door"))
panel("Time to store", "Time from the decision to the last acknowledgement of one request's events.",
      "RoomcastStoreSlow: NATS, its disks or its leader. See time to acknowledge.",
      quantiles("roomcast_ingest_store_seconds"))
panel("Refused per second", "Refusals of events and requests by code.",
      "unavailable, unknown, internal burn the objective: RoomcastIngestErrorBurn. Others are a publisher's mistakes.",
      rate("roomcast_ingest_refused_total", "code"))
panel("Unauthenticated per second", "HTTP requests without a valid token, by the check that failed.",
      "expired or signature: a publisher's token has to be renewed. Many others: somebody tries.",
      rate("roomcast_ingest_unauthenticated_total", "check"))
panel("Full, over quota, per second", "Requests refused because as much as may be was being worked on, and those over the share of a publisher or tenant.",
      "RoomcastIngestFull: add ingests, unless NATS is slow. Quota: one publisher sends more than it was given.",
      rate("roomcast_ingest_full_total", legend="full"), rate("roomcast_ingest_over_quota_total", "whose", "what"))
panel("In flight", "Requests being worked on.",
      "Rises when NATS gets slower, before anything is refused.",
      gauge("roomcast_ingest_in_flight", "instance"))
panel("Forged users per second", "Requests with Rc-User from an account other than the gateways'.",
      "Must be zero: RoomcastForgedUser.",
      rate("roomcast_ingest_forged_user_total", "service"))
panel("Unheard per second", "NATS requests without a reply subject, worked on with nobody to hear the answer.",
      "A publisher that publishes instead of asking: it never learns of a refusal. Tell its owner, or give it a queue.",
      rate("roomcast_ingest_unheard_total", "service"))

row("What was not taken")
panel("Dead letters per second", "Dead letters kept, by reason.",
      "RoomcastDeadLetters: a publisher's release. `roomcast replay` takes them again when it is mended.",
      rate("roomcast_ingest_dead_letters_total", "reason"))
panel("Dead letters lost per second", "Refused events that could not be kept as dead letters.",
      "Must be zero: RoomcastDeadLettersLost; look at the stream DLQ.",
      rate("roomcast_ingest_dead_letters_lost_total", "service"))
panel("Against schemas per second", "Events taken although they break their schema, because it only warns; and folders of schemas looked at because they changed, by outcome.",
      "Warnings: the publisher and its schema differ; mend one before the schema refuses.",
      rate("roomcast_ingest_schema_warnings_total", legend="warned of"), rate("roomcast_ingest_schemas_reloads_total", "outcome", legend="folder {{outcome}}"))
panel("Schemas in force", "Schemas that events are checked against, each version of a type counted.",
      "One line where all ingests agree; several for more than two minutes: one has another folder.",
      gauge("roomcast_ingest_schemas", "instance", fold="max"))
panel("Schemas broken", "1: the newest schemas have mistakes and those before are in force.",
      "RoomcastSchemasBroken: somebody must mend them.",
      gauge("roomcast_ingest_schemas_broken", "instance", fold="max"))

row("Queues and databases")
panel("Queues: waiting", "Messages that wait in queues (inq.), at the instance that drains them.",
      "More each minute: it cannot keep up, or something holds it up; see the pauses.",
      gauge("roomcast_ingest_queue_waiting", legend="messages"))
panel("Queues: oldest", "For how long the oldest message of any queue has waited.",
      "More than a few seconds: see the pauses, and whether an ingest drains at all.",
      gauge("roomcast_ingest_queue_oldest_seconds", fold="max", legend="oldest"))
panel("Queues: pauses per second", "Times a queue was left for a moment with messages in it: a stream takes nothing, its publisher or tenant has its share, or its publisher is not in the policy.",
      "The reason says what to do: NATS, the quota, or the policy.",
      rate("roomcast_ingest_queue_pauses_total", "reason"))
panel("Database: followed", "Which ingest follows the database whose changes are events (one does), and why following ended.",
      "RoomcastCaptureStopped: nobody follows.",
      gauge("roomcast_capture_following", "instance", fold="max"), series("sum by (reason) (increase(roomcast_capture_failures_total{*}[$__rate_interval]))", "ended: {{reason}}"))
panel("Database: log held", "What the database keeps of its log for the replication slot, and what of it is not confirmed as stored.",
      "RoomcastCaptureHoldsLog: the database's disk fills.",
      gauge("roomcast_capture_slot_held_bytes", fold="max", legend="held"), gauge("roomcast_capture_slot_unconfirmed_bytes", fold="max", legend="not confirmed"))
panel("Database: changes without an event", "Changes of rows that made no event, by reason.",
      "What the mapping leaves out is meant; the rest is a mapping that does not fit the table any more.",
      rate("roomcast_capture_left_out_total", "reason"))

row("Tenants and streams")
panel("Events of tenants per second", "What each tenant publishes; beyond the first 50 all others together.",
      "One that rises alone takes what the others need: ROOMCAST_TENANT_EVENTS_RATE bounds it.",
      rate("roomcast_ingest_tenant_events_total", "tenant"))
panel("Bytes of tenants per second", "The same in bytes, as they were sent.",
      "As above; this is what fills the streams.",
      rate("roomcast_ingest_tenant_bytes_total", "tenant"))
panel("Streams: full to", "What each stream holds, against what it may; messages where their number has a bound.",
      "Above 0.85: RoomcastStreamFull. EVENTS, DLQ and AUDIT at 1 before their age is up forget what is still wanted: see the next panel. STATE and the buckets near 1 refuse: larger streams, or less in them.",
      series("max by (stream) (roomcast_ingest_stream_bytes{*}) / max by (stream) (roomcast_ingest_stream_max_bytes{*})", "{{stream}}"),
      series("max by (stream) (roomcast_ingest_stream_messages{*}) / max by (stream) (roomcast_ingest_stream_max_messages{*})", "{{stream}}: messages"), unit="percentunit")
panel("Streams: kept for", "Age of each stream's oldest message: who was away for longer has missed some.",
      "EVENTS: falls below the longest time that clients, or an aggregator, may be away. The line 'at most' is what its age allows.",
      gauge("roomcast_ingest_stream_oldest_seconds", "stream", fold="max"),
      gauge("roomcast_ingest_stream_kept_max_seconds", "stream", fold="max", legend="{{stream}} at most"))
panel("Streams: full in", "Time until a stream is full, at the rate of the last hour.",
      "Less than a day, of a stream that refuses when it is full: make room now.",
      series("(max by (stream) (roomcast_ingest_stream_max_bytes{*}) - max by (stream) (roomcast_ingest_stream_bytes{*})) / clamp_min(max by (stream) (deriv(roomcast_ingest_stream_bytes{*}[1h])), 1)", "{{stream}}", "s"))

row("Out of the house")
panel("Sinks: attempts per second", "Attempts to send a notification, by sink (webhook, push) and what was answered.",
      "Anything but taken for long: the receiver, the way there, or the operator's file; RoomcastSinkLate says more.",
      rate("roomcast_ingest_sink_attempts_total", "sink", "answer"))
panel("Sinks: ended per second", "Notifications for one webhook or device that need no more attempt, by how that ended.",
      "dead: RoomcastUndelivered. muted, read, superseded and gone are as they should be.",
      rate("roomcast_ingest_sink_ended_total", "sink", "end"))
panel("Sinks: waiting", "Notifications that wait for a webhook or device, at the instance that sends.",
      "More each minute: a receiver takes nothing; 100,000 at most.",
      gauge("roomcast_ingest_sink_waiting", "sink"))
panel("Sinks: oldest", "For how long the oldest notification has waited for its webhook or device.",
      "More than ten minutes: RoomcastSinkLate.",
      gauge("roomcast_ingest_sink_oldest_seconds", fold="max", legend="oldest"))
panel("Sinks: hanging", "Webhooks, and push services by their hosts, that did not answer when they were last spoken to.",
      "They are tried with two attempts at a time and hold up nobody else; RoomcastSinkLate says more.",
      gauge("roomcast_ingest_sink_hanging", "sink"))
panel("Sinks: pauses per second", "Times sending stood still for a moment: NATS does not answer, as much waits as may, or nobody can say which rights are in force. busy: for receivers alone to which as many attempts are under way as may.",
      "The reason says what to do.",
      rate("roomcast_ingest_sink_pauses_total", "reason"))
panel("Sinks: users and revoked devices", "Users who have registered devices for pushes; devices taken out because their user or token was revoked.",
      "Nothing is to be done about either.",
      gauge("roomcast_ingest_sink_users", fold="max", legend="users"), rate("roomcast_ingest_sink_devices_revoked_total", legend="revoked per second"))

row("For gateways and administrators")
panel("Requests of gateways", "What gateways ask of ingest, by what and outcome. none: a request for no service, or from another account than theirs.",
      "none must be zero: somebody else asks, or gateways are newer than ingest.",
      rate("roomcast_ingest_service_requests_total", "asked", "outcome"))
panel("Requests of gateways in flight", "Being worked on.",
      "Rises with the time to answer: NATS.",
      gauge("roomcast_ingest_service_in_flight", "instance"))
panel("Requests of gateways, time", "Time from request to answer.",
      "A client waits that long for what it does.",
      quantiles("roomcast_ingest_service_seconds"))
panel("Changes of keys", "By bucket and outcome. raced: decided anew because another instance wrote. resolved: an answer was lost and the key itself told. unknown: nobody could tell.",
      "unknown: NATS. raced in numbers: two publishers write the same key.",
      rate("roomcast_ingest_key_value_total", "bucket", "outcome"))
panel("Changes of rights per second", "What administrators granted, revoked and took back, and connections they ended, by outcome.",
      "Unexpected ones: the audit record says who.",
      rate("roomcast_ingest_acl_changes_total", "what", "outcome"))

row("NATS, as the services see it")
panel("Connected", "1 while a NATS connection is up.",
      "RoomcastNatsDisconnected. All at once: NATS or the network. One: its node.",
      gauge("roomcast_nats_connected", "instance", "connection", fold="min"))
panel("Time to acknowledge", "Time from a JetStream publish to its acknowledgement.",
      "What disks and copies cost. Above 100 ms: RoomcastStoreSlow.",
      quantiles("roomcast_nats_ack_seconds"))
panel("Publishes in flight", "JetStream publishes that wait for their acknowledgement.",
      "Rises with the time to acknowledge.",
      gauge("roomcast_nats_publishes_in_flight", "instance"))
panel("Events of connections per second", "connected, disconnected, connect_failed, lame_duck, draining, closed, slow_consumer, server_error, client_error, refused.",
      "lame_duck: a node is being restarted. slow_consumer: a service does not read as fast as it is sent to. refused: permissions.",
      rate("roomcast_nats_events_total", "connection", "event"))
panel("Publish errors per second", "JetStream publishes without a good acknowledgement: timeout, no_responders, refused, malformed, client.",
      "timeout: slow or without a leader. no_responders: no leader, no stream, or no connection. refused: a limit of the stream or the account.",
      rate("roomcast_nats_publish_errors_total", "reason"))
panel("Batches, sent again, late, per second", "Atomic batches by outcome: stored, or apart (refused or unanswered, so sent one by one); publishes sent again with the same id; acknowledgements that came after their publisher had given up waiting.",
      "All three rise while leaders change; otherwise NATS is slow.",
      rate("roomcast_ingest_batches_total", "outcome", legend="batches {{outcome}}"), rate("roomcast_ingest_publish_retries_total", legend="sent again"), rate("roomcast_nats_late_acks_total", legend="late"))
panel("Acknowledged may be lost", "1 while NATS writes to disk later than it acknowledges: a power cut would lose acknowledged events.",
      "RoomcastMayLose: set sync_interval to always.",
      gauge("roomcast_ingest_may_lose", "instance", fold="max"))
panel("Writes hang", "1 from the moment a stream's writes are taken to hang until it stores something again.",
      "RoomcastWritesHang: a full disk, usually.",
      gauge("roomcast_ingest_writes_hang", "stream", fold="max"))
