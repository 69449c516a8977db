//! stub
pub async fn listen(_node: crate::handle::Node, _l: tokio::net::TcpListener) {}
