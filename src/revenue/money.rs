//! Amounts of money: which currencies there are, and to how many digits each is counted. Pure.

use crate::error::{Result, UsherError};
use iso_currency::Currency as Iso;
use pgrx::PgSqlErrorCode;

/// Digits before the decimal point; more than any currency's whole money.
const MOST_DIGITS: usize = 15;

/// A currency of ISO 4217 that has a minor unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Currency {
    pub code: String,
    /// Decimal places: 0 for JPY, 2 for USD, 3 for KWD.
    pub digits: usize,
}

/// The currency of a code in any case.
pub fn currency(given: &str) -> Result<Currency> {
    let code = given.trim().to_ascii_uppercase();
    let known = Iso::from_code(&code).ok_or_else(|| {
        UsherError::invalid(format!("currency \"{given}\" is unknown"))
            .hint("Give the three letters of ISO 4217, such as USD, EUR or JPY.")
    })?;
    let digits = known.exponent().ok_or_else(|| {
        UsherError::invalid(format!("currency {code} has no minor unit"))
            .detail("ISO 4217 lists metals, funds and test codes beside the currencies that things are sold for.")
            .hint("Give the currency that was paid, such as USD.")
    })?;
    Ok(Currency { code, digits: usize::from(digits) })
}

/// An amount as PostgreSQL writes a numeric, with just the digits of its currency: `12.5` dollars become `12.50`.
/// Refused: what is no number, is below 0, is too large, or has more digits than the currency.
pub fn amount(text: &str, currency: &Currency) -> Result<String> {
    let Currency { code, digits } = currency;
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Err(UsherError::invalid(format!("gross_amount is {text}")).hint("Give a finite number, such as 120.00."));
    }
    if text.starts_with('-') {
        return Err(UsherError::invalid(format!("gross_amount {text} is negative"))
            .hint("A sale is taken back with usher.reverse_ticket_revenue(ingestion, reason)."));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || ![whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(UsherError::invalid("gross_amount is not a number").hint("Give a finite number, such as 120.00."));
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.len() > MOST_DIGITS {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("gross_amount has {} digits before the decimal point", whole.len()),
        )
        .hint(format!("At most {MOST_DIGITS} are taken.")));
    }
    if fraction.len() > *digits {
        let places = if *digits == 1 { "place" } else { "places" };
        return Err(UsherError::invalid(format!("gross_amount {text} is more precise than {code} is counted"))
            .detail(format!("{code} has {digits} decimal {places}."))
            .hint("Round it where it is made, by the rules that apply there."));
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(if *digits == 0 { whole.to_owned() } else { format!("{whole}.{fraction:0<digits$}") })
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    fn money(text: &str, code: &str) -> Result<String> {
        amount(text, &currency(code).unwrap())
    }

    #[test]
    fn digits_are_those_of_the_currency() {
        for (code, digits) in [("JPY", 0), ("usd", 2), ("Eur", 2), ("KWD", 3), ("CLF", 4), ("ISK", 0), ("TND", 3)] {
            assert_eq!(currency(code).unwrap().digits, digits, "{code}");
        }
        for bad in ["", "US", "USDX", "DOLLAR", "AAA", "U$D", "XAU", "XXX", "ÜSD", "us\u{131}"] {
            let error = currency(bad).unwrap_err();
            assert!(error.hint.is_some(), "{bad}: {error}");
        }
    }

    #[test]
    fn amounts_end_at_the_minor_unit() {
        assert_eq!(money("12", "USD").unwrap(), "12.00");
        assert_eq!(money("12.5000", "USD").unwrap(), "12.50");
        assert_eq!(money("0", "USD").unwrap(), "0.00");
        assert_eq!(money("0.000", "JPY").unwrap(), "0");
        assert_eq!(money("1500.00", "JPY").unwrap(), "1500");
        assert_eq!(money("1.234", "KWD").unwrap(), "1.234");
        for (text, code) in [("0.005", "USD"), ("1.5", "JPY"), ("1.2345", "KWD"), ("-1", "USD"), ("-0.01", "USD")] {
            assert!(money(text, code).is_err(), "{text} {code}");
        }
        for text in ["", ".", "abc", "1e5", "+5", " 1", "0x1", "1.2.3", "1,5", "١"] {
            assert!(money(text, "KWD").unwrap_err().message.contains("not a number"), "{text}");
        }
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert!(money(text, "USD").unwrap_err().message.contains(text));
        }
        assert_eq!(money("999999999999999.99", "USD").unwrap(), "999999999999999.99");
        assert_eq!(money("1000000000000000", "USD").unwrap_err().code, PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE);
    }

    proptest! {
        /// Whatever passes is worth what was given, to the last minor unit; whatever would have to be rounded is refused.
        #[test]
        fn nothing_is_rounded(minor in 0u64..1_000_000_000_000, scale in 0u32..7, zeros in 0usize..4, code in 0usize..4) {
            let code = ["JPY", "USD", "KWD", "CLF"][code];
            let currency = currency(code).unwrap();
            let divisor = 10u64.pow(scale);
            let mut text = (minor / divisor).to_string();
            if scale > 0 || zeros > 0 {
                let fraction = if scale > 0 { format!("{:0width$}", minor % divisor, width = scale as usize) } else { String::new() };
                text = format!("{text}.{fraction}{}", "0".repeat(zeros));
            }
            let exact = (minor * 10u64.pow(currency.digits as u32)).is_multiple_of(divisor);
            let taken = amount(&text, &currency);
            prop_assert_eq!(taken.is_ok(), exact, "{} {}", text, code);
            if let Ok(taken) = taken {
                let units: u64 = taken.replace('.', "").parse().unwrap();
                prop_assert_eq!(u128::from(units) * u128::from(divisor), u128::from(minor) * 10u128.pow(currency.digits as u32));
                prop_assert_eq!(taken.split_once('.').map_or(0, |(_, fraction)| fraction.len()), currency.digits);
                prop_assert_eq!(amount(&taken, &currency).unwrap(), taken);
            }
        }

        #[test]
        fn no_code_makes_it_panic(code in "\\PC{0,5}") {
            let _ = currency(&code);
        }
    }
}
