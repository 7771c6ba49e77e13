//! What is in a plan, in words. Pure.

use crate::error::{Result, UsherError, did_you_mean};

pub const KINDS: [&str; 5] = ["matched", "only_left", "only_right", "different", "ambiguous"];
/// Without `nothing`, which is not applied.
pub const ACTIONS: [&str; 7] = ["link", "make_right", "make_left", "write_right", "write_left", "write_both", "conflict"];

/// Refuses a word that is not among those known; no words are NULL.
pub fn known(given: Option<Vec<Option<String>>>, of: &[&str], what: &str) -> Result<Option<Vec<String>>> {
    let Some(given) = given else { return Ok(None) };
    let words: Vec<String> = given.into_iter().flatten().collect();
    if words.is_empty() {
        return Err(UsherError::invalid(format!("{what} is empty"))
            .hint(format!("Leave it out for all, or choose among {}.", of.join(", "))));
    }
    match words.iter().find(|word| !of.contains(&word.as_str())) {
        Some(other) => Err(UsherError::invalid(format!("\"{other}\" in {what} is unknown")).hint(format!(
            "{}Choose among {}.",
            did_you_mean(other, of),
            of.join(", ")
        ))),
        None => Ok(Some(words)),
    }
}

/// `1 row`, `2 rows`.
fn counted(n: i64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// One line of a plan: how many there are of what, and what is done about them.
pub fn says(kind: &str, action: &str, n: i64, left: &str, right: &str, why: Option<&str>) -> String {
    let are = if n == 1 { "is" } else { "are" };
    let rows = match kind {
        "equal" => return format!("{} {are} equal and linked: nothing is to be done", counted(n, "pair")),
        "left_out" => {
            return format!(
                "{} {are} not followed by the flow: left as {}",
                counted(n, "row"),
                if n == 1 { "it is" } else { "they are" }
            );
        }
        "matched" => format!("{} {are} equal, and not linked as such", counted(n, "pair")),
        "only_left" => format!("{} only in {left}", counted(n, "row")),
        "only_right" => format!("{} only in {right}", counted(n, "row")),
        "ambiguous" => format!("{} that cannot be paired", counted(n, "row")),
        _ => format!("{} {}", counted(n, "pair"), if n == 1 { "differs" } else { "differ" }),
    };
    let done = match action {
        "link" => "will be linked".to_owned(),
        "make_right" => format!("will be made in {right}"),
        "make_left" => format!("will be made in {left}"),
        "write_right" => format!("{right} will be written"),
        "write_left" => format!("{left} will be written"),
        "write_both" => "both sides will be written".to_owned(),
        "conflict" if n == 1 => "somebody must decide, it will be a conflict".to_owned(),
        "conflict" => "somebody must decide, they will be conflicts".to_owned(),
        _ => "nothing will be done".to_owned(),
    };
    match why {
        Some(why) => format!("{rows}: {done}, because {why}"),
        None => format!("{rows}: {done}"),
    }
}

/// Why nothing is done about a row.
pub const NOT_MADE: &str = "the flow makes no rows there";
pub const PARTNER_GONE: &str = "the row that it is linked with is not there, and nobody has told of its delete";
pub const SEVERAL: &str = "several rows have its key";
pub const TAKEN: &str = "the row with its key belongs to another row";
pub const CLASH: &str = "the row that it is linked with is linked with another one, too";
pub const POISON: &str = "they cannot be compared";

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_line_says_how_many_of_what_and_what_is_done() {
        let line = |kind, action, n, why| says(kind, action, n, "a.projects", "b.productions", why);
        assert_eq!(line("only_left", "make_right", 142, None), "142 rows only in a.projects: will be made in b.productions");
        assert_eq!(line("only_right", "make_left", 1, None), "1 row only in b.productions: will be made in a.projects");
        assert_eq!(line("different", "write_left", 1, None), "1 pair differs: a.projects will be written");
        assert_eq!(
            line("ambiguous", "nothing", 2, Some(SEVERAL)),
            "2 rows that cannot be paired: nothing will be done, because several rows have its key"
        );
        for kind in KINDS {
            for action in ACTIONS.into_iter().chain(["nothing"]) {
                assert!(line(kind, action, 3, None).starts_with("3 "), "{kind} {action}");
            }
        }
    }

    #[test]
    fn words_that_are_none_are_refused() {
        let given = |words: &[&str]| Some(words.iter().map(|word| Some((*word).to_owned())).collect());
        assert_eq!(known(None, &KINDS, "kinds").unwrap(), None);
        assert_eq!(known(given(&["matched"]), &KINDS, "kinds").unwrap(), Some(vec!["matched".to_owned()]));
        assert!(known(given(&[]), &KINDS, "kinds").is_err());
        assert!(known(Some(vec![None]), &KINDS, "kinds").is_err());
        let refused = known(given(&["mathced"]), &KINDS, "kinds").unwrap_err();
        assert!(refused.hint.unwrap().contains("matched"));
        assert!(known(given(&["nothing"]), &ACTIONS, "actions").is_err());
    }
}
