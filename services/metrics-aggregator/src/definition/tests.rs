use super::*;

const HEAD: &str = "version: 1\ntimezone: Europe/Istanbul\nmetrics:\n";
const GOOD: &str = r#"version: 1
timezone: Europe/Istanbul
metrics:
  - name: revenue
    from: { room: bookings, type: "booking:confirmed" }
    where: data.currency == "TRY"
    value: sum(data.amount)
    group_by: [data.category]
    window: { sliding: 24h, step: 1m }
    compare: previous
    stalled_after: 5m
    publish: { room: os_dashboard, audience: admin, at_most_every: 250ms }
  - name: confirmed
    from: { room: bookings, type: "booking:confirmed" }
    value: count()
    window: { tumbling: day }
  - name: bookings
    from: { room: bookings.*, type: ["booking:new", "x"] }
    value: count()
    window: { tumbling: day }
    compare: previous
  - { name: conversion, ratio: { of: confirmed, to: bookings, scale: 4 }, compare: previous, publish: { room: os_dashboard, audience: staff } }
rules: []
"#;

fn policy() -> Policy {
    let text = "version: 1\nroles:\n  staff: { permissions: [a.b] }\n  admin: { inherits: [staff] }\nrooms:\n  - { room: bookings, subscribe: a.b }\n";
    Policy::parse(text, "policy.yaml").unwrap()
}

#[test]
fn a_good_file_is_understood() {
    let file = Definitions::parse(GOOD, "metrics.yaml", Some(&policy())).unwrap();
    let [revenue, confirmed, bookings, conversion] = &file.metrics[..] else {
        panic!()
    };
    assert_eq!(
        revenue.window,
        Window::Sliding {
            size: 86_400_000_000,
            step: 60_000_000
        }
    );
    assert_eq!(revenue.legs[0].aggregate, Aggregate::Sum(1));
    assert_eq!(revenue.legs[0].group_by, [2]);
    assert_eq!(revenue.publish.as_ref().unwrap().at_most_every_micros, 250_000);
    assert!(revenue.compare.is_some() && confirmed.compare.is_none());
    assert_eq!(confirmed.lateness_micros, 600_000_000);
    assert!(bookings.legs[0].rooms.fits("bookings.x") && !bookings.legs[0].rooms.fits("bookings"));
    assert_eq!(conversion.legs.len(), 2);
    assert_eq!(conversion.window, Window::Tumbling(Unit::Day));
    assert_eq!(conversion.compare, Some(Compare::Previous));
    assert_ne!(confirmed.fingerprint, bookings.fingerprint);
}

#[test]
fn the_fingerprint_follows_what_is_folded_and_nothing_else() {
    let base = Definitions::parse(GOOD, "m", None).unwrap().metrics[0].fingerprint;
    for (from, to, same) in [
        ("audience: admin", "audience: staff", true),
        ("stalled_after: 5m", "stalled_after: 6m", true),
        ("compare: previous\n    stalled", "stalled", true),
        ("250ms", "500ms", true),
        (
            "compare: previous\n",
            "compare: previous\n    flat_within_percent: 2.5\n",
            true,
        ),
        ("\"TRY\"", "\"EUR\"", false),
        ("data.category", "data.country", false),
        ("24h, step", "12h, step", false),
        ("Europe/Istanbul", "UTC", true),
        ("sum(data.amount)", "distinct(data.amount)", false),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        let changed = Definitions::parse(&text, "m", None).unwrap().metrics[0].fingerprint;
        assert_eq!(changed == base, same, "{from} -> {to}");
    }
    let day = |text: &str| Definitions::parse(text, "m", None).unwrap().metrics[1].fingerprint;
    assert_ne!(
        day(GOOD),
        day(&GOOD.replacen("Europe/Istanbul", "UTC", 1)),
        "a day is another day in another zone"
    );
}

