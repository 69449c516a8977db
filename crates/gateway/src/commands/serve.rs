//! `fanwire serve`: starts a node, waits for a signal, closes it.

use std::io::IsTerminal;
use std::net::SocketAddr;

use fanwire_server::settings::ShutdownSettings;
use fanwire_server::{ServedEndpoint, Settings};
use figment::value::Value;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::cli::Serve;
use crate::config::{Flag, Loaded, Log, LogFormat, Sources, load};
use crate::failure::{Failure, listed};
use crate::output::{self, LogStyle, Output, complain, say};

pub(crate) fn run(arguments: Serve) -> Result<(), Failure> {
    let is_dev = arguments.dev;
    let outputs = output::queue(Log::default().queue_bytes_max.0)?;
    let (result, warnings) = load(sources(arguments));
    let mut loaded = match result {
        Ok(loaded) => loaded,
        Err(problems) => {
            for warning in &warnings {
                complain(format!("warning: {warning}"));
            }
            return Err(Failure::Usage(listed("The configuration is wrong:", &problems)));
        }
    };
    start_log(&loaded.config.log, &outputs.stdout)?;
    for warning in &warnings {
        warn!("{warning}");
    }
    raise_file_limit(&mut loaded.settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(loaded, is_dev))
}

fn sources(arguments: Serve) -> Sources {
    let flag =
        |name, section, key, value: Option<Value>| value.map(|value| Flag { name, section, key, value });
    let flags = [
        flag("--port", "server", "port", arguments.port.map(Value::from)),
        flag("--internal-port", "internal", "port", arguments.internal_port.map(Value::from)),
        flag("--address", "server", "address", arguments.address.map(|address| address.to_string().into())),
        flag("--shards", "server", "shards", arguments.shards.map(Value::from)),
        flag("--log-level", "log", "level", arguments.log_level.map(Value::from)),
        flag("--log-format", "log", "format", arguments.log_format.map(Value::from)),
    ];
    Sources {
        dev: arguments.dev,
        files: arguments.config,
        environment: std::env::vars_os().collect(),
        flags: flags.into_iter().flatten().collect(),
    }
}

/// Returns when all clients are closed after a signal, or at a second signal.
async fn serve(loaded: Loaded, is_dev: bool) -> Result<(), Failure> {
    let catch =
        |kind| signal(kind).map_err(|error| Failure::Run(format!("cannot wait for signals: {error}")));
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    // Without a certificate to reload, SIGHUP ends the program, as is its default.
    let mut hangup = loaded.settings.tls.is_some().then(|| catch(SignalKind::hangup())).transpose()?;

    let settings = loaded.settings;
    let ShutdownSettings { propagation, window, timeout } = settings.shutdown;
    let opened = is_dev.then(|| Opened::of(&settings));
    let mut running = fanwire_server::start(settings).map_err(|error| Failure::Run(error.to_string()))?;
    info!(clients = %running.client_address(), internal = %running.internal_address(), "ready");
    if let Some(opened) = opened {
        say(opened.banner(running.client_address(), running.internal_address()))?;
    }

    let name = loop {
        tokio::select! {
            name = either(&mut terminate, &mut interrupt) => break name,
            () = received(&mut hangup) => running.reload_certificate(),
            failed = running.failed() => return Err(Failure::Run(failed.to_string())),
        }
    };
    info!(signal = name, ?propagation, ?window, ?timeout, "shutting down; a second signal stops immediately");
    tokio::select! {
        () = running.shutdown() => {
            info!("stopped");
            Ok(())
        }
        name = either(&mut terminate, &mut interrupt) => {
            warn!(signal = name, "stopped immediately");
            Err(Failure::Reported)
        }
    }
}

