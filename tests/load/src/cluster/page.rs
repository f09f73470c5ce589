//! The page with the results: figures and plots, one file that needs nothing else.

use std::fmt::Write as _;

use super::{Against, Results, Sample};

/// Size of a plot, and of what stands around it.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 60.0;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>roomcast-load</title>\
<style>body{font:15px system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#1c2024;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1rem;margin:1.6rem 0 .2rem}table{border-collapse:collapse}td{padding:.15rem 1.2rem .15rem 0}\
td+td{font-variant-numeric:tabular-nums}svg{width:100%;height:auto}text{font-size:12px;fill:#60646c}.grid{stroke:#e4e4e9}\
.line{fill:none;stroke-width:1.6}</style>";

/// The figures, by name.
pub fn figures(against: &Against, results: &Results) -> Vec<(&'static str, String)> {
    let seconds = results
        .waves
        .iter()
        .map(|wave| format!("{:.2} s", wave.as_secs_f64()));
    let (latencies, most) = (
        &results.latencies,
        results.samples.iter().map(|sample| sample.events),
    );
    let mut figures = vec![
        ("clients", against.connections.to_string()),
        ("all there after", seconds.collect::<Vec<_>>().join(", ")),
        ("most events a second", format!("{:.0}", most.fold(0.0, f64::max))),
        ("ended by the server", results.ended.to_string()),
        ("refused", results.refused.to_string()),
        ("told to come later", results.turned_away.to_string()),
        ("returns that were not complete", results.incomplete.to_string()),
    ];
    if results.published > 0 {
        figures.extend([
            ("published", results.published.to_string()),
            ("latency", latencies.to_string()),
            ("missed", results.gaps.to_string()),
            ("doubled", results.doubles.to_string()),
        ]);
    }
    figures
}

/// The page.
pub fn page(against: &Against, results: &Results) -> String {
    let mut page = String::from(HEAD);
    let title = format!("{:?} against {}", against.what, against.url);
    let _ = write!(page, "<h1>{}</h1><table>", escaped(&title));
    for (name, value) in figures(against, results) {
        let _ = write!(page, "<tr><td>{name}<td>{}", escaped(&value));
    }
    page.push_str("</table>");
    let samples = &results.samples;
    plot(
        &mut page,
        "Clients there",
        samples,
        &[("clients", "#0a6c74", |sample| sample.open)],
    );
    plot(
        &mut page,
        "Events a second, to all of them",
        samples,
        &[("events/s", "#0a6c74", |sample| sample.events)],
    );
    plot(
        &mut page,
        "Latency, from due to there, ms",
        samples,
        &[
            ("p50", "#0a6c74", |sample| sample.p50),
            ("p99", "#c2410c", |sample| sample.p99),
        ],
    );
    plot(
        &mut page,
        "Since the beginning",
        samples,
        &[
            ("ended", "#c2410c", |sample| sample.ended),
            ("refused or turned away", "#6e56cf", |sample| sample.refused),
        ],
    );
    page
}

type Line = (&'static str, &'static str, fn(&Sample) -> f64);

/// Draws lines over time. Where a value is no number, the line is broken.
fn plot(page: &mut String, title: &str, samples: &[Sample], lines: &[Line]) {
    let values = lines.iter().flat_map(|(_, _, of)| samples.iter().map(of));
    let highest = values.filter(|value| value.is_finite()).fold(1.0, f64::max);
    let last = samples.last().map_or(1.0, |sample| sample.at).max(1.0);
    let (x, y) = (
        |at: f64| LEFT + at / last * (WIDTH - LEFT),
        |value: f64| HEIGHT - value / highest * HEIGHT,
    );
    let _ = write!(
        page,
        "<h2>{title}</h2><svg viewBox=\"0 -12 {} {}\" role=img aria-label=\"{title}\">",
        WIDTH + 10.0,
        HEIGHT + 40.0
    );
    for part in [0.0, 0.5, 1.0] {
        let (at, value) = (y(highest * part), highest * part);
        let _ = write!(
            page,
            "<line class=grid x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} /><text x={} y={:.1} text-anchor=end>{value:.0}</text>\
             <text x={:.1} y={} text-anchor=middle>{:.0} s</text>",
            LEFT - 8.0,
            at + 4.0,
            x(last * part).clamp(LEFT, WIDTH - 14.0),
            HEIGHT + 18.0,
            last * part
        );
    }
    for (index, (name, color, of)) in lines.iter().enumerate() {
        let mut path = String::new();
        let mut begun = false;
        for sample in samples {
            let value = of(sample);
            if !value.is_finite() {
                begun = false;
                continue;
            }
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if begun { 'L' } else { 'M' },
                x(sample.at),
                y(value)
            );
            begun = true;
        }
        let _ = write!(
            page,
            "<path class=line stroke=\"{color}\" d=\"{path}\" /><text x={} y=-3 style=\"fill:{color}\">{name}</text>",
            LEFT + 10.0 + index as f64 * 60.0
        );
    }
    page.push_str("</svg>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_breaks_where_nothing_was_measured() {
        let sample = |at, p50| Sample {
            at,
            p50,
            ..Sample::default()
        };
        let samples = [
            sample(1.0, 2.0),
            sample(2.0, f64::NAN),
            sample(3.0, 4.0),
            sample(4.0, 4.0),
        ];
        let mut page = String::new();
        plot(
            &mut page,
            "Latency",
            &samples,
            &[("p50", "red", |sample| sample.p50)],
        );
        let path = page
            .split("d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 1, "{path}");
        assert!(!page.contains("NaN"), "{page}");
    }
}
