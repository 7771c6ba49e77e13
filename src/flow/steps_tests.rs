use super::*;

fn flow(steps: Value) -> Parsed<Definition> {
    Definition::parse(&json!({"when": {"change": "a.b"}, "then": {"steps": steps}}))
}

fn step(name: &str, more: Value) -> Value {
    let mut step = json!({"step": name, "insert": "a.c", "set": {"id": "run.id"}});
    for (key, value) in more.as_object().unwrap() {
        if value.is_null() {
            step.as_object_mut().unwrap().remove(key);
        } else {
            step[key] = value.clone();
        }
    }
    step
}

#[test]
fn steps_come_one_after_another_unless_they_say_otherwise() {
    let parsed = flow(json!([
        step("a", json!({})),
        step("b", json!({})),
        step("c", json!({"after": ["a"]})),
        step("d", json!({"after": []})),
        step("e", json!({"after": ["b", "c"]})),
    ]))
    .unwrap();
    let after: Vec<Vec<usize>> = parsed.steps().iter().map(|step| step.after.clone()).collect();
    assert_eq!(after, [vec![], vec![0], vec![0], vec![], vec![1, 2]]);
    assert_eq!(followers(parsed.steps()), [vec![1, 2, 4], vec![4], vec![4], vec![], vec![]]);
}

