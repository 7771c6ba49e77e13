//! The text format of Prometheus, version 0.0.4: families of samples, each with its help and type.

use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the server starts anew. Its name ends in `_total`.
    Counter,
    Gauge,
}

/// The text, family after family in the order in which they are written.
#[derive(Default)]
pub struct Exposition(String);

impl Exposition {
    /// A family without samples is left out.
    pub fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {word}", escaped(help, false));
        for (labels, value) in samples {
            self.0.push_str(name);
            for (at, (label, text)) in labels.iter().enumerate() {
                let _ = write!(self.0, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(text, true));
            }
            if !labels.is_empty() {
                self.0.push('}');
            }
            let _ = writeln!(self.0, " {}", number(value));
        }
    }

    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help, [(Vec::new(), value)]);
    }

    pub fn text(self) -> String {
        self.0
    }
}

/// Quotes are escaped in the values of labels only.
fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_family_is_written_as_the_format_wants_it() {
        let mut text = Exposition::default();
        text.family(
            "a_total",
            Kind::Counter,
            "Back\\slash\nline \"quoted\".",
            [(vec![("flow", "x\"y\\z\n"), ("lane", "low")], 3.0), (Vec::new(), 0.5)],
        );
        text.family("b", Kind::Gauge, "Nothing.", []);
        text.single("c", Kind::Gauge, "C.", f64::INFINITY);
        assert_eq!(
            text.text(),
            "# HELP a_total Back\\\\slash\\nline \"quoted\".\n# TYPE a_total counter\na_total{flow=\"x\\\"y\\\\z\\n\",lane=\"low\"} 3\na_total 0.5\n\
             # HELP c C.\n# TYPE c gauge\nc +Inf\n"
        );
    }

    #[test]
    fn large_numbers_are_not_rounded_or_shortened() {
        assert_eq!([1e15, 9_007_199_254_740_991.0, 0.000_001].map(number), ["1000000000000000", "9007199254740991", "0.000001"]);
    }
}
