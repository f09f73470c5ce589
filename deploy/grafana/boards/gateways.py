board = Board("gateways", "Roomcast: gateways", "Connections, what they are sent, and how the gateways hear of it.")
row, panel = board.row, board.panel

row("Connections")
panel("Connections", "Open WebSockets and streams of server-sent events, by gateway.",
      "One far above the others is the first to turn clients away: RoomcastGatewaySkew. Near 70 % of ROOMCAST_CONNECTIONS_MAX: add gateways.",
      gauge("roomcast_gateway_connections", "instance"))
panel("Streams and held polls", "Connections that are streams of server-sent events, and polls held until there is something new.",
      "A rise means that WebSockets do not get through: look at what stands between browsers and gateways.",
      gauge("roomcast_gateway_streams", "instance", legend="{{instance}} streams"), gauge("roomcast_gateway_polls_held", "instance", legend="{{instance}} polls"))
panel("Connected per second", "Connections that were authenticated and answered.",
      "Five times the usual is a storm: RoomcastReconnectStorm. Look at why they were closed.",
      rate("roomcast_gateway_connected_total", "service"))
panel("Closed per second", "Connections that ended, by reason: those of the close codes, client, gone.",
      "drain: a rollout. too_slow: RoomcastSlowClients. no_pong: a network or a balancer lets go. resync: a gateway lost its way to NATS.",
      rate("roomcast_gateway_closes_total", "reason"))
panel("Handshake", "Time from accept to `connected`.",
      "Rises with CPU in a storm. Without one: the gateway is short of CPU, or keys of a new issuer are fetched.",
      quantiles("roomcast_gateway_handshake_seconds"))
panel("Upgrades per second", "Requests for a WebSocket by outcome: switched, or the refusal's code.",
      "Many refused: a page that asks in a wrong way, or an origin that is not in ROOMCAST_ALLOWED_ORIGINS.",
      rate("roomcast_gateway_upgrades_total", "outcome"))
panel("Tokens per second", "Tokens shown, by outcome: accepted, or the check that failed.",
      "expired: a page does not renew. signature or unknown key: keys were changed in one place only. RoomcastTokensRefused.",
      rate("roomcast_gateway_tokens_total", "outcome"))
panel("Turned away per second", "New connections that were not taken, by the limit: connections, strangers, rate, address, address_rate.",
      "connections: add gateways. address: many behind one address, or an attack. RoomcastClientsTurnedAway.",
      rate("roomcast_gateway_turned_away_total", "limit"))
panel("Refused by rate", "Messages and requests refused because their user did too many of the kind, by operation.",
      "A page in a loop, or honest use: then raise ROOMCAST_OPERATION_RATES.",
      rate("roomcast_gateway_rate_limited_total", "operation"))
panel("Limits met", "Times somebody met a limit that is counted nowhere else. services/edge-gateway/README.md says which setting each is and what the client is told.",
      "Few are normal. Many of one kind: a page that does too much, or a limit that is too low for it.",
      rate("roomcast_gateway_limited_total", "limit"))
panel("Rooms asked for per second", "Subscriptions by outcome: complete, incomplete, fresh, forbidden, unavailable.",
      "incomplete: clients were away longer than is kept. forbidden: a page asks for what its user may not see. unavailable: NATS.",
      rate("roomcast_gateway_subscriptions_total", "outcome"))
panel("HTTP per second", "HTTP answers by route and class of status.",
      "5xx: look at the log of the gateway. 4xx of one route: a page that was released lately.",
      rate("roomcast_gateway_http_total", "route", "class"))

row("Throughput and freshness")
panel("Freshness", "Time from stored to written to the last member in a shard; one sample per turn with events. The objective: 99.9 % within 250 ms.",
      "RoomcastFreshnessBurn. One gateway: its CPU. All: NATS.",
      quantiles("roomcast_gateway_fan_out_seconds", "class", of=(0.5, 0.99, 0.999)))
panel("Deliveries per second", "Live events handed to members, one per member.",
      "Events times members. A jump without more events is a room that has become full, and the reverse a publisher that went wild.",
      rate("roomcast_gateway_deliveries_total", "instance"))
panel("Flushes per second", "Times a room's events were written to its members: at once in a quiet room, gathered in a busy one.",
      "Deliveries per flush and member are what gathering saves.",
      rate("roomcast_gateway_flushes_total", "kind"))
panel("Dropped per second", "Deliveries not made, by reason: ephemeral (outbox full), conflated (a newer value of the key left in its place), unreadable (cannot be redacted), inbox (shard too far behind; its clients are told to come back).",
      "conflated is as it should be for slow clients. unreadable and inbox must be zero: more CPU for the gateway.",
      rate("roomcast_gateway_dropped_total", "reason"))
