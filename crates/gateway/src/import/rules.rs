//! The settings of Centrifugo v6, each with its counterpart here or the reason for which it has none.

use How::*;

/// A setting that both servers have.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) theirs: &'static str,
    pub(super) ours: &'static str,
    pub(super) how: How,
}

/// The conversion of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Flag,
    Number,
    Text,
    /// A list of texts, from a list or from one text with commas.
    Texts,
    /// One text that becomes a list of one.
    OneOf,
    Duration,
    Bytes,
    /// PEM text, PEM in base64, or the path of a PEM file.
    Pem,
    /// The path of a file.
    Path,
    /// Words that differ between the servers; others stay as they are.
    Words(&'static [(&'static str, &'static str)]),
}

const TOKEN_SECTIONS: [&str; 2] = ["client.token", "client.subscription_token"];

/// Returns the name here of a setting of Centrifugo, if it differs.
pub(crate) fn name_here(theirs: &str) -> Option<String> {
    let option = || {
        let name = theirs.strip_prefix("topics.")?.rsplit('.').next()?;
        NAMESPACE_RULES.iter().find(|rule| rule.theirs == name).map(|rule| rule.ours.to_owned())
    };
    let inside = format!("{theirs}.");
    let section = || {
        let rule = RULES.iter().find(|rule| rule.theirs.starts_with(&inside))?;
        rule.ours.split('.').next().map(str::to_owned)
    };
    let ours = rule_of(theirs).map(|(_, ours)| ours).or_else(option).or_else(section);
    ours.filter(|ours| ours != theirs)
}

/// Returns the rule for a key outside namespaces, and the key that gets the value.
pub(super) fn rule_of(theirs: &str) -> Option<(&'static Rule, String)> {
    let rule = RULES.iter().find(|rule| rule.theirs == theirs).map(|rule| (rule, rule.ours.to_owned()));
    rule.or_else(|| {
        let (section, name) =
            theirs.rsplit_once('.').filter(|(section, _)| TOKEN_SECTIONS.contains(section))?;
        let rule = TOKEN_RULES.iter().find(|rule| rule.theirs == name)?;
        Some((rule, format!("{section}.{}", rule.ours)))
    })
}

pub(super) fn reason_of(theirs: &str) -> Option<&'static str> {
    let in_token_section = theirs.rsplit_once('.').filter(|(section, _)| TOKEN_SECTIONS.contains(section));
    let key = in_token_section.map_or(theirs, |(_, name)| name);
    LEFT_OUT.iter().find(|(left, _)| *left == key).map(|(_, reason)| *reason)
}

pub(super) const fn rule(theirs: &'static str, ours: &'static str, how: How) -> Rule {
    Rule { theirs, ours, how }
}