/// Each row: what stands under `metrics:`, then the places and words of all its mistakes.
#[test]
fn active_is_distinct_over_a_window_of_its_own() {
    for (span, expected) in [("1m", 1), ("15m", 1), ("1h", 3), ("24h", 60), ("7d", 420)] {
        let text = format!(
            "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: r }}, value: 'active(data.x, {span})' }}\n"
        );
        let definitions = Definitions::parse(&text, "m", None).unwrap();
        let Window::Sliding { size, step } = definitions.metrics[0].window else {
            panic!("{span}");
        };
        assert_eq!(definitions.metrics[0].legs[0].aggregate, Aggregate::Distinct(0));
        assert!(size % step == 0 && size / step <= STEPS_MAX, "{span}");
        assert_eq!(step, expected * 1_000_000, "{span}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let metric = |extra: &str| {
        format!(
            "  - name: m\n    from: {{ room: r, type: t }}\n    value: count()\n    window: {{ total: true }}\n{extra}"
        )
    };
    let rows: Vec<(String, Vec<&str>)> = vec![
        (
            metric("    lable: 1\n"),
            vec!["m.yaml:8:5: unknown key \"lable\" in a metric"],
        ),
        (
            metric("    latenes: 1m\n"),
            vec!["8:5: unknown key \"latenes\" in a metric; did you mean \"lateness\"?"],
        ),
        (
            metric("    where: data.x = 1\n"),
            vec!["8:19: `=` is not supported"],
        ),
        (
            metric("    where: 'data.x + 1'\n"),
            vec!["8:20: `+` is not supported"],
        ),
        (
            metric("    where: amount > 1\n    lateness: 1x\n"),
            vec![
                "8:12: `amount` is not a field; did you mean data.amount?",
                "9:15: \"1x\" is not a duration",
            ],
        ),
        (
            "  - { name: m, from: { room: r }, value: count(), window: { session: 3m, step: 1m } }\n".into(),
            vec!["4:59: a window is { sliding"],
        ),
        (
            metric("    lateness: 8d\n"),
            vec!["8:15: 8d is outside 0ms to 7d"],
        ),
        (
            metric("    groups_max: 0\n"),
            vec!["8:17: expected a whole number from 1 to 100000"],
        ),
        (
            metric("    flat_within_percent: 100.5\n"),
            vec!["8:26: expected a number from 0 to 100"],
        ),
        (
            metric("    flat_within_percent: -1\n"),
            vec!["8:26: expected a number from 0 to 100"],
        ),
        (
            metric("    flat_within_percent: small\n"),
            vec!["8:26: expected a number from 0 to 100"],
        ),
        (
            metric("    clock: walls\n"),
            vec!["8:12: clock is wall or event, not \"walls\"; did you mean \"wall\"?"],
        ),
        (
            metric("    compare: same_weekday\n"),
            vec!["8:14: `compare: same_weekday` is for { tumbling: day }"],
        ),
        (
            metric("    compare: previous_elapsed\n"),
            vec!["8:14: `compare: previous_elapsed` is for { tumbling: .. } and { to_date: .. }"],
        ),
        (
            "  - { name: m, from: { room: r }, value: rate(minut), window: { tumbling: day } }\n".into(),
            vec!["4:42: rate takes second, minute, hour or day, not \"minut\"; did you mean \"minute\"?"],
        ),
        (
            "  - { name: m, from: { room: r }, value: rate(hour), window: { total: true } }\n".into(),
            vec!["4:62: rate(..) needs a window that begins"],
        ),
        (
            "  - { name: m, from: { room: r }, value: p50(data.x), window: { to_date: month }, compare: previous_elapsed }\n".into(),
            vec!["4:92: `compare: previous_elapsed` is for count, sum, avg, min, max and rate"],
        ),
        (
            "  - { name: m, from: { room: r }, value: count(), window: { to_date: moth } }\n".into(),
            vec!["4:70: no unit \"moth\"; did you mean \"month\"?"],
        ),
        (
            "  - { name: m, from: { room: r }, value: count(), window: { to_date: month, tumbling: day } }\n".into(),
            vec!["4:59: a window is"],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'top(101, data.x)', window: { total: true } }\n".into(),
            vec!["4:42: top takes a number from 1 to 100 and a field"],
        ),
        (
            "  - { name: m, from: { room: r }, value: top(data.x), window: { total: true } }\n".into(),
            vec!["4:42: top takes a number from 1 to 100 and a field"],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'active(data.x, 10s)', window: { total: true } }\n".into(),
            vec!["4:42: 10s is outside 1m to 366d"],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'active(data.x, 90001s)' }\n".into(),
            vec!["4:42: this span has no steps of whole seconds"],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'active(data.x, 15m)', window: { total: true } }\n".into(),
            vec!["4:73: active(..) has a window of its own"],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'gauge(data.x)', window: { total: true } }\n".into(),
            vec!["4:42: gauge takes what names a thing and a condition"],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'gauge(data.x, data.y = 1)', window: { total: true } }\n".into(),
            vec!["4:64: "],
        ),
        (
            "  - { name: m, from: { room: r }, value: 'gauge(data.x, data.y == 1)', window: { tumbling: day } }\n".into(),
            vec!["4:80: gauge(..) is how many there are now, of { total: true } only"],
        ),
        (
            metric("  - { name: n, arithmetic: { of: m, divided: m } }\n"),
            vec!["8:28: arithmetic is { of: a, plus: b }", "8:37: unknown key \"divided\" in `arithmetic`"],
        ),
        (
            metric("  - { name: n, arithmetic: { of: m, minus: l } }\n"),
            vec!["8:44: no metric \"l\""],
        ),
        (
            metric("    group_by: []\n"),
            vec!["8:15: expected 1 to 32 entries, found 0"],
        ),
        (
            metric("    group_by: [data.x, data.x]\n"),
            vec!["8:24: data.x is there twice"],
        ),
        (
            metric("    publish: { room: a..b, audience: staf }\n"),
            vec![
                "8:22: room:",
                "8:38: no role \"staf\" in the policy; did you mean \"staff\"?",
            ],
        ),
        (
            metric("    publish: { room: a }\n"),
            vec!["8:14: `publish` needs `audience`"],
        ),
        (
            "  - { name: m }\n".into(),
            vec![
                "4:5: the metric \"m\" needs `from`",
                "needs `value`",
                "needs `window`",
            ],
        ),
        (
            "  - { name: status, from: { room: r }, value: count(), window: { total: true } }\n".into(),
            vec!["4:13: `status` is the first part"],
        ),
        (
            "  - { name: a.b, from: { room: '>' }, value: 'top(3, data.x y)', window: { session: 3s } }\n"
                .into(),
            vec![
                "4:13: bad metric name",
                "4:32: bad room \">\"",
                "4:46: \"data.x y\" is not a field",
                "4:85: 3s is outside 1m to 7d",
            ],
        ),
        (
            "  - { name: m, from: { room: r }, value: smu(data.x), window: { sliding: 1h, step: 7m } }\n"
                .into(),
            vec![
                "4:42: no aggregate \"smu\"; there are count(), rate(minute), active(data.user, 15m), gauge(data.id, data.status == \"open\"), top(5, data.category), and sum, avg, min, max, first, last, distinct, p50, p90, p95 and p99 of a field; did you mean \"sum\"?",
                "4:84: the window's size must be a multiple",
            ],
        ),
        (
            "  - { name: m, from: { room: r }, value: sum(amount), window: { sliding: 24h, step: 1s } }\n"
                .into(),
            vec![
                "4:42: \"amount\" is not a field",
                "4:85: a window has at most 1500 steps",
            ],
        ),
        (
            "  - { name: m, from: { room: r }, value: count(data.x), window: { tumbling: moth } }\n".into(),
            vec![
                "4:42: count() takes no field",
                "4:77: no unit \"moth\"; did you mean \"month\"?",
            ],
        ),
        (
            metric(
                "  - { name: l, from: { room: r }, value: last(data.x), window: { total: true } }\n  - { name: n, ratio: { of: l, to: m } }\n",
            ),
            vec!["9:29: \"l\" says more than a number, and nothing is computed from it"],
        ),
        (
            "  - { name: m, ratio: { of: x, to: m } }\n".into(),
            vec!["4:29: no metric \"x\"", "4:36: \"m\" is made of two metrics itself"],
        ),
        (
            metric("  - { name: n, ratio: { of: m, to: mm }, value: count() }\n"),
            vec![
                "8:36: no metric \"mm\"; did you mean \"m\"?",
                "a ratio takes `value`",
            ],
        ),
        (
            metric(
                "  - { name: d, from: { room: r }, value: count(), window: { tumbling: day } }\n  - { name: n, ratio: { of: m, to: d, scale: 13 } }\n",
            ),
            vec![
                "9:36: \"m\" and \"d\" differ in `window`",
                "9:46: scale is a whole number",
            ],
        ),
        (
            metric("  - { name: m, from: { room: r }, value: count(), window: { total: true } }\n"),
            vec!["8:13: there is a metric \"m\" already"],
        ),
        (
            metric("rules: [{ alert: x }]\n"),
            vec!["8:9: a rule needs `when`", "8:9: a rule needs `notify`"],
        ),
        (
            "  - [1]\n".into(),
            vec!["4:5: expected a metric as a map, found a list"],
        ),
        (
            "  - { name: 5 }\n".into(),
            vec!["4:13: expected a metric's name as text, found a number; put it in quotes"],
        ),
    ];
    let policy = policy();
    for (body, expected) in rows {
        let text = format!("{HEAD}{body}");
        let got: Vec<String> = Definitions::parse(&text, "m.yaml", Some(&policy))
            .expect_err(&text)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(got.len(), expected.len(), "{text}\n{got:#?}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(got.contains(expected), "{text}\n{got}\nshould hold {expected}");
        }
    }
}