panel("Outbox full per second", "Clients closed because their outbox was full, by the class of the message that did not fit. They come back complete.",
      "Few are bad networks. Many: a room is too busy for its readers; RoomcastSlowClients.",
      rate("roomcast_gateway_outbox_full_total", "class"))
panel("Waiting for clients", "Bytes that wait in all outboxes, by gateway; what several wait for is counted for each.",
      "At ROOMCAST_OUTBOXES_BYTES_MAX those for whom most waits are told to come back: RoomcastOutboxesFull.",
      gauge("roomcast_gateway_outbox_bytes", "instance"))
panel("Ephemeral per second", "Ephemeral events handed out.",
      "Typing, cursors. A rise costs what any other event does.",
      rate("roomcast_gateway_ephemeral_total", "service"))
panel("Bytes out", "Bytes written to clients.",
      "What the network of a node must carry. Larger events show here first.",
      rate("roomcast_gateway_bytes_out_total", "instance"))
panel("Bytes in", "Bytes read from clients.",
      "Without more messages: clients publish larger ones.",
      rate("roomcast_gateway_bytes_in_total", "instance"))
panel("Frames per second", "Frames handed to clients, and messages and control frames from them.",
      "In without out: clients talk; see Refused by rate.",
      rate("roomcast_gateway_frames_out_total", legend="out"), rate("roomcast_gateway_frames_in_total", legend="in"))

row("What clients ask for")
panel("Commands, publishes, activity", "What clients ask of others, by outcome: done, or the refusal's code.",
      "unavailable: no backend listens. forbidden: the policy. What is asked of ingest fails with it.",
      rate("roomcast_gateway_asks_total", "what", "outcome"))
panel("Under way", "Commands and publishes that wait for their answer. A backend that answers late counts until it has, at most 30 s.",
      "A rise is a backend that is slow or gone.",
      gauge("roomcast_gateway_asks_in_flight", "instance"))
panel("Tokens for other gateways", "Newer tokens for streams that another gateway has: asked, answered, heard, done, unreadable.",
      "asked without answered: streams that are nowhere any more, or gateways that do not hear each other.",
      rate("roomcast_gateway_passed_total", "what"))
panel("Time to answer", "From the client's message to its answer.",
      "p99 near 30 s: a backend does not answer at all.",
      quantiles("roomcast_gateway_ask_seconds"))
panel("Presence between gateways", "Messages sent and heard per second. cut: users not shown because a room, a gateway or the number of gateways is at its bound.",
      "unreadable must be zero: gateways of different versions. cut: very full rooms show fewer than there are.",
      rate("roomcast_gateway_presence_total", "what"))
panel("Gateways heard of", "Other gateways whose presence is known: one less than there are, for 14 s more after one has died.",
      "Fewer: gateways do not hear each other; look at their permissions in NATS.",
      gauge("roomcast_gateway_presence_gateways", "instance"))

row("Coming back")
panel("Recoveries per second", "Subscriptions opened, by recovery.",
      "incomplete means a client reads everything anew: raise ROOMCAST_RING_BYTES, or what the stream keeps.",
      rate("roomcast_gateway_recoveries_total", "recovery"))
panel("Recoveries waiting", "Subscriptions and requests that wait for a read, and rooms in line for the stream.",
      "A storm, or NATS answers slowly; see reads of the stream.",
      gauge("roomcast_gateway_recoveries_waiting", "instance"), gauge("roomcast_gateway_stream_reads_waiting", legend="rooms in line for the stream"))
panel("How far behind", "How far behind the head a returning client's cursor was, in positions of the stream.",
      "More than the ring holds is read from the stream, which is slower.",
      quantiles("roomcast_gateway_replay_depth_positions"))
panel("Missed events", "Missed events given to one returning client.",
      "Long absences, or busier rooms. Hundreds make a storm expensive.",
      quantiles("roomcast_gateway_replayed_events"))
panel("May be away for", "How long a client may be away and still come back from memory.",
      "Below a minute: RoomcastResumeShort; raise ROOMCAST_RING_BYTES.",
      gauge("roomcast_gateway_resume_seconds", "instance", fold="max"))
panel("Reads of the stream per second", "Reads of a room's state or older events, by outcome.",
      "Failed ones are NATS. Many of state: rooms fall out of memory and come back; see rooms dropped.",
      rate("roomcast_gateway_stream_reads_total", "kind", "outcome"))
panel("Recoveries beyond memory per second", "Recoveries that took events from before those in memory; one read of the stream serves all of a room.",
      "Raise ROOMCAST_RING_BYTES when they do not end. As many reads of events: those who come back share nothing.",
      rate("roomcast_gateway_recoveries_deep_total", "instance"))
panel("Older events kept, bytes", "Bytes of older events that were read from the stream just now, kept for those who want the same; 64 MiB at most.",
      "There for ten seconds after a read, and while it is shared.",
      gauge("roomcast_gateway_stream_read_bytes", "instance"))