pub(super) const RULES: &[Rule] = &[
    rule("http_server.address", "server.address", Text),
    rule("http_server.port", "server.port", Number),
    rule("http_server.internal_address", "internal.address", Text),
    rule("http_server.internal_port", "internal.port", Number),
    rule("http_server.tls.cert_pem", "server.tls.certificate_file", Path),
    rule("http_server.tls.cert_pem_file", "server.tls.certificate_file", Path),
    rule("http_server.tls.key_pem", "server.tls.key_file", Path),
    rule("http_server.tls.key_pem_file", "server.tls.key_file", Path),
    rule("node.name", "server.name", Text),
    rule("client.connection_limit", "server.connections_max", Number),
    rule("client.connection_rate_limit", "server.connections_per_second_max", Number),
    rule("log.level", "log.level", Words(&[("fatal", "error"), ("none", "off")])),
    rule("engine.type", "engine.type", Text),
    rule("engine.redis.user", "engine.redis.username", Text),
    rule("engine.redis.password", "engine.redis.password", Text),
    rule("engine.redis.db", "engine.redis.database", Number),
    rule("engine.redis.prefix", "engine.redis.prefix", Text),
    rule("engine.redis.connect_timeout", "engine.redis.connect_timeout", Duration),
    rule("shutdown.timeout", "shutdown.timeout", Duration),
    rule("client.allowed_origins", "client.allowed_origins", Texts),
    rule("client.ping_interval", "client.ping_interval", Duration),
    rule("client.pong_timeout", "client.pong_timeout", Duration),
    rule("client.stale_close_delay", "client.stale_close_delay", Duration),
    rule("client.expired_close_delay", "client.expired_close_delay", Duration),
    rule("client.expired_sub_close_delay", "client.expired_subscription_close_delay", Duration),
    rule("client.channel_limit", "client.subscriptions_max", Number),
    rule("client.queue_max_size", "client.queue_bytes_max", Bytes),
    rule("client.history_max_publication_limit", "client.history_page_max", Number),
    rule("client.recovery_max_publication_limit", "client.recovery_max", Number),
    rule("client.user_connection_limit", "client.user_connections_max", Number),
    rule("client.connect_include_server_time", "client.include_server_time", Flag),
    rule(
        "client.allow_anonymous_connect_without_token",
        "client.allow_anonymous_connect_without_token",
        Flag,
    ),
    rule("client.disallow_anonymous_connection_tokens", "client.disallow_anonymous_connection_tokens", Flag),
    rule("client.insecure", "client.insecure", Flag),
    rule("client.insecure_skip_token_signature_verify", "client.token.insecure_skip_signature", Flag),
    rule("client.subscription_token.enabled", "client.subscription_token.enabled", Flag),
    rule("client.subscribe_to_user_personal_channel.enabled", "client.personal_topic.enabled", Flag),
    rule(
        "client.subscribe_to_user_personal_channel.personal_channel_namespace",
        "client.personal_topic.namespace",
        Text,
    ),
    rule(
        "client.subscribe_to_user_personal_channel.single_connection",
        "client.personal_topic.single_connection",
        Flag,
    ),
    rule("rpc.ping.enabled", "client.rpc_ping.enabled", Flag),
    rule("rpc.ping.method", "client.rpc_ping.method", Text),
    rule("rpc.namespace_boundary", "rpc.namespace_boundary", Text),
    rule("websocket.handler_prefix", "websocket.path", Text),
    rule("websocket.message_size_limit", "websocket.message_bytes_max", Bytes),
    rule("websocket.compression", "websocket.deflate.enabled", Flag),
    rule("websocket.compression_level", "websocket.deflate.level", Number),
    rule("websocket.compression_min_size", "websocket.deflate.min_bytes", Bytes),
    rule("http_stream.enabled", "http_stream.enabled", Flag),
    rule("http_stream.handler_prefix", "http_stream.path", Text),
    rule("http_stream.max_request_body_size", "http_stream.body_bytes_max", Bytes),
    rule("sse.enabled", "sse.enabled", Flag),
    rule("sse.handler_prefix", "sse.path", Text),
    rule("sse.max_request_body_size", "sse.body_bytes_max", Bytes),
    rule("emulation.handler_prefix", "emulation.path", Text),
    rule("emulation.max_request_body_size", "emulation.body_bytes_max", Bytes),
    rule("uni_websocket.enabled", "uni_websocket.enabled", Flag),
    rule("uni_websocket.handler_prefix", "uni_websocket.path", Text),
    rule("uni_http_stream.enabled", "uni_http_stream.enabled", Flag),
    rule("uni_http_stream.handler_prefix", "uni_http_stream.path", Text),
    rule("uni_http_stream.max_request_body_size", "uni_http_stream.body_bytes_max", Bytes),
    rule("uni_sse.enabled", "uni_sse.enabled", Flag),
    rule("uni_sse.handler_prefix", "uni_sse.path", Text),
    rule("uni_sse.max_request_body_size", "uni_sse.body_bytes_max", Bytes),
    rule("init.enabled", "probe.enabled", Flag),
    rule("init.handler_prefix", "probe.path", Text),
    rule("http_api.handler_prefix", "api.path", Text),
    rule("http_api.key", "api.keys", OneOf),
    rule("http_api.insecure", "api.insecure", Flag),
    rule("http_api.error_mode", "api.error_mode", Text),
    rule("channel.max_length", "topics.length_max", Number),
    rule("channel.private_prefix", "topics.private_prefix", Text),
    rule("channel.namespace_boundary", "topics.namespace_boundary", Text),
    rule("channel.user_boundary", "topics.user_boundary", Text),
    rule("channel.user_separator", "topics.user_separator", Text),
    rule("channel.history_meta_ttl", "topics.history_meta_ttl", Duration),
    rule("channel.publication_data_format", "topics.publication_format", Text),
];

/// Inside `client.token` and `client.subscription_token`.
pub(super) const TOKEN_RULES: &[Rule] = &[
    rule("hmac_secret_key", "hmac_secret", Text),
    rule("hmac_previous_secret_key", "hmac_previous_secret", Text),
    rule("hmac_previous_secret_key_valid_until", "hmac_previous_secret_valid_until", Number),
    rule("rsa_public_key", "rsa_public_key", Pem),
    rule("ecdsa_public_key", "ecdsa_public_key", Pem),
    rule("jwks_public_endpoint", "jwks_url", Text),
    rule("audience", "audience", Text),
    rule("audience_regex", "audience_regex", Text),
    rule("issuer", "issuer", Text),
    rule("issuer_regex", "issuer_regex", Text),
    rule("user_id_claim", "user_claim", Text),
];

