//! stub
pub async fn serve(_n: &crate::handle::Node, _r: hyper::Request<hyper::body::Incoming>) -> hyper::Response<http_body_util::Full<bytes::Bytes>> { hyper::Response::new(http_body_util::Full::default()) }