row("Memory")
panel("Recent events, bytes", "Bytes of recent events in memory; at most ROOMCAST_RING_BYTES.",
      "At its bound it stays there: that is what it is for.",
      gauge("roomcast_gateway_ring_bytes", "instance"))
panel("Recent events", "Recent events in memory.",
      "Fewer at the same bytes: larger events, and a shorter time that clients may be away.",
      gauge("roomcast_gateway_ring_events", "instance"))
panel("Recent events pushed out per second", "Events pushed out of memory by newer ones.",
      "As many as come in, once memory is full.",
      rate("roomcast_gateway_ring_evicted_total", "service"))
panel("State, bytes", "Bytes of state values in memory.",
      "At ROOMCAST_STATE_BYTES, unused rooms give way. Raise it with the limit of the pod.",
      gauge("roomcast_gateway_state_bytes", "instance"))
panel("State, rooms and values", "Rooms whose state is in memory, and their values: keys, counted per audience.",
      "Values without rooms: keys that are never deleted. Ask who makes them.",
      gauge("roomcast_gateway_state_rooms", legend="rooms"), gauge("roomcast_gateway_state_values", legend="values"))
panel("State dropped per second", "Rooms dropped because they were unused (room), values refused because their room holds too many (value).",
      "value: a room has more keys than it may; its publisher has to delete some.",
      rate("roomcast_gateway_state_dropped_total", "what"))

row("Bells")
panel("Users counted", "Users whose unread notifications are counted here, once for each set of rooms; notifications held for it, 32 bytes each.",
      "Grows with users that have a bell open; falls half a minute after they are gone.",
      gauge("roomcast_gateway_bell_viewers", legend="users"), gauge("roomcast_gateway_bell_notifications", legend="notifications"))
panel("Counters told per second", "Counters said to connections and held requests.",
      "Every notification in a room that opens by itself is one for each tab there.",
      rate("roomcast_gateway_bell_told_total", "to"))
panel("Bells read per second", "Rooms and users' records read for counting: read, failed; lost: messages were lost, and all is read again.",
      "failed: ingest or NATS does not answer, and bells wait. lost: NATS changed its leaders, or the gateway is too slow.",
      rate("roomcast_gateway_bell_reads_total", "what", "outcome"))

row("The way from NATS")
panel("Stale", "1 while NATS has not answered for more than 5 s.",
      "RoomcastGatewayStale. Clients are told, and read what is known.",
      gauge("roomcast_gateway_stale", "instance", fold="max"))
panel("Position", "Position up to which each stream has been handed out.",
      "One gateway that stays behind the others does not get what they get: restart it.",
      gauge("roomcast_gateway_spine_position", "instance", "stream", fold="max"))
panel("Delivered per second", "Messages of the streams handed out in order, each once.",
      "The same at each gateway: each reads everything.",
      rate("roomcast_gateway_spine_delivered_total", "instance"))
panel("Repaired per second", "Messages that were missed live and read from the stream, warm-up included, and reads to fill a hole, by who was asked.",
      "Without a change of leaders: the gateway is too slow to read, or its connection is cut.",
      rate("roomcast_gateway_spine_repaired_total", legend="messages"), rate("roomcast_gateway_spine_repairs_total", "stream", "asked"))
panel("Resets per second", "Streams that could not be continued, by cause; every client comes back with an incomplete recovery.",
      "Must be zero unless a stream was made anew or restored.",
      rate("roomcast_gateway_spine_resets_total", "stream", "cause"))
panel("Unanswered and unreadable per second", "Calls that NATS did not answer in time; messages whose subject or headers are not those of an event, which are not delivered.",
      "Unanswered: NATS. Unreadable: RoomcastEventsUnreadable.",
      rate("roomcast_gateway_spine_unanswered_total", legend="unanswered"), rate("roomcast_gateway_spine_unreadable_total", legend="unreadable"))
panel("Duplicates, probes, skipped per second", "Messages that came again and were dropped; questions after the last message because it was silent; positions that hold nothing any more.",
      "All are harmless. Many probes: little traffic.",
      rate("roomcast_gateway_spine_duplicates_total", legend="duplicates"), rate("roomcast_gateway_spine_probes_total", legend="probes"), rate("roomcast_gateway_spine_skipped_total", legend="skipped"))

row("Rights while connected")
panel("Decided again per second", "Clients decided about again because rights changed, by outcome.",
      "A change of the policy decides about all. Without one: grants and revocations follow each other.",
      rate("roomcast_gateway_decided_again_total", "outcome"))
panel("Deciding again", "Time in which a shard decided about all its clients again.",
      "Above 2 s rights come late: fewer clients per gateway.",
      quantiles("roomcast_gateway_decided_again_seconds", of=(0.99,)))
panel("Control messages per second", "What ingest said to all gateways: kick.",
      "unknown must be zero: gateways older than ingest.",
      rate("roomcast_gateway_control_total", "what"))