/// Cancel-safe, as `Signal::recv` is.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Cancel-safe, as `Signal::recv` is.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn start_log(log: &Log, output: &Output) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .parse(&log.level)
        .map_err(|error| Failure::Usage(format!("log.level: {error}")))?;
    let is_terminal = std::io::stdout().is_terminal();
    let style = match log.format {
        LogFormat::Text | LogFormat::Auto if is_terminal => LogStyle::Coloured,
        LogFormat::Text => LogStyle::Text,
        LogFormat::Auto | LogFormat::Json => LogStyle::Json,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output.log(log.queue_bytes_max.0, style));
    match style {
        LogStyle::Coloured => builder.with_ansi(true).init(),
        LogStyle::Text => builder.with_ansi(false).init(),
        LogStyle::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one: containers often start with 1024, and every client needs a
/// file.
fn raise_file_limit(settings: &mut Settings) -> Result<(), Failure> {
    let before = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum });
    let limit = if raised.is_ok() { before.maximum } else { before.current };
    settings.files_max = limit;
    let (Some(limit), Some(possible)) = (limit, settings.clients_possible()) else {
        info!(before = before.current, now = "none", "limit of open files");
        return Ok(());
    };
    let wanted = settings.admission.connections_max;
    info!(before = before.current, now = limit, connections_max = possible, "limit of open files");
    match possible {
        0 => Err(Failure::Usage(format!(
            "this process may open {limit} files, which leaves none for clients; raise the limit (ulimit -Hn)"
        ))),
        _ if wanted > possible => Err(Failure::Usage(format!(
            "server.connections_max: {wanted} is too high for the {limit} files that this process may open: they are \
             enough for {possible} connections; raise the limit (ulimit -Hn) or lower the setting"
        ))),
        _ => Ok(()),
    }
}

/// Everything that `--dev` opens, as the final settings have it.
struct Opened {
    open: Vec<&'static str>,
    /// Title, scheme, and path with query of each endpoint to try.
    endpoints: Vec<(&'static str, &'static str, String)>,
    api_path: String,
    api_on_client_port: bool,
    api_needs_key: bool,
    is_encrypted: bool,
}

impl Opened {
    fn of(settings: &Settings) -> Self {
        let allows = |origin: &str| settings.origins.allowed.iter().any(|allowed| allowed == origin);
        let open = [
            (allows("*"), "every web page may connect"),
            (allows("http://localhost:*"), "web pages of this machine may connect"),
            (settings.client.insecure, "clients need no token and may do everything"),
            (settings.api.insecure, "the API needs no key"),
            (settings.dev.is_some(), "the page hands out tokens for any name"),
        ];
        Self {
            open: open.into_iter().filter_map(|(is_open, text)| is_open.then_some(text)).collect(),
            endpoints: settings.endpoints().filter_map(example).collect(),
            api_path: settings.api.path.clone(),
            api_on_client_port: settings.api.on_client_port,
            api_needs_key: !settings.api.insecure,
            is_encrypted: settings.tls.is_some(),
        }
    }

    fn banner(&self, clients: SocketAddr, internal: SocketAddr) -> String {
        let api = if self.api_on_client_port { clients } else { internal };
        let key = if self.api_needs_key { " -H 'X-API-Key: YOUR_KEY'" } else { "" };
        let s = if self.is_encrypted { "s" } else { "" };
        let api_s = if self.api_on_client_port { s } else { "" };
        let endpoints: String = self
            .endpoints
            .iter()
            .map(|(title, scheme, target)| format!("    {title:<11}  {scheme}{s}://{clients}{target}\n"))
            .collect();
        let open: String = self.open.iter().map(|text| format!("    · {text}\n")).collect();
        format!(
            "
  Fanwire {version}, for development

    Page         http{s}://{clients}/
{endpoints}    Metrics      http://{internal}/metrics

  Open to this machine only:
{open}
  Publish to the lobby:

    curl http{api_s}://{api}{path}/publish{key} -d '{{\"channel\":\"chat:lobby\",\"data\":{{\"text\":\"Hello from curl\"}}}}'
",
            version = env!("CARGO_PKG_VERSION"),
            path = self.api_path,
        )
    }
}

/// Returns title, scheme, and path with query of an endpoint that a developer can try.
fn example(served: ServedEndpoint<'_>) -> Option<(&'static str, &'static str, String)> {
    let (title, scheme, query) = served.endpoint.example()?;
    Some((title, scheme, format!("{}{query}", served.path)))
}