/// Each row: what stands behind a rule's name, and the mistakes that are found in it.
#[test]
fn mistakes_in_rules_are_told_with_their_place() {
    let notify = "notify: { room: bell, audience: staff, title: t }";
    let rows: [(String, &[&str]); 22] = [
        (format!("when: m > 1, {notify}"), &[]),
        (
            format!(
                "when: 'change_percent( m.value , 10m ) <= -20.5', until: 'change_percent(m.value, 10m) > -10', {notify}"
            ),
            &[],
        ),
        (
            format!("when: 'absent(m, 30m)', hours: [{{ days: mon, from: '09:00', to: '24:00' }}], {notify}"),
            &[],
        ),
        (
            format!("when: mm > 1, {notify}"),
            &["12:23: no metric \"mm\"; did you mean \"m\"?"],
        ),
        (
            format!("when: m.valu > 1, {notify}"),
            &["12:23: a metric has no \"valu\"; a condition is"],
        ),
        (
            format!("when: m.change > 1, {notify}"),
            &["12:23: \"m\" has no `compare`, so it has no change"],
        ),
        (format!("when: c.change > 1, {notify}"), &[]),
        (
            format!("when: m is 1, {notify}"),
            &["12:23: \"m is 1\" compares nothing"],
        ),
        (
            format!("when: m > much, {notify}"),
            &["12:27: \"much\" is no number"],
        ),
        (
            format!("when: s > 1, {notify}"),
            &["12:23: rules look at metrics whose window is always there"],
        ),
        (
            format!("when: m > 1, until: c < 1, {notify}"),
            &["12:37: `until` compares the same number"],
        ),
        (
            format!("when: m > 1, for: 8d, {notify}"),
            &["12:35: 8d is outside"],
        ),
        (
            format!("when: m > 1, no_data: oki, {notify}"),
            &["12:39: no_data is ok, alert or keep, not \"oki\"; did you mean \"ok\"?"],
        ),
        (
            format!("when: m > 1, hours: {{ days: [mon, tu], from: '18:00', to: '9:00' }}, {notify}"),
            &["12:51: no day \"tu\"", "12:75: \"9:00\" is no time"],
        ),
        (
            format!("when: m > 1, hours: {{ days: mon, from: '18:00', to: '09:00' }}, {notify}"),
            &["12:69: `from` is before `to`"],
        ),
        (
            format!(
                "when: m > 1, silences: [{{ from: 2026-06-02T00:00:00Z, until: 2026-06-01T00:00:00Z }}], {notify}"
            ),
            &["12:41: `from` is before `until`"],
        ),
        (
            "when: m > 1, notify: { room: bell, audience: boss, title: t }".into(),
            &["12:62: no role \"boss\" in the policy"],
        ),
        (
            "when: m > 1, notify: { room: bell, audience: staff, title: '{{ m.valeu }}' }".into(),
            &["12:76: nothing is called \"m.valeu\" here"],
        ),
        (
            "when: m > 1, notify: { room: bell, audience: staff, title: 'up {{ m.value' }".into(),
            &["12:82: `{{` without its `}}`"],
        ),
        (
            "when: m > 1, notify: { room: bell, audience: staff, title: t, link: 'javascript:x' }".into(),
            &["12:85: data/link"],
        ),
        (
            "when: m > 1, notify: { room: bell, audience: staff, title: t, per: groups }".into(),
            &["12:84: a notification is per group or rule, not \"groups\"; did you mean \"group\"?"],
        ),
        (
            "when: m > 1, notify: { room: bell, audience: staff, title: t, priority: urgent }".into(),
            &["12:89: a priority is critical, high, medium or low"],
        ),
    ];
    let metrics = "  - { name: m, from: { room: r }, value: count(), window: { total: true } }\n  - { name: c, from: { room: r }, value: count(), compare: previous, window: { tumbling: day } }\n  - { name: s, from: { room: r }, value: count(), window: { session: 5m } }\n\n\n\n\nrules:\n";
    let policy = policy();
    for (rule, expected) in rows {
        let text = format!("{HEAD}{metrics}  - {{ alert: x, {rule} }}\n");
        let got: Vec<String> = match Definitions::parse(&text, "m.yaml", Some(&policy)) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(got.len(), expected.len(), "{rule}\n{got:#?}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(got.contains(expected), "{rule}\n{got}\nshould hold {expected}");
        }
    }
    let twice = format!(
        "{HEAD}{metrics}  - {{ alert: x, when: m > 1, {notify} }}\n  - {{ alert: x, when: m > 1, {notify} }}\n"
    );
    let mistakes = Definitions::parse(&twice, "m.yaml", Some(&policy)).unwrap_err();
    assert_eq!(
        mistakes[0].to_string(),
        "m.yaml:13:14: there is a rule \"x\" already"
    );
}

