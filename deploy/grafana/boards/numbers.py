board = Board("numbers", "Roomcast: live numbers", "What the metrics aggregator reads, counts, keeps and says.")
row, panel = board.row, board.panel

row("Reading")
panel("Not read yet", "Stored events that match a shard's filters and are not yet read.",
      "RoomcastAggregatorLag: numbers on cards are late. Add aggregators, up to one a shard.",
      gauge("roomcast_aggregator_lag_events", "instance", "shard"))
panel("Filling", "Stored events that new and changed metrics of a shard have yet to read, while its others go on.",
      "After a change of metrics.yaml. It falls; where it does not, the shard restarts again and again.",
      gauge("roomcast_aggregator_filling_events", "instance", "shard"))
panel("Shards", "Shards each instance works.",
      "Sixteen in all. Fewer: nobody works the others; see restarts.",
      gauge("roomcast_aggregator_shards", "instance"))
panel("Restarts per second", "Shards read again from what is stored, by cause: store, reader, publish.",
      "A few when leaders change. More: the log names the shard and the cause.",
      rate("roomcast_aggregator_restarts_total", "cause"))
panel("Shards cast off per second", "Times a shard kept the shards that read the same rooms waiting for more than a second, and went on with a reader of its own.",
      "One while much is read again. All the time: a shard with far more to fold than the others; see their lag.",
      rate("roomcast_aggregator_cast_off_total", "instance"))
panel("Unreadable per second", "Stored messages that are no events; ingest writes none.",
      "Must be zero: somebody else writes to EVENTS. RoomcastEventsUnreadable.",
      rate("roomcast_aggregator_unreadable_total", "service"))

panel("Definitions", "Metrics that are defined.",
      "Changes with metrics.yaml. Instances that differ for long read different files.",
      gauge("roomcast_aggregator_definitions", "instance", fold="max"))
panel("Definitions looked at per second", "Times metrics.yaml was looked at because it changed, by outcome: taken, broken (mistakes in it, or unreadable).",
      "One for each instance after a change.",
      rate("roomcast_aggregator_definitions_reloads_total", "outcome"))
panel("Definitions broken", "1: the newest metrics.yaml has mistakes and the one before is in force.",
      "RoomcastMetricsBroken: somebody must mend it.",
      gauge("roomcast_aggregator_definitions_broken", "instance", fold="max"))

row("Counting")
panel("Folded per second", "Events folded into windows; one event counts once for each metric it belongs to.",
      "CPU follows it. Zero while events wait: RoomcastAggregatorStalled.",
      rate("roomcast_aggregator_folded_total", "instance"))
panel("Skipped per second", "Matching events that a metric did not fold, by reason.",
      "A field that is missing or of another type since a publisher's release.",
      rate("roomcast_aggregator_skipped_total", "reason"))
panel("Too old per second", "Matching events older than every window that is kept.",
      "A publisher whose clock is wrong, or one that sends what it kept for long.",
      rate("roomcast_aggregator_past_total", "service"))
panel("Incomplete per second", "Times a metric was found to miss events that the stream no longer held.",
      "RoomcastMetricsIncomplete: values say since when. Keep more in EVENTS.",
      rate("roomcast_aggregator_incomplete_total", "service"))
panel("Rooms untracked", "Rooms beyond the number whose watermarks are kept; none of their events is late.",
      "Many rooms at once. Harmless for numbers that do not depend on lateness.",
      gauge("roomcast_aggregator_rooms_untracked", "instance", "shard"))

row("Keeping and saying")
panel("State written", "Bytes of state written.",
      "Grows with groups: a group-by that has become too fine.",
      rate("roomcast_aggregator_flush_bytes_total", "service"))
panel("Time of a state write", "Time from the begin of a state write to its acknowledgement.",
      "NATS. Numbers go on; after a crash more is read again.",
      quantiles("roomcast_aggregator_flush_seconds"))
panel("State writes per second", "State writes that succeeded, and those refused because another instance had written; then the shard is read again.",
      "Conflicts without a rollout: two instances believe a shard is theirs.",
      rate("roomcast_aggregator_flushes_total", legend="succeeded"), rate("roomcast_aggregator_conflicts_total", legend="conflicts"))
panel("Published per second", "State values published and acknowledged.",
      "None while events are folded: see what is refused below and publish errors of NATS.",
      rate("roomcast_aggregator_published_total", "service"))
panel("Asked for groups per second", "Times gateways asked for one group of a metric, by outcome: windows, absent (no such metric in the room), behind (not current yet), unreadable.",
      "behind for long: the shard catches up, or is filled. unreadable: a gateway of another version.",
      rate("roomcast_aggregator_asked_total", "outcome"))
panel("Not published per second", "State values not published: stale (a newer one was stored by another instance), or refused because their room holds as many keys as it may.",
      "Refused: a group-by with too many groups for its room.",
      rate("roomcast_aggregator_stale_total", legend="stale"), rate("roomcast_aggregator_keys_refused_total", legend="room is full"))

row("Rules")
panel("Rules firing", "Groups of rules that fire at the moment.",
      "What the business wanted to know; all at once is a threshold that does not fit.",
      gauge("roomcast_aggregator_rules_firing", legend="firing"))
panel("Notifications of rules per second", "Notifications of rules handed to ingest, by outcome: stored, before (by another instance), again (not taken yet), refused.",
      "refused: the aggregator may not publish to that room; see the policy.",
      rate("roomcast_aggregator_notifications_total", "outcome"))
panel("Groups without a rule's room per second", "Looks at groups that a rule had no room to watch.",
      "More groups than a rule may watch: choose a coarser group.",
      rate("roomcast_aggregator_rule_groups_refused_total", "service"))
