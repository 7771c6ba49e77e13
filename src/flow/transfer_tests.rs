//! What is read from a document, and what is planned for it.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn form(definition: &str, enabled: bool, pack: Option<&str>) -> Form {
    Form { definition: json!({ "if": definition }), enabled, pack: pack.map(str::to_owned) }
}

fn forms(list: &[(&str, Form)]) -> Forms {
    list.iter().map(|(name, form)| ((*name).to_owned(), form.clone())).collect()
}

fn words(planned: &[Planned]) -> Vec<String> {
    planned.iter().map(|planned| format!("{} {}", planned.flow, planned.step.word())).collect()
}

#[test]
fn what_is_not_understood_is_refused() {
    for document in [
        json!([]),
        json!({}),
        json!({"format": 1}),
        json!({"format": "1", "flows": {}}),
        json!({"format": 1, "flows": []}),
        json!({"format": 1, "flows": {}, "more": 1}),
        json!({"format": 1, "flows": {"A b": {"definition": {}}}}),
        json!({"format": 1, "flows": {"a": {}}}),
        json!({"format": 1, "flows": {"a": {"definition": []}}}),
        json!({"format": 1, "flows": {"a": {"definition": {}, "enabled": "yes"}}}),
        json!({"format": 1, "flows": {"a": {"definition": {}, "enable": true}}}),
        json!({"format": 1, "flows": {"a": {"definition": {}, "pack": 1}}}),
    ] {
        let error = read(&document).unwrap_err();
        assert!(error.hint.is_some(), "{document}: {error:?}");
    }
    assert!(read(&json!({"format": 2, "flows": {}})).unwrap_err().message.contains("format 2"));
}

#[test]
fn an_error_in_a_flow_names_it() {
    let error = read(&json!({"format": 1, "flows": {"orders": {"definition": {}, "enabld": true}}})).unwrap_err();
    assert!(error.message.contains("\"orders\"") && error.hint.unwrap().contains("\"enabled\""));
}

#[test]
fn each_flow_gets_what_it_needs() {
    let there = forms(&[
        ("altered", form("a", true, None)),
        ("both", form("a", true, None)),
        ("gone", form("a", true, None)),
        ("of_pack", form("a", true, Some("p"))),
        ("off", form("a", true, None)),
        ("same", form("a", false, None)),
    ]);
    let wanted = forms(&[
        ("altered", form("b", true, None)),
        ("both", form("b", false, None)),
        ("new", form("a", true, None)),
        ("new_off", form("a", false, None)),
        ("off", form("a", false, None)),
        ("same", form("a", false, None)),
    ]);
    let kept = plan(&there, &wanted, false).unwrap();
    let all = [
        "altered alter",
        "both alter",
        "both disable",
        "new create",
        "new_off create",
        "new_off disable",
        "off disable",
        "same unchanged",
    ];
    assert_eq!(words(&kept), all);
    let removed = plan(&there, &wanted, true).unwrap();
    assert_eq!(words(&removed).iter().filter(|word| word.ends_with("remove")).collect::<Vec<_>>(), ["gone remove"]);
    assert_eq!(kept[0].difference, [r#"if: "a" -> "b""#]);
    assert_eq!(kept[2].difference, ["enabled: true -> false"]);
}

#[test]
fn a_packs_flow_stays_with_its_pack() {
    let packed = forms(&[("f", form("a", true, Some("p")))]);
    let own = forms(&[("f", form("a", true, None))]);
    for (there, wanted) in [(&packed, &own), (&own, &packed), (&Forms::new(), &packed)] {
        assert!(plan(there, wanted, true).unwrap_err().message.contains("\"f\""));
    }
    assert_eq!(words(&plan(&packed, &packed, true).unwrap()), ["f unchanged"]);
}

proptest! {
    #[test]
    fn after_the_plan_everything_is_as_wanted(
        there in proptest::collection::btree_map("[a-d]", ("[xy]", any::<bool>()), 0..4),
        wanted in proptest::collection::btree_map("[a-d]", ("[xy]", any::<bool>()), 0..4),
        remove in any::<bool>(),
    ) {
        let forms = |map: &BTreeMap<String, (String, bool)>| -> Forms {
            map.iter().map(|(name, (text, on))| (name.clone(), form(text, *on, None))).collect()
        };
        let (mut now, wanted) = (forms(&there), forms(&wanted));
        let planned = plan(&now, &wanted, remove).unwrap();
        for Planned { flow, step, .. } in &planned {
            match step {
                Step::Create(form) => {
                    // As usher.create_flow does it: switched on.
                    let made = Form { enabled: true, ..form.clone() };
                    prop_assert!(now.insert(flow.clone(), made).is_none());
                }
                Step::Alter(definition) => now.get_mut(flow).unwrap().definition = definition.clone(),
                Step::Enable(on) => now.get_mut(flow).unwrap().enabled = *on,
                Step::Remove => prop_assert!(now.remove(flow).is_some()),
                Step::Nothing => {}
            }
        }
        if !remove {
            now.retain(|name, _| wanted.contains_key(name));
        }
        prop_assert_eq!(&now, &wanted);
        // And a second time there is nothing to do.
        prop_assert!(plan(&now, &wanted, remove).unwrap().iter().all(|planned| planned.step == Step::Nothing));
    }
}