/// Inside `channel.without_namespace` and each of `channel.namespaces`.
pub(super) const NAMESPACE_RULES: &[Rule] = &[
    rule("name", "name", Text),
    rule("allow_tags_filter", "allow_tags_filter", Flag),
    rule("presence", "presence", Flag),
    rule("join_leave", "join_leave", Flag),
    rule("force_push_join_leave", "force_push_join_leave", Flag),
    rule("history_size", "history_size", Number),
    rule("history_ttl", "history_ttl", Duration),
    rule("history_meta_ttl", "history_meta_ttl", Duration),
    rule("force_positioning", "force_positioning", Flag),
    rule("allow_positioning", "allow_positioning", Flag),
    rule("force_recovery", "force_recovery", Flag),
    rule("allow_recovery", "allow_recovery", Flag),
    rule("force_recovery_mode", "recovery_mode", Text),
    rule("auto_cache_recover", "auto_cache_recover", Flag),
    rule("allow_subscribe_for_client", "allow_subscribe_for_client", Flag),
    rule("allow_subscribe_for_anonymous", "allow_subscribe_for_anonymous", Flag),
    rule("allow_publish_for_client", "allow_publish_for_client", Flag),
    rule("allow_publish_for_subscriber", "allow_publish_for_subscriber", Flag),
    rule("allow_publish_for_anonymous", "allow_publish_for_anonymous", Flag),
    rule("allow_presence_for_client", "allow_presence_for_client", Flag),
    rule("allow_presence_for_subscriber", "allow_presence_for_subscriber", Flag),
    rule("allow_presence_for_anonymous", "allow_presence_for_anonymous", Flag),
    rule("allow_history_for_client", "allow_history_for_client", Flag),
    rule("allow_history_for_subscriber", "allow_history_for_subscriber", Flag),
    rule("allow_history_for_anonymous", "allow_history_for_anonymous", Flag),
    rule("allow_user_limited_channels", "allow_user_limited_topics", Flag),
    rule("channel_regex", "topic_regex", Text),
    rule("publication_data_format", "publication_format", Text),
];

const ENGINES: &str = "one engine does everything: set engine.type";
const ONE_SERVER: &str = "Redis is one server; Sentinel and Cluster are not supported yet";
const REDIS_TLS: &str = "connections to Redis are not encrypted yet";
const LEASE: &str = "presence lasts as long as the node's lease: engine.redis.lease";
const STREAMS: &str = "subscriptions are not streams of a backend";
const KINDS: &str = "map and shared-poll topics are not there yet";
const DELTAS: &str = "publications are always sent whole";
const TLS: &str = "TLS is for the client port, with files: server.tls; put a proxy in front for more";
const HTTP: &str = "HTTP/2 is spoken on TLS, by server.tls.http2; put a proxy in front for HTTP/3";
const CLIENT_CERTIFICATES: &str = "clients authenticate with tokens only";
const TRANSPORTS: &str = "clients connect by WebSocket, [http_stream] or [sse]";
const REFUSED_IN_THE_STREAM: &str = "a refused connect is told in the stream";
const AS_WEBSOCKET: &str = "limits and compression are those of [websocket]";
const SLOW_CLIENTS: &str = "client.queue_bytes_max and pings find slow clients";
const GOODBYE: &str = "clients are always told why they are closed";
const BY_ITSELF: &str = "the server arranges this by itself";