#[test]
fn each_step_has_the_parts_that_it_needs() {
    let undo = json!({"delete": "a.c", "key": ["id"], "set": {"id": "run.id"}});
    let definition = json!({"when": {"change": "a.b"}, "run_as": "somebody", "then": {"steps": [
        step("plain", json!({"undo": undo})),
        step("each", json!({"for_each": "run.input -> 'list'", "if": "run.input ? 'list'"})),
        {"step": "wait", "wait": {"event": "a.done", "match": {"id": "run.id"}}, "deadline": "3 days", "on_deadline": "continue"},
        {"step": "sleep", "sleep": "90 s"},
        {"step": "later", "sleep_until": "now()"},
        {"step": "approve", "approval": {}},
    ]}});
    let parsed = Definition::parse(&definition).unwrap();
    let parts = parts("w", &definition, parsed.steps());
    let names: Vec<String> = parts.iter().map(|(name, _)| name.split('_').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(
        names,
        ["w:plain", "w:plain:undo", "w:each:look", "w:each", "w:wait:look", "w:wait:hear", "w:later:look", "w::clock"]
    );
    assert!(parts.iter().all(|(_, part)| part["run_as"] == "somebody" && Definition::parse(part).unwrap().is_part()));
    let [_, each, wait, sleep, later, approve] = parsed.steps() else { panic!("six steps") };
    assert!(each.fans_out && each.looks && !each.has_undo);
    assert_eq!((wait.deadline, wait.goes_on), (Some(259_200.0), true));
    assert_eq!((&sleep.kind, &later.kind), (&Kind::Sleep(Some(90.0)), &Kind::Sleep(None)));
    assert_eq!(approve.kind, Kind::Wait(Awaits::Approval(false)));
}

#[test]
fn another_pattern_is_another_listener() {
    let hears = |event: &str, field: &str| {
        let steps = json!([{"step": "w", "wait": {"event": event, "match": {field: "run.id"}}}]);
        flow(steps).unwrap().steps()[0].part(Part::Hear, "f")
    };
    assert_eq!(hears("a.b", "id"), hears("a.b", "id"));
    assert!(hears("a.b", "id") != hears("a.*", "id") && hears("a.b", "id") != hears("a.b", "x"));
}

#[test]
fn what_cannot_work_is_refused_with_its_step() {
    let undo = json!({"delete": "a.c", "key": ["id"], "set": {"id": "run.id"}});
    for (steps, message, hint) in [
        (
            json!([{"step": "a", "wait": {"signal": "b"}}, {"step": "b", "approval": {}}]),
            "\"a\" and \"b\" both wait for the signal \"b\"",
            "own",
        ),
        (json!([]), "must be a list", "Write"),
        (json!([{"insert": "a.c"}]), "lacks \"step\"", "Write"),
        (json!([step("A", json!({}))]), "cannot name a step", "lower-case"),
        (json!([step("a", json!({})), step("a", json!({}))]), "two steps are named \"a\"", "own"),
        (
            json!([step("first", json!({})), step("b", json!({"after": ["frist"]}))]),
            "step \"b\": there is no step \"frist\"",
            "first",
        ),
        (json!([step("a", json!({"after": ["a"]}))]), "step \"a\" comes after itself", "after"),
        (json!([step("a", json!({"after": ["b"]})), step("b", json!({}))]), "wait for each other: a, b", "circle"),
        (json!([step("a", json!({"undo": {}}))]), "\"undo\" names none of its kinds", "delete"),
        (json!([step("a", json!({"undo": {"wait": {}}}))]), "unknown key \"wait\" in \"undo\"", "Known"),
        (json!([step("a", json!({"pivot": true, "undo": undo}))]), "would never run", "pivot"),
        (json!([step("a", json!({"pivot": true})), step("b", json!({"undo": undo}))]), "step \"b\" has an \"undo\"", "pivot"),
        (json!([step("a", json!({"deadline": "1 day"}))]), "\"deadline\" belongs to a step that waits", "timeout"),
        (json!([step("a", json!({"insert": null}))]), "names none of its kinds", "insert"),
        (json!([step("a", json!({"call": "a.f"}))]), "more than one kind", "Choose"),
        (json!([step("a", json!({"set": null}))]), "step \"a\": \"set\" is empty", "Say"),
        (json!([step("a", json!({"sett": {}}))]), "unknown key \"sett\"", "set"),
        (json!([{"step": "a", "sleep": "soon"}]), "\"sleep\" is not a duration", "days"),
        (json!([{"step": "a", "sleep": "1 day", "undo": {}}]), "does not belong to a step that only waits", "Leave"),
        (json!([{"step": "a", "wait": {"event": "a.b"}}]), "has no \"match\"", "run.input"),
        (json!([{"step": "a", "wait": {"signal": "s", "match": {"x": "1"}}}]), "\"match\" belongs to an event", "signal"),
        (json!([{"step": "a", "wait": {"event": "A", "match": {"x": "1"}}}]), "no word of an event's type", "orders"),
        (json!([{"step": "a", "approval": {"by": "boss"}}]), "\"by\": \"boss\" is unknown", "admin"),
        (json!([{"step": "a", "wait": {"signal": "s"}, "on_deadline": "continue"}]), "lacks a \"deadline\"", "days"),
    ] {
        let refusal = flow(steps.clone()).unwrap_err();
        assert!(refusal.message.contains(message) && refusal.hint.contains(hint), "{steps}: {refusal:?}");
    }
    for more in [json!({"mode": "transactional"}), json!({"shadow": true})] {
        let mut definition = json!({"when": {"change": "a.b"}, "then": {"steps": [step("a", json!({}))]}});
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert!(Definition::parse(&definition).unwrap_err().message.contains("a workflow cannot be"));
    }
}

#[test]
fn a_span_is_seconds_or_has_its_unit() {
    for (value, seconds) in [
        (json!(2), 2.0),
        (json!("90 s"), 90.0),
        (json!("500ms"), 0.5),
        (json!("10 min"), 600.0),
        (json!("2h"), 7_200.0),
        (json!("3 days"), 259_200.0),
        (json!("2 weeks"), 1_209_600.0),
    ] {
        assert_eq!(span(&value, "x"), Ok(seconds), "{value}");
    }
    for value in [
        json!(0),
        json!(-1),
        json!("soon"),
        json!("3 years"),
        json!("800 days"),
        json!(""),
        json!(null),
        json!("NaN"),
        json!("inf"),
    ] {
        assert!(span(&value, "x").is_err(), "{value}");
    }
}
