//! Filters of tags: what clients may send, and what each takes.

use fanwire_protocol::Tags;
use fanwire_protocol::centrifuge::FilterNode;
use fanwire_protocol::filter::{DEPTH_MAX, Filter, FilterError, NODES_MAX, TEXT_BYTES_MAX};
use proptest::prelude::*;
use serde_json::{Value, json};

fn node(json: &Value) -> FilterNode {
    serde_json::from_value(json.clone()).expect("the fields are of these types")
}

fn compile(json: &Value) -> Result<Filter, FilterError> {
    Filter::try_from(&node(json))
}

fn tags(json: Value) -> Option<Tags> {
    serde_json::from_value(json).expect("texts by names")
}

#[test]
fn each_test_takes_what_it_says() {
    let with = |value: &str| tags(json!({"k": value, "other": "x"}));
    let without = tags(json!({"other": "x"}));
    for (test, taken, refused) in [
        (
            json!({"key": "k", "cmp": "eq", "val": "a"}),
            vec![with("a")],
            vec![with("b"), without.clone(), None],
        ),
        (
            json!({"key": "k", "cmp": "neq", "val": "a"}),
            vec![with("b"), without.clone(), None],
            vec![with("a")],
        ),
        (
            json!({"key": "k", "cmp": "in", "vals": ["a", "b"]}),
            vec![with("a"), with("b")],
            vec![with("c"), None],
        ),
        (json!({"key": "k", "cmp": "in", "vals": ["a", ""]}), vec![without.clone(), None], vec![with("c")]),
        (json!({"key": "k", "cmp": "nin", "vals": ["a"]}), vec![with("b"), without.clone()], vec![with("a")]),
        (json!({"key": "k", "cmp": "nin", "vals": [""]}), vec![with("b")], vec![without.clone(), None]),
        (json!({"key": "k", "cmp": "ex"}), vec![with("")], vec![without.clone(), None]),
        (json!({"key": "k", "cmp": "nex"}), vec![without.clone(), None], vec![with("")]),
        (
            json!({"key": "k", "cmp": "sw", "val": "ab"}),
            vec![with("abc")],
            vec![with("cab"), without.clone()],
        ),
        (
            json!({"key": "k", "cmp": "ew", "val": "ab"}),
            vec![with("cab")],
            vec![with("abc"), without.clone()],
        ),
        (
            json!({"key": "k", "cmp": "ct", "val": "ab"}),
            vec![with("cabc")],
            vec![with("acb"), without.clone()],
        ),
        (
            json!({"key": "k", "cmp": "lt", "val": "10"}),
            vec![with("9.99"), with("-1e3")],
            vec![with("10"), with("x"), None],
        ),
        (json!({"key": "k", "cmp": "lte", "val": "10"}), vec![with("1e1")], vec![with("10.01"), with("")]),
        (json!({"key": "k", "cmp": "gt", "val": "10"}), vec![with("1e2")], vec![with("10.0"), with("9")]),
        (
            json!({"key": "k", "cmp": "gte", "val": "10"}),
            vec![with("10.0")],
            vec![with("9"), without.clone()],
        ),
        (json!({"key": "k", "cmp": "gte", "val": "ten"}), vec![], vec![with("ten"), with("10")]),
    ] {
        let filter = compile(&test).unwrap();
        for tags in taken {
            assert!(filter.takes(tags.as_ref()), "{test} {tags:?}");
        }
        for tags in refused {
            assert!(!filter.takes(tags.as_ref()), "{test} {tags:?}");
        }
    }
}

