//! Fuzz targets of what callers ask of jobs: options of a request, and filters that choose among many.

use super::filter::{Among, Filter};
use super::options::{Expiry, Options, stored_retry};
use crate::fuzz::{fuzz_target, refused_well, seeds, values};
use serde_json::{Value, json};

fn written(options: &Options) -> Value {
    let mut all = json!({});
    match &options.expiry {
        Some(Expiry::In(span)) => all["expires_in"] = json!(span),
        Some(Expiry::At(time)) => all["expires_at"] = json!(time),
        None => {}
    }
    if let Some(retry) = &options.retry {
        all["retry"] = retry.clone();
    }
    if let Some((key, hold)) = &options.unique {
        all["unique"] = json!({"key": key});
        let (word, period) = hold.stored();
        if word != "history" {
            all["unique"]["for"] = json!(period.unwrap_or(word));
        }
    }
    if !options.after.is_empty() || options.run_anyway {
        all["after"] = options.after.iter().map(ToString::to_string).collect();
        all["on_failure"] = json!(if options.run_anyway { "run" } else { "die" });
    }
    if let Some(batch) = options.batch {
        all["batch"] = json!(batch.to_string());
    }
    all
}

fuzz_target!(options, |bytes: &[u8]| {
    for value in values(seeds("options"), bytes) {
        match Options::parse(&value) {
            Ok(options) => {
                assert_eq!(Options::parse(&written(&options)).unwrap(), options);
                assert!(options.after.is_sorted_by(|a, b| a < b) && options.after.len() <= 1_000);
                // A worker that takes the job finds the same rule good.
                assert!(options.retry.as_ref().is_none_or(|retry| stored_retry(retry).is_some()));
                let mut more = value.clone();
                more["no such key"] = json!(1);
                refused_well(&Options::parse(&more).unwrap_err());
            }
            Err(error) => refused_well(&error),
        }
    }
});

fuzz_target!(filter, |bytes: &[u8]| {
    for value in values(seeds("filter"), bytes) {
        for among in [Among::Open, Among::DeadLetters] {
            match Filter::parse(&value, among) {
                Ok(filter) => {
                    let fields = filter.fields.as_object().unwrap();
                    // A key that was lost would choose more jobs than were meant.
                    let all = fields.len() + filter.times.len() + usize::from(filter.status.is_some());
                    assert_eq!(all, value.as_object().unwrap().len());
                    assert!(fields.get("lane").is_none_or(|lane| lane.as_u64().is_some_and(|lane| lane < 5)));
                    assert!(among == Among::Open || filter.status.is_none());
                }
                Err(error) => refused_well(&error),
            }
        }
    }
});