/// Keys and whole sections without a counterpart.
const LEFT_OUT: &[(&str, &str)] = &[
    ("engine.redis.cluster_address", ONE_SERVER),
    ("engine.redis.sentinel_address", ONE_SERVER),
    ("engine.redis.sentinel_user", ONE_SERVER),
    ("engine.redis.sentinel_password", ONE_SERVER),
    ("engine.redis.sentinel_master_name", ONE_SERVER),
    ("engine.redis.sentinel_client_name", ONE_SERVER),
    ("engine.redis.sentinel_tls", ONE_SERVER),
    ("engine.redis.replica_client", ONE_SERVER),
    ("engine.redis.tls", REDIS_TLS),
    ("engine.redis.io_timeout", "engine.redis.answer_timeout goes with the lease; see both"),
    ("engine.redis.client_name", BY_ITSELF),
    ("engine.redis.force_resp2", "Redis is always used with RESP3"),
    ("engine.redis.history_use_lists", "history is always kept in streams"),
    ("engine.redis.presence_ttl", LEASE),
    ("engine.redis.presence_hash_field_ttl", LEASE),
    ("engine.redis.presence_user_mapping", BY_ITSELF),
    ("broker", ENGINES),
    ("presence_manager", ENGINES),
    ("map_broker", ENGINES),
    ("controller", ENGINES),
    ("shared_poll", KINDS),
    ("http_server.tls.client_ca_pem", CLIENT_CERTIFICATES),
    ("http_server.tls.client_ca_pem_file", CLIENT_CERTIFICATES),
    ("http_server.tls.server_ca_pem", CLIENT_CERTIFICATES),
    ("http_server.tls.server_ca_pem_file", CLIENT_CERTIFICATES),
    ("http_server.tls.server_name", CLIENT_CERTIFICATES),
    ("http_server.tls.insecure_skip_verify", CLIENT_CERTIFICATES),
    ("http_server.tls_autocert", TLS),
    ("http_server.tls_external", TLS),
    ("http_server.internal_tls", TLS),
    ("http_server.http3", HTTP),
    ("http_server.h2c_external", HTTP),
    ("http_server.external_http2_extended_connect", HTTP),
    ("webtransport", TRANSPORTS),
    ("uni_websocket.compression", AS_WEBSOCKET),
    ("uni_websocket.compression_min_size", AS_WEBSOCKET),
    ("uni_websocket.compression_level", AS_WEBSOCKET),
    ("uni_websocket.message_size_limit", AS_WEBSOCKET),
    ("uni_websocket.read_buffer_size", BY_ITSELF),
    ("uni_websocket.write_buffer_size", BY_ITSELF),
    ("uni_websocket.use_write_buffer_pool", BY_ITSELF),
    ("uni_websocket.write_timeout", SLOW_CLIENTS),
    ("uni_websocket.join_push_messages", "each push is a message of its own"),
    ("uni_websocket.disable_disconnect_push", GOODBYE),
    ("uni_websocket.disable_closing_handshake", GOODBYE),
    ("uni_grpc", "one-way clients connect by HTTP: [uni_http_stream], [uni_sse], [uni_websocket]"),
    ("uni_sse.connect_code_to_http_response", REFUSED_IN_THE_STREAM),
    ("uni_http_stream.connect_code_to_http_response", REFUSED_IN_THE_STREAM),
    (
        "client.connect_code_to_unidirectional_disconnect",
        "a refused connect ends the stream with a code of its own",
    ),
    ("websocket.disabled", "WebSocket is always on"),
    (
        "websocket.decompressed_message_size_limit",
        "websocket.message_bytes_max bounds messages before and after",
    ),
    ("websocket.read_buffer_size", BY_ITSELF),
    ("websocket.write_buffer_size", BY_ITSELF),
    ("websocket.use_write_buffer_pool", BY_ITSELF),
    ("websocket.write_timeout", SLOW_CLIENTS),
    ("client.presence_update_interval", BY_ITSELF),
    ("client.channel_position_check_delay", BY_ITSELF),
    ("client.channel_position_max_time_lag", BY_ITSELF),
    ("client.concurrency", "commands of one client keep their order"),
    ("client.user_id_http_header", "users are known by their token only"),
    ("insecure_skip_jwks_endpoint_safety_check", "jwks_url takes no groups before its path"),
    ("http_api.disabled", "without api.keys nobody can call the API"),
    ("grpc_api", "the API is HTTP only"),
    ("consumers", "there are no consumers of message queues yet"),
    ("admin", "there is no administration page yet"),
    ("swagger", "there is no page for the API yet"),
    ("debug", "there is no profiling route"),
    ("prometheus", "metrics are always on at /metrics of the internal port"),
    ("health", "health is always on at /livez and /readyz of the internal port"),
    ("graphite", "metrics are for Prometheus only"),
    ("opentelemetry", "there are no traces yet"),
    ("usage_stats", "no usage statistics are sent"),
    ("log.file", "logs go to standard output"),
    ("node.info_metrics_aggregate_interval", "the API's info has no metrics"),
    ("pid_file", "leave that to the service manager"),
    ("enable_unreleased_features", "there are no unreleased features"),
];

/// Options of namespaces without a counterpart.
pub(super) const NAMESPACE_LEFT_OUT: &[(&str, &str)] = &[
    ("allowed_delta_types", DELTAS),
    ("delta_publish", DELTAS),
    ("subscribe_stream_proxy_enabled", STREAMS),
    ("subscribe_stream_proxy_name", STREAMS),
    ("subscribe_stream_proxy_bidirectional", STREAMS),
    ("subscription_type", KINDS),
    ("map", KINDS),
    ("map_clients_presence_channel_prefix", KINDS),
    ("map_users_presence_channel_prefix", KINDS),
    ("shared_poll", KINDS),
];