#[test]
fn what_cannot_be_a_filter_is_refused_with_the_remedy() {
    let test = json!({"key": "k", "cmp": "ex"});
    let nested =
        |levels: usize| (1..levels).fold(test.clone(), |inner, _| json!({"op": "not", "nodes": [inner]}));
    assert!(compile(&nested(DEPTH_MAX)).is_ok());
    let wide = |tests: usize| json!({"op": "or", "nodes": vec![test.clone(); tests]});
    assert!(compile(&wide(NODES_MAX - 1)).is_ok());
    let long = |bytes: usize| json!({"key": "k", "cmp": "eq", "val": "x".repeat(bytes)});
    assert!(compile(&long(TEXT_BYTES_MAX - 1)).is_ok());
    assert!(compile(&json!({"cmp": "nex"})).is_ok());
    for (filter, error) in [
        (nested(DEPTH_MAX + 1), FilterError::Depth),
        (wide(NODES_MAX), FilterError::Count),
        (long(TEXT_BYTES_MAX), FilterError::Length),
        (json!({}), FilterError::Comparison),
        (json!({"op": "xor", "nodes": [test]}), FilterError::Operator),
        (json!({"op": "and"}), FilterError::Nodes),
        (json!({"op": "or", "nodes": []}), FilterError::Nodes),
        (json!({"op": "not", "nodes": [test, test]}), FilterError::Nodes),
        (json!({"key": "k", "cmp": "like", "val": "a"}), FilterError::Comparison),
        (json!({"cmp": "eq", "val": "a"}), FilterError::NoKey),
        (json!({"key": "k", "cmp": "eq"}), FilterError::Value),
        (json!({"key": "k", "cmp": "eq", "val": "a", "vals": ["a"]}), FilterError::Value),
        (json!({"key": "k", "cmp": "gt", "vals": ["1"]}), FilterError::Value),
        (json!({"key": "k", "cmp": "in", "val": "a"}), FilterError::Values),
        (json!({"key": "k", "cmp": "nin", "vals": ["a"], "val": "a"}), FilterError::Values),
        (json!({"key": "k", "cmp": "ex", "val": "a"}), FilterError::NoValue),
        (json!({"op": "and", "nodes": [test, {"key": "k", "cmp": "eq"}]}), FilterError::Value),
    ] {
        assert_eq!(compile(&filter), Err(error), "{filter}");
    }
}

fn any_test() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["a", "b", "ab", "1", "2.5"]);
    let key = || prop::sample::select(vec!["x", "y"]);
    prop_oneof![
        (key(), prop::sample::select(vec!["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]), text())
            .prop_map(|(key, cmp, val)| json!({"key": key, "cmp": cmp, "val": val})),
        (key(), prop::sample::select(vec!["in", "nin"]), prop::collection::vec(text(), 1..3))
            .prop_map(|(key, cmp, vals)| json!({"key": key, "cmp": cmp, "vals": vals})),
        (key(), prop::sample::select(vec!["ex", "nex"]))
            .prop_map(|(key, cmp)| json!({"key": key, "cmp": cmp})),
    ]
}

fn any_filter() -> impl Strategy<Value = Value> {
    any_test().prop_recursive(5, 60, 5, |inner| {
        prop_oneof![
            (prop::sample::select(vec!["and", "or"]), prop::collection::vec(inner.clone(), 1..5))
                .prop_map(|(op, nodes)| json!({"op": op, "nodes": nodes})),
            inner.prop_map(|node| json!({"op": "not", "nodes": [node]})),
        ]
    })
}

/// The meaning of operators, by recursion.
fn takes(filter: &Value, tags: &Tags) -> bool {
    let mut nodes = filter["nodes"].as_array().into_iter().flatten();
    match filter["op"].as_str().unwrap_or_default() {
        "and" => nodes.all(|node| takes(node, tags)),
        "or" => nodes.any(|node| takes(node, tags)),
        "not" => !nodes.any(|node| takes(node, tags)),
        _ => compile(filter).expect("it is a part of a good one").takes(Some(tags)),
    }
}

proptest! {
    #[test]
    fn operators_mean_what_they_say(
        filter in any_filter(),
        tags in prop::collection::btree_map("[xy]", "a|b|ab|1|2[.]5|10", 0..3),
    ) {
        let compiled = compile(&filter);
        if node(&filter).nodes.len() < NODES_MAX && let Ok(compiled) = compiled {
            prop_assert_eq!(compiled.takes(Some(&tags)), takes(&filter, &tags));
        }
    }

    #[test]
    fn equal_filters_are_equal_and_anything_may_come(filter in any_filter(), cut in any::<prop::sample::Index>()) {
        prop_assert_eq!(compile(&filter), compile(&filter));
        let text = filter.to_string();
        let cut: String = text.chars().take(cut.index(text.len())).collect();
        if let Ok(node) = serde_json::from_str::<FilterNode>(&cut) {
            let _ = Filter::try_from(&node);
        }
        let bytes = prost::Message::encode_to_vec(&node(&filter));
        prop_assert_eq!(<FilterNode as prost::Message>::decode(&*bytes).unwrap(), node(&filter));
    }
}
