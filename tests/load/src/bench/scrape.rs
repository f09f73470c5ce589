//! Figures that a service tells about itself, read from its admin port.

/// The sum of all series of a metric whose labels contain each of `labels`; 0 where there is none.
#[must_use]
pub fn value(text: &str, metric: &str, labels: &[&str]) -> f64 {
    let of_line = |line: &str| {
        let rest = line.strip_prefix(metric)?;
        let named = match rest.as_bytes().first()? {
            b' ' => "",
            b'{' => rest.split('}').next()?,
            _ => return None,
        };
        let number = rest.rsplit(' ').next()?;
        labels
            .iter()
            .all(|label| named.contains(label))
            .then(|| number.parse::<f64>().ok())?
    };
    text.lines().filter_map(of_line).fold(0.0, |sum, one| sum + one)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# HELP a_total All.\na_total 3\na_total_more 9\nb{x=\"1\",y=\"2\"} 4\nb{x=\"2\"} 5.5\n";

    #[test]
    fn series_are_added_and_told_apart() {
        let rows: [(&str, &[&str], f64); 5] = [
            ("a_total", &[], 3.0),
            ("b", &[], 9.5),
            ("b", &["x=\"1\""], 4.0),
            ("b", &["x=\"1\"", "y=\"3\""], 0.0),
            ("c", &[], 0.0),
        ];
        for (metric, labels, expected) in rows {
            assert!(
                (value(TEXT, metric, labels) - expected).abs() < 1e-9,
                "{metric} {labels:?}"
            );
        }
    }
}
