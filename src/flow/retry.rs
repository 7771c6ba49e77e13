//! How often a failed job is tried again, as a value. Pure.

use serde_json::{Map, Value};

/// Seconds before each further try, and by what share they vary.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub delays: Vec<f64>,
    pub jitter: f64,
}

impl Default for Retry {
    /// A first try and three more after 1, 2 and 4 seconds.
    fn default() -> Self {
        Self { delays: vec![1.0, 2.0, 4.0], jitter: 0.2 }
    }
}

impl Retry {
    pub fn parse(object: &Map<String, Value>) -> Result<Self, String> {
        let mut retry = Self::default();
        if let Some(value) = object.get("delays") {
            let delays: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
            retry.delays = delays
                .filter(|list| list.len() <= 50 && list.iter().all(|s| (0.0..=31_536_000.0).contains(s)))
                .ok_or("\"delays\" must be at most 50 numbers of seconds, none negative or over a year")?;
        }
        if let Some(value) = object.get("jitter") {
            retry.jitter =
                value.as_f64().filter(|share| (0.0..=1.0).contains(share)).ok_or("\"jitter\" must be a number from 0 to 1")?;
        }
        Ok(retry)
    }

    /// Seconds until the next try after `attempts` tries; None when that was the last. `chance` is in 0..1.
    pub fn next(&self, attempts: i32, chance: f64) -> Option<f64> {
        let index = usize::try_from(attempts.checked_sub(1)?).ok()?;
        self.delays.get(index).map(|delay| delay * (1.0 + self.jitter * (2.0 * chance - 1.0)))
    }
}

#[cfg(test)]
mod unit {
    use super::Retry;
    use proptest::prelude::*;

    #[test]
    fn three_more_tries_by_default() {
        let retry = Retry::default();
        assert_eq!(retry.next(1, 0.5), Some(1.0));
        assert_eq!(retry.next(2, 0.5), Some(2.0));
        assert_eq!(retry.next(3, 0.5), Some(4.0));
        assert_eq!(retry.next(4, 0.5), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [r#"{"delays": "soon"}"#, r#"{"delays": [-1]}"#, r#"{"jitter": 2}"#, r#"{"delays": [1, "x"]}"#] {
            let object: serde_json::Value = serde_json::from_str(bad).unwrap();
            assert!(Retry::parse(object.as_object().unwrap()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn jitter_stays_in_its_share(attempt in 1i32..4, chance in 0.0f64..1.0) {
            let retry = Retry::default();
            let delay = retry.next(attempt, chance).unwrap();
            let plain = retry.delays[attempt as usize - 1];
            prop_assert!((delay - plain).abs() <= plain * 0.2 + 1e-9);
        }

        #[test]
        fn tries_end(attempts in 4i32..1000) {
            prop_assert_eq!(Retry::default().next(attempts, 0.3), None);
        }
    }
}
