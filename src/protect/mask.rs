//! What a masked value looks like. Pure.

/// The first letter of an e-mail address and of its domain, the last two digits of a phone number, nothing of anything else.
pub fn mask(value: &str) -> String {
    email(value).or_else(|| phone(value)).unwrap_or_else(|| "***".to_owned())
}

fn email(value: &str) -> Option<String> {
    let (local, domain) = value.split_once('@')?;
    let (name, ending) = domain.rsplit_once('.')?;
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@');
    // A long ending is no ending, and would be shown.
    let short = ending.len() <= 24 && ending.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !(plain(local) && plain(name) && plain(ending) && short) {
        return None;
    }
    Some(format!("{}***@{}***.{ending}", local.chars().next()?, name.chars().next()?))
}

/// At least seven digits, and besides them only what people write between digits.
fn phone(value: &str) -> Option<String> {
    let digits: Vec<char> = value.chars().filter(char::is_ascii_digit).collect();
    let rest = value.chars().filter(|c| !c.is_ascii_digit()).all(|c| matches!(c, '+' | '-' | '(' | ')' | '.' | '/' | ' '));
    if digits.len() < 7 || digits.len() > 20 || !rest {
        return None;
    }
    Some(format!("***{}", digits[digits.len() - 2..].iter().collect::<String>()))
}

#[cfg(test)]
mod unit {
    use super::mask;

    #[test]
    fn each_form_shows_little() {
        for (value, shown) in [
            ("jane.doe@example.com", "j***@e***.com"),
            ("ü@mail.example.co", "ü***@m***.co"),
            ("+49 (170) 123-45 67", "***67"),
            ("1234567", "***67"),
            ("123456", "***"),
            ("Jane Doe", "***"),
            ("a@b", "***"),
            ("a b@c.de", "***"),
            ("a@b@c.de", "***"),
            ("x@y.a secret text", "***"),
            ("4111 1111 1111 1111 1111 1111", "***"),
            ("", "***"),
        ] {
            assert_eq!(mask(value), shown, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn little_is_shown_of_anything(value in "\\PC{0,60}") {
            proptest::prop_assert!(mask(&value).chars().count() <= 35);
        }
    }
}
