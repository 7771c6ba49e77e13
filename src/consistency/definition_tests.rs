use super::*;
use serde_json::json;

fn rule(changed: &Value) -> Parsed<Definition> {
    let mut definition = json!({"query": "SELECT id FROM public.orders WHERE total < 0;", "key": ["id"], "wrong": "'negative'"});
    for (key, value) in changed.as_object().unwrap() {
        definition[key] = value.clone();
    }
    Definition::parse(&definition)
}

#[test]
fn what_is_left_out_has_a_default() {
    let plain = rule(&json!({})).unwrap();
    assert_eq!(plain.query, "SELECT id FROM public.orders WHERE total < 0");
    assert_eq!((plain.severity, plain.every, plain.grace, plain.tolerance), ("warning", Some(MINUTE), 0, 0));
    assert!(!plain.in_transaction && !plain.after_sync && plain.repair.is_none() && plain.escalate.is_none());
    let repair = rule(&json!({"repair": {"call": "public.mend"}})).unwrap().repair.unwrap();
    assert_eq!(repair, Repair { mend: Mend::Call("public.mend".into()), auto: false, most: 3 });
}

#[test]
fn rules_that_run_with_changes_are_not_swept_unless_they_say_so() {
    let touches = json!({"public.orders": {"id": "row.id"}});
    let run = |every: Option<&str>| {
        let mut changed = json!({"run": ["after_sync"], "touches": touches});
        if let Some(every) = every {
            changed["every"] = json!(every);
        }
        rule(&changed).unwrap()
    };
    assert_eq!((run(None).every, run(Some("1 day")).every), (None, Some(86_400_000)));
    assert!(run(None).after_sync && !run(None).in_transaction);
    assert_eq!(rule(&json!({"every": "never"})).unwrap().every, None);
}

#[test]
fn everything_is_looked_at_more_seldom_than_what_was_touched() {
    let touches = json!({"public.orders": {"id": "row.id"}});
    let times = |mut changed: Value| {
        changed["touches"] = touches.clone();
        let rule = rule(&changed).unwrap();
        (rule.every, rule.full)
    };
    assert_eq!(times(json!({})), (Some(MINUTE), Some(10 * MINUTE)));
    assert_eq!(times(json!({"every": "1h"})), (Some(60 * MINUTE), Some(60 * MINUTE)));
    assert_eq!(times(json!({"every": "5s", "full": "5s"})), (Some(5 * SECOND), Some(5 * SECOND)));
    assert_eq!(times(json!({"every": "5s", "full": "1 day"})), (Some(5 * SECOND), Some(1_440 * MINUTE)));
    assert_eq!(times(json!({"every": "never"})), (None, None));
}

#[test]
fn times_are_read_with_their_units() {
    for (given, milliseconds) in [
        ("5s", 5_000),
        ("500ms", 500),
        ("5m", 300_000),
        ("5 min", 300_000),
        ("2h", 7_200_000),
        ("1 day", 86_400_000),
        ("60", 60_000),
    ] {
        assert_eq!(rule(&json!({"grace": given})).unwrap().grace, milliseconds, "{given}");
    }
    for bad in
        [json!("soon"), json!("0 h"), json!("-1 h"), json!(0), json!(true), json!("9999999999999 days"), json!("m"), json!("é")]
    {
        assert!(rule(&json!({"grace": bad})).unwrap_err().message.contains("is not a time"), "{bad}");
    }
}

#[test]
fn who_is_told_is_one_of_two() {
    let escalate = |tell: Value| rule(&json!({"escalate": tell})).map(|rule| rule.escalate.unwrap());
    assert_eq!(
        escalate(json!({"after": "5m", "emit": "a.b"})).unwrap(),
        Escalate { after: 300_000, tell: Tell::Emit("a.b".into()) }
    );
    assert!(escalate(json!({"after": "5m"})).unwrap_err().message.contains("none of its kinds"));
    assert!(escalate(json!({"after": "5m", "emit": "a.b", "notify": "c"})).unwrap_err().message.contains("more than one"));
    assert!(escalate(json!({"emit": "a.b"})).unwrap_err().message.contains("\"after\""));
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    for (changed, message, hint) in [
        (json!({"quer": "x"}), "unknown key \"quer\" in a rule", "Did you mean \"query\"?"),
        (json!({"severity": "criticl"}), "severity \"criticl\" is unknown", "Did you mean \"critical\"?"),
        (json!({"key": []}), "\"key\" is an empty list", "\"key\": [\"order_id\"]"),
        (json!({"key": ["a", "a"]}), "\"key\" names a twice", "once"),
        (json!({"query": " ; "}), "\"query\" is empty", "SELECT"),
        (json!({"wrong": ""}), "\"wrong\" must be text that is not empty", "quotes"),
        (json!({"run": ["transactio"]}), "\"run\" \"transactio\" is unknown", "Did you mean \"transaction\"?"),
        (json!({"run": ["transaction"]}), "needs \"touches\"", "public.orders"),
        (json!({"touches": {}}), "\"touches\" is empty", "public.orders"),
        (json!({"touches": {"a.b": {}}}), "names no key", "row.id"),
        (
            json!({"touches": {"a.b": {"id": "row.id"}}, "run": ["transaction"], "grace": "5s"}),
            "\"grace\" does not go",
            "leave one",
        ),
        (
            json!({"touches": {"a.b": {"id": "row.id"}}, "run": "transaction", "tolerance": 1}),
            "\"tolerance\" does not go",
            "leave one",
        ),
        (json!({"every": "10ms"}), "shorter than a second", "after_sync"),
        (json!({"full": "1h"}), "\"full\" needs \"touches\"", "every \"every\""),
        (json!({"full": "1h", "every": "never", "touches": {"a.b": {"id": "row.id"}}}), "\"full\" needs \"every\"", "60s"),
        (json!({"full": "never", "touches": {"a.b": {"id": "row.id"}}}), "\"full\" is \"never\"", "usher.capture"),
        (json!({"full": "10s", "touches": {"a.b": {"id": "row.id"}}}), "\"full\" is shorter", "longer"),
        (json!({"tolerance": "0.1%"}), "\"tolerance\" is not a number of rows", "\"tolerance\": 5"),
        (json!({"repair": {"statment": "x"}}), "unknown key \"statment\" in \"repair\"", "Did you mean \"statement\"?"),
        (json!({"repair": {"auto": true}}), "names none of its kinds", "statement, call, flow"),
        (json!({"repair": {"call": "a.b", "auto": "yes"}}), "\"auto\" is neither true nor false", "without quotes"),
        (json!({"repair": {"call": "a.b", "most": 0}}), "\"most\" in \"repair\" is not", "for 3"),
    ] {
        let refusal = rule(&changed).unwrap_err();
        assert!(refusal.message.contains(message) && refusal.hint.contains(hint), "{refusal:?}");
    }
    assert!(Definition::parse(&json!([])).unwrap_err().message.contains("must be an object"));
    assert!(Definition::parse(&json!({})).unwrap_err().message.contains("is missing"));
}
