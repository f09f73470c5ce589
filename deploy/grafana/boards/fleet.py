board = Board("fleet", "Roomcast: fleet and objectives", "Objectives and what is left of them, builds, processes, rights, administration.")
row, panel = board.row, board.panel

# What an objective allows, as a share: the same numbers as in the rules.
LATE, FAILED = 0.001, 0.0005

row("Objectives")
panel("Late deliveries", "Share of turns that took longer than 250 ms from stored to written to the last member; 0.1 % is allowed over 30 days.",
      "RoomcastFreshnessBurn fires where two of these windows agree.",
      *(series(f"roomcast:gateway_fan_out_slow:ratio_rate{window}", window) for window in ("5m", "1h", "6h", "3d")), unit="percentunit")
panel("Failed events", "Share of valid events that could not be stored; 0.05 % is allowed over 30 days.",
      "RoomcastIngestErrorBurn fires where two of these windows agree.",
      *(series(f"roomcast:ingest_errors:ratio_rate{window}", window) for window in ("5m", "1h", "6h", "3d")), unit="percentunit")
panel("Left of 30 days", "What is left of what the objectives allow, over the last 30 days or as long as Prometheus remembers; hours in which nothing happened do not count. Below zero: broken.",
      "Below a quarter: no risky releases until it grows again.",
      series(f"1 - avg_over_time(roomcast:gateway_fan_out_slow:ratio_rate1h[30d]) / {LATE}", "freshness"),
      series(f"1 - avg_over_time(roomcast:ingest_errors:ratio_rate1h[30d]) / {FAILED}", "ingest"), unit="percentunit")
panel("Loss", "What must never happen: events that cannot be read, refused events that were not kept, numbers that miss events, gaps in the record of admin calls.",
      "Anything but zero has an alert of its own.",
      series("sum(increase(roomcast_gateway_spine_unreadable_total{*}[1h])) + sum(increase(roomcast_aggregator_unreadable_total{*}[1h]))", "unreadable"),
      series("sum(increase(roomcast_ingest_dead_letters_lost_total{*}[1h]))", "dead letters lost"),
      series("sum(increase(roomcast_aggregator_incomplete_total{*}[1h]))", "incomplete numbers"))
panel("Alerts that fire", "By name; deploy/runbooks has a page for each.",
      "Begin with the one that others name as their cause.",
      series('count by (alertname, severity) (ALERTS{alertname=~"Roomcast.+",alertstate="firing"}) or vector(0)', "{{alertname}} {{severity}}"))
panel("Fairness", "The fullest gateway against the mean, and the oldest message of any queue against a minute.",
      "Above 1.8: RoomcastGatewaySkew. Queues near 1: somebody waits while others are served.",
      series("max(roomcast_gateway_connections{*}) / avg(roomcast_gateway_connections{*} > 0)", "fullest gateway / mean"),
      series("max(roomcast_ingest_queue_oldest_seconds{*}) / 60", "oldest of a queue / minute"))

row("Processes")
panel("Up", "1 where Prometheus reaches the admin port.",
      "RoomcastTargetDown, or RoomcastServiceAbsent where nothing of a service is left.",
      series("sum by (job) (up{*})", "{{job}}"))
panel("Builds", "Instances by version and commit.",
      "Two for longer than a rollout: RoomcastVersionsDiffer.",
      series("count by (service, version, commit) (roomcast_build_info{*})", "{{service}} {{version}} {{commit}}"))
panel("Running for", "Time since the start.",
      "Falls to zero again and again: RoomcastCrashLooping.",
      series("time() - max by (job, instance) (process_start_time_seconds{*})", "{{job}} {{instance}}", "s"))
panel("CPU", "Cores used.",
      "Near what the node has: more replicas. A gateway's follows deliveries, an ingest's events.",
      series("sum by (job, instance) (rate(process_cpu_seconds_total{*}[$__rate_interval]))", "{{job}} {{instance}}"))
panel("Memory", "Resident memory.",
      "A gateway's is bounded by its settings. One that grows for days without more connections is a fault: report it.",
      series("sum by (job, instance) (process_resident_memory_bytes{*})", "{{job}} {{instance}}", "bytes"))
