//! stub
use std::sync::Arc;
use crate::counters::Counters;
#[derive(Debug)] pub struct Metrics; impl Metrics { pub fn new(_: Vec<Arc<Counters>>) -> Self { Self } }
