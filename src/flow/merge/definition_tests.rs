use super::super::super::definition::{Definition, Then, When};
use super::super::decide::Decided;
use super::*;
use proptest::prelude::{prop_assert_eq, proptest};

fn parsed(change: Value) -> Parsed<Definition> {
    let mut flow = json!({
        "from": "atlvs", "to": "compvss", "when": {"change": "a.projects"},
        "then": {"merge": "b.productions", "fields": ["name", "notes"]},
        "link": {"kind": "project", "left": "new.id", "right": "uid"}
    });
    for (key, value) in change.as_object().unwrap() {
        match (key.as_str(), value.as_object()) {
            ("then", Some(then)) => then.iter().for_each(|(key, value)| flow["then"][key] = value.clone()),
            _ => flow[key] = value.clone(),
        }
    }
    flow.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    Definition::parse(&flow)
}

fn merge(change: Value) -> Merge {
    match parsed(change).unwrap().then {
        Then::Merge(merge) => *merge,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merge_says_little_and_means_the_rest() {
    let merge = merge(json!({}));
    assert_eq!((merge.side, merge.table.as_str()), (Side::Left, "b.productions"));
    assert_eq!(merge.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["name", "notes"]);
    assert!(merge.fields.iter().all(|field| field.strategy == Strategy::Manual && field.left == field.right));
    assert_eq!((merge.creates_left, merge.creates_right, merge.deletes), (true, true, Deletes::Follow));
    assert_eq!(merge.against_edit, AgainstEdit::Manual, "who decides nothing by itself does not decide this either");
    assert_eq!(merge.escalate_after, BTreeMap::from([("critical", 3_600.0), ("warning", 86_400.0)]));
}

#[test]
fn each_field_may_have_its_own_columns_ways_and_strategy() {
    let merge = merge(json!({"then": {
        "strategy": "latest", "severity": "info",
        "fields": {
            "name": "source", "tags": {"function": "app.union"},
            "budget": {"right": "cents", "to_right": "new.budget * 100", "to_left": "new.cents / 100", "strategy": "add", "severity": "critical"},
            "notes": {"left": "note"}
        }
    }}));
    let field = |name: &str| merge.fields.iter().find(|field| field.name == name).unwrap();
    assert_eq!(field("name").strategy, Strategy::Source);
    assert_eq!(field("tags").strategy, Strategy::Function("app.union".to_owned()));
    assert_eq!((field("budget").right.as_str(), &field("budget").strategy), ("cents", &Strategy::Add));
    assert_eq!((field("budget").severity, field("notes").severity), (Severity::Critical, Severity::Info));
    assert_eq!((field("notes").left.as_str(), field("notes").right.as_str()), ("note", "notes"));
    assert_eq!(field("notes").strategy, Strategy::Latest);
    assert_eq!(merge.against_edit, AgainstEdit::Edit);
}

#[test]
fn what_does_not_go_with_a_merge_is_refused() {
    for change in [
        json!({"when": {"event": "a.*"}}),
        json!({"when": {"request": "x"}}),
        json!({"mode": "transactional"}),
        json!({"shadow": true}),
        json!({"coalesce": true}),
        json!({"set": {"a": "1"}}),
        json!({"check": {"a": "true"}}),
        json!({"join": {"p": {"table": "a.b", "on": "true"}}}),
        json!({"link": null}),
        json!({"link": {"kind": "project", "left": "lower(new.id)", "right": "id"}}),
        json!({"then": {"fields": null}}),
        json!({"then": {"fields": {}}}),
        json!({"then": {"fields": {"name": "newest"}}}),
        json!({"then": {"fields": {"*": "latest"}}}),
        json!({"then": {"fields": {"organization_id": "latest"}}}),
        json!({"then": {"fields": {"a": {"to_right": "new.a"}}}}),
        json!({"then": {"fields": {"a": {"left": "x"}, "b": {"left": "x"}}}}),
        json!({"then": {"strategy": "last"}}),
        json!({"then": {"creates": "sometimes"}}),
        json!({"then": {"deletes": "maybe"}}),
        json!({"then": {"delete_against_edit": "latest"}}),
        json!({"then": {"times": {"left": "updated_at"}}}),
        json!({"then": {"severity": "bad"}}),
        json!({"then": {"escalate_after": "soon"}}),
        json!({"then": {"escalate_after": {"fatal": "1 h"}}}),
        json!({"then": {"side": "left"}}),
        json!({"then": {"new_right": {"name": "'x'"}}}),
        json!({"then": {"new_left": {"organization_id": "new.organization_id"}}}),
        json!({"then": {"back": {"mode": "async"}}}),
        json!({"then": {"back": {"on": ["rename"]}}}),
    ] {
        let refusal = parsed(change.clone());
        assert!(refusal.as_ref().is_err_and(|refusal| !refusal.hint.is_empty()), "{change}: {refusal:?}");
    }
}

#[test]
fn the_way_back_is_the_same_pair_seen_from_the_right() {
    let whole = json!({
        "from": "atlvs", "to": "compvss", "when": {"change": "a.projects", "on": ["insert", "update", "delete"]}, "if": "new.live",
        "organization": "new.tenant", "then": {"merge": "b.productions", "fields": ["name"], "back": {"if": "new.kind = 'show'", "organization": "new.owner"}},
        "link": {"kind": "project", "left": "new.id", "right": "uid"}
    });
    let there = Definition::parse(&whole).unwrap();
    let back = Definition::parse(&back(&whole)).unwrap();
    assert!(back.is_part() && !there.is_part());
    assert_eq!((back.from.as_deref(), back.to.as_deref()), (Some("compvss"), Some("atlvs")));
    assert!(matches!(&back.when, When::Change { table, on } if table == "b.productions" && on.len() == 3));
    assert_eq!((there.merge_ids(), back.merge_ids()), (Some(("id", "uid")), Some(("uid", "id"))));
    assert_eq!(back.condition.as_deref(), Some("new.uid IS NULL OR (new.kind = 'show'\n)"));
    assert_eq!(back.organization.as_deref(), Some("new.owner"));
    let (left, right) = (there.merge().unwrap(), back.merge().unwrap());
    assert_eq!(
        (left.other_organization.as_deref(), right.other_organization.as_deref()),
        (Some("new.owner"), Some("new.tenant"))
    );
    assert_eq!((right.side, right.table.as_str()), (Side::Right, "a.projects"));
    assert_eq!(left.fields, right.fields);
}

#[test]
fn an_organization_that_is_fixed_is_that_of_both_sides() {
    let whole = json!({
        "when": {"change": "a.x"}, "organization": "'acme'", "then": {"merge": "b.y", "fields": ["name"]},
        "link": {"kind": "x", "left": "new.id", "right": "id"}
    });
    assert_eq!(back(&whole)["organization"], "'acme'");
}

#[test]
fn decisions_are_read() {
    assert_eq!(Decided::parse("source", None).unwrap(), Decided::Left);
    assert_eq!(Decided::parse("right", None).unwrap(), Decided::Right);
    assert!(matches!(Decided::parse("values", Some(&json!({"a": 1}))).unwrap(), Decided::Values(_)));
    for (decision, values) in [
        ("values", None),
        ("values", Some(json!({}))),
        ("values", Some(json!([1]))),
        ("left", Some(json!({"a": 1}))),
        ("leftt", None),
    ] {
        assert!(Decided::parse(decision, values.as_ref()).is_err(), "{decision} {values:?}");
    }
}

proptest! {
    #[test]
    fn a_plain_column_is_read_back(name in "[a-z_][a-z0-9_]{0,20}") {
        let (plain, old, sum) = (format!(" new.{name} "), format!("old.{name}"), format!("new.{name} + 1"));
        prop_assert_eq!(plain_column(&plain), Some(name.as_str()));
        prop_assert_eq!(plain_column(&old), None);
        prop_assert_eq!(plain_column(&sum), None);
    }
}