#[test]
fn broken_and_empty_files_are_told_too() {
    for (text, expected) in [
        ("", "the file is empty"),
        (
            "version: 2\ntimezone: UTC\nmetrics: []\n",
            "1:10: expected version 1",
        ),
        (
            "version: 1\ntimezone: Europe/Istambul\nmetrics: []\n",
            "2:11: no time zone \"Europe/Istambul\"",
        ),
        ("version: 1\n", "needs `timezone`"),
        ("version: [1\n", ""),
        ("version: 1\nversion: 1\n", "2:1"),
        ("- 1\n", "expected the file as a map"),
    ] {
        let mistakes = Definitions::parse(text, "m.yaml", None).expect_err(text);
        let told = mistakes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn a_number_that_tells_what_is_hidden_is_warned_of() {
    let policy = "version: 1\nroles:\n  staff: { permissions: [a.b] }\n  admin: { inherits: [staff], permissions: [money] }\nrooms:\n  - { room: bookings, subscribe: a.b, redact: [{ unless: money, remove: [/amount] }] }\n  - { room: board, subscribe: a.b }\n";
    let policy = Policy::parse(policy, "policy.yaml").unwrap();
    let check = |value: &str, audience: &str, expected: &[&str]| {
        let text = format!(
            "{HEAD}  - {{ name: m, from: {{ room: bookings }}, value: {value}, window: {{ total: true }}, publish: {{ room: board, audience: {audience} }} }}\n"
        );
        let file = Definitions::parse(&text, "m.yaml", Some(&policy)).unwrap();
        let got: Vec<String> = file.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(got, expected, "{value} {audience}");
    };
    check("sum(data.amount)", "admin", &[]);
    check("sum(data.guests)", "staff", &[]);
    check(
        "sum(data.amount)",
        "staff",
        &[
            "m.yaml:4:13: \"m\" is made of data.amount, which the policy takes out of bookings for staff; they see this number in board",
        ],
    );
}
