//! Fuzz targets of what a ticket sale says: amounts, currencies, and the call as a whole.

use super::money::{amount, currency};
use super::sale::{Given, Once, Sale};
use crate::fuzz::{fuzz_target, refused_well, seeds, text, values};
use serde_json::Value;

/// Digits, and just as many behind the point as the currency has.
fn is_amount(text: &str, digits: usize) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty() && whole.len() <= 15 && plain(whole) && plain(fraction) && fraction.len() == digits && !text.ends_with('.')
}

fuzz_target!(money, |bytes: &[u8]| {
    let given = text(bytes);
    let (given, code) = given.split_once(' ').unwrap_or((&given, "USD"));
    match currency(code) {
        Ok(found) => assert!(found.code.len() == 3 && currency(&found.code).unwrap() == found),
        Err(error) => refused_well(&error),
    }
    for code in ["JPY", "USD", "KWD", "CLF"] {
        let currency = currency(code).unwrap();
        match amount(given, &currency) {
            Ok(taken) => {
                assert!(is_amount(&taken, currency.digits), "{given:?} became {taken:?}");
                assert_eq!(amount(&taken, &currency).unwrap(), taken);
            }
            Err(error) => refused_well(&error),
        }
    }
});

fn given(value: &Value) -> Given {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Given {
        project_code: text("project_code"),
        event_code: text("event_code"),
        ticket_count: value.get("ticket_count").and_then(Value::as_i64).and_then(|count| i32::try_from(count).ok()),
        gross_amount: text("gross_amount"),
        currency: text("currency"),
        source: text("source"),
        payload: value.get("payload").cloned(),
        idempotency_key: text("idempotency_key"),
    }
}

fuzz_target!(sale, |bytes: &[u8]| {
    for value in values(seeds("sale"), bytes) {
        match super::batch::read(serde_json::json!([value])) {
            Ok(sales) => assert!(sales.iter().all(|sale| !matches!(sale.once(), Once::Never))),
            Err(error) => refused_well(&error),
        }
        let sale = match Sale::check(given(&value)) {
            Ok(sale) => sale,
            Err(error) => {
                refused_well(&error);
                continue;
            }
        };
        assert!(sale.ticket_count >= 0 && sale.payload.is_object());
        assert!(sale.project_code.is_some() || sale.event_code.is_some());
        assert!(is_amount(&sale.gross_amount, sale.currency.digits));
        assert!(sale.source.len() <= 200 && !sale.source.trim().is_empty());
        match sale.once() {
            Once::Key(text) | Once::Reference(text) => assert!((1..=1_000).contains(&text.len())),
            Once::Never => assert!(sale.idempotency_key.is_none()),
        }
        // What is kept is a sale itself, and the same one.
        let again = Given {
            project_code: sale.project_code.clone(),
            event_code: sale.event_code.clone(),
            ticket_count: Some(sale.ticket_count),
            gross_amount: Some(sale.gross_amount.clone()),
            currency: Some(sale.currency.code.clone()),
            source: Some(sale.source.clone()),
            payload: Some(sale.payload.clone()),
            idempotency_key: sale.idempotency_key.clone(),
        };
        let again = Sale::check(again).unwrap();
        assert_eq!((again.once(), again.fingerprint(&[1; 16])), (sale.once(), sale.fingerprint(&[1; 16])));
    }
});