panel("File descriptors", "Share of those it may have; one for each connection.",
      "RoomcastFilesNearLimit.",
      series("max by (job, instance) (process_open_fds{*} / process_max_fds{*})", "{{job}} {{instance}}"), unit="percentunit")
panel("Steps of traces per second", "By outcome: exported; dropped, because too many waited for the collector; failed, because it did not take them.",
      "dropped: a publisher traces more than it should, or ROOMCAST_TRACES_SAMPLE is too large. failed: look at the collector. Nothing else suffers.",
      rate("roomcast_trace_spans_total", "service", "outcome"))
panel("Log lines left out per second", "Lines that were not logged because the same place in the code had logged 40 in 10 s.",
      "Something repeats: the log says how often, and which place.",
      rate("roomcast_log_lines_left_out_total", "service", "level"))

row("Rights")
panel("Hash of the policy", "48 bits of the hash of the policy in force: one line where all services agree.",
      "Two for longer than two minutes: RoomcastPolicyDiffers.",
      gauge("roomcast_policy_hash", "service", "instance", fold="max"))
panel("Policies looked at per second", "Changed policies, by outcome: taken, broken (mistakes; the one before stays), unreadable (no such file).",
      "broken: `roomcast check` says where.",
      rate("roomcast_policy_reloads_total", "service", "outcome"))
panel("Policy broken", "1: the newest policy has mistakes and the one before is in force.",
      "RoomcastPolicyBroken: somebody must mend it.",
      gauge("roomcast_policy_broken", "service", "instance", fold="max"))
panel("Policy from the bucket", "1: the policy comes from the cfg bucket, 0: from the file.",
      "Half and half: some services do not read the bucket.",
      gauge("roomcast_policy_from_cfg", "service", "instance", fold="max"))
panel("Changes of rights", "Changes of policy, grants and revocations since the start.",
      "Steps at the same time everywhere.",
      gauge("roomcast_rights_generation", "service", "instance", fold="max"))
panel("Grants and revocations", "Entries of the acl bucket in force, by kind.",
      "Grows for ever where nobody takes them back.",
      gauge("roomcast_acl_entries", "kind", fold="max"))
panel("Unreadable grants per second", "Entries of the acl bucket that say nothing because they cannot be read.",
      "Must be zero: written by hand, or by a newer version.",
      rate("roomcast_acl_unreadable_total", "service"))
panel("Rights unsure", "Time since NATS last said that no newer policy, grant or revocation exists. Beyond 2 s a gateway answers no resume, beyond 10 s it closes.",
      "RoomcastControlUnsure.",
      gauge("roomcast_control_unsure_seconds", "service", "instance", fold="max"))
panel("Fetches of issuers' keys", "By outcome. changed and same are good; the rest keeps the last good keys.",
      "Failing for hours: new keys of the issuer are not known, and its new tokens refused.",
      rate("roomcast_issuer_fetches_total", "service", "outcome"))

row("Administration and HTTP")
panel("Admin calls per second", "Calls of the admin API. denied: without an admin token.",
      "denied: somebody tries.",
      rate("roomcast_admin_calls_total", "service", "outcome"))
panel("Audit entries per second", "Entries of the audit record.",
      "dropped and failed must be zero, each is a hole: RoomcastAuditLost.",
      rate("roomcast_audit_entries_total", "service", "outcome"))
panel("HTTP connections", "Open HTTP connections.",
      "At an ingest: publishers that keep theirs. Rises without traffic: a client that never closes.",
      gauge("roomcast_http_connections", "service", "instance"))
panel("HTTP accepted per second", "HTTP connections accepted.",
      "As many as requests: a publisher connects anew for each event, which costs more than the event.",
      rate("roomcast_http_accepted_total", "service"))
panel("HTTP refused per second", "HTTP connections answered with 503 because the listener had its maximum.",
      "Add instances.",
      rate("roomcast_http_refused_total", "service"))
panel("HTTP errors per second", "HTTP connections that ended badly: accept, header_timeout, header_too_large, malformed, broken, cut.",
      "broken and cut are networks. The others in numbers: somebody tries.",
      rate("roomcast_http_errors_total", "listener", "reason"))
