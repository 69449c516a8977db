//! A filter of tags as clients send it: a tree.

use serde::Deserialize;

use crate::filter::{
    Comparison, DEPTH_MAX, Decimal, Filter, FilterError, NODES_MAX, Step, TEXT_BYTES_MAX, Test,
};
use crate::json;

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct FilterNode {
    /// `and`, `or`, `not`; empty: a test.
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub op: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub key: String,
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub cmp: String,
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub val: String,
    #[prost(string, repeated, tag = "5")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub vals: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    #[serde(deserialize_with = "json::null_is_default")]
    pub nodes: Vec<FilterNode>,
}

impl TryFrom<&FilterNode> for Filter {
    type Error = FilterError;

    fn try_from(root: &FilterNode) -> Result<Self, FilterError> {
        let mut compiler = Compiler::default();
        compiler.add(root, 1)?;
        Ok(Self::new(compiler.steps))
    }
}

#[derive(Default)]
struct Compiler {
    steps: Vec<Step>,
    bytes: usize,
}

impl Compiler {
    fn add(&mut self, node: &FilterNode, depth: usize) -> Result<(), FilterError> {
        if depth > DEPTH_MAX {
            return Err(FilterError::Depth);
        }
        if !node.op.is_empty() {
            for node in &node.nodes {
                self.add(node, depth + 1)?;
            }
        }
        self.bytes += node.key.len() + node.val.len() + node.vals.iter().map(String::len).sum::<usize>();
        if self.bytes > TEXT_BYTES_MAX {
            return Err(FilterError::Length);
        }
        let step = match (&*node.op, node.nodes.len()) {
            ("", _) => Step::Test(node.key.as_str().into(), test(node)?),
            ("and", 1..) => Step::All(node.nodes.len()),
            ("or", 1..) => Step::Any(node.nodes.len()),
            ("not", 1) => Step::Not,
            ("and" | "or" | "not", _) => return Err(FilterError::Nodes),
            _ => return Err(FilterError::Operator),
        };
        self.steps.push(step);
        if self.steps.len() > NODES_MAX { Err(FilterError::Count) } else { Ok(()) }
    }
}

fn test(node: &FilterNode) -> Result<Test, FilterError> {
    let value = || -> Box<str> { node.val.as_str().into() };
    let values = || node.vals.iter().map(|value| value.as_str().into()).collect();
    let compared = |comparison| Test::Compared(comparison, Decimal::parse(&node.val));
    let (test, error) = match &*node.cmp {
        "ex" => (Test::Exists, FilterError::NoValue),
        "nex" => (Test::Missing, FilterError::NoValue),
        "in" => (Test::In(values()), FilterError::Values),
        "nin" => (Test::NotIn(values()), FilterError::Values),
        "eq" => (Test::Is(value()), FilterError::Value),
        "neq" => (Test::IsNot(value()), FilterError::Value),
        "sw" => (Test::StartsWith(value()), FilterError::Value),
        "ew" => (Test::EndsWith(value()), FilterError::Value),
        "ct" => (Test::Contains(value()), FilterError::Value),
        "lt" => (compared(Comparison::Less), FilterError::Value),
        "lte" => (compared(Comparison::AtMost), FilterError::Value),
        "gt" => (compared(Comparison::Greater), FilterError::Value),
        "gte" => (compared(Comparison::AtLeast), FilterError::Value),
        _ => return Err(FilterError::Comparison),
    };
    // Clients may leave the key of `ex` and `nex` out.
    if node.key.is_empty() && error != FilterError::NoValue {
        return Err(FilterError::NoKey);
    }
    let has = (!node.val.is_empty(), !node.vals.is_empty());
    let wanted = match error {
        FilterError::NoValue => (false, false),
        FilterError::Values => (false, true),
        _ => (true, false),
    };
    if has == wanted { Ok(test) } else { Err(error) }
}
