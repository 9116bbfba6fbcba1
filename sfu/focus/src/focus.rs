//! A focus from its start to its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use weir_core::TransportContext;
use weir_livekit::token::Keys;
use weir_livekit::{IceServer, Limits, RoomConfig, Server, ServerConfig};
use weir_matrix::keys::TokenKey;
use weir_negotiation::{Candidate, Protocol};
use weir_udp::SocketOptions;

use crate::admin::{self, Admin, ShardCollector};
use crate::config::{self, Config, ConfigError, Membership};
use crate::plane::ForwardingPlane;
use crate::shards::{OnFailure, Shards};
use crate::{addresses, ice_tcp, matrix, open_files};

/// Threads for signalling. Media has its own.
const CONTROL_THREADS: usize = 2;

/// By then clients of a focus that was restarted are back, or have given up: they try for about as long.
const SETTLING: Duration = Duration::from_secs(30);

/// Where a started focus listens.
pub struct Started {
    pub http: SocketAddr,
    pub admin: Option<SocketAddr>,
    /// Where clients are told that media arrive; at least one.
    pub media: Vec<IpAddr>,
}

impl Started {
    /// An address that a client can connect to, even if we listen on all.
    pub fn reachable_http(&self) -> SocketAddr {
        match self.media.first().filter(|_| self.http.ip().is_unspecified()) {
            Some(address) => SocketAddr::new(*address, self.http.port()),
            None => self.http,
        }
    }
}

/// Runs until a signal, and then until everybody has left or the deadline has passed.
pub fn run(config: Config, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let result = runtime.block_on(serve(config, started));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Complains of what the start would complain of, as far as that can be told without taking a port that is configured,
/// writing a file or asking a homeserver.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let addresses = addresses::find(&config.media)?;
    let listeners = [("http.bind", config.http.bind), ("admin.bind", config.admin.bind)];
    let media =
        addresses.bind.iter().map(|ip| ("media.udp_port", SocketAddr::new(*ip, config.media.udp_port)));
    for (key, address) in listeners.into_iter().chain(media) {
        // Some free port: the one that is configured may have a focus that runs.
        std::net::UdpSocket::bind((address.ip(), 0)).map_err(|error| cannot_bind(key, address, &error))?;
    }
    Ok(matrix::check(&config.matrix)?)
}

async fn serve(config: Config, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
    let http = listen("http.bind", config.http.bind).await?;
    let admin_listener = match config.admin.bind.port() {
        0 => None,
        _ => Some(listen("admin.bind", config.admin.bind).await?),
    };
    let addresses = addresses::find(&config.media)?;
    let tcp_listeners = bind_tcp(&config, &addresses).await?;
    let context = Arc::new(TransportContext::generate().context("no certificate could be made")?);
    let (failed_in, mut failed) = mpsc::channel(1);
    let on_failure: OnFailure = Arc::new(move |shard| {
        let _ = failed_in.try_send(shard);
    });
    let shards = start_shards(&config, &addresses, &context, &on_failure)?;
    let candidates = candidates(&config, &addresses);
    let registry = prometheus::Registry::new();
    registry.register(Box::new(ShardCollector::new(shards.handles.clone())?))?;
    registry.register(Box::new(admin::build_info()?))?;
    let admin = Admin::new(registry.clone(), shards.handles.clone());
    let plane = ForwardingPlane::new(Arc::clone(&shards), context.fingerprint(), candidates.clone());
    let started_at = Started {
        http: http.local_addr()?,
        admin: admin_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
        media: addresses.announce.clone(),
    };
    let token_key = matrix::token_key(&config.matrix)?;
    let keys = keys(&config, token_key.as_ref());
    let foundation = matrix::found(&config, &registry).await?;
    let supervision = foundation.as_ref().map(matrix::Foundation::supervision).unwrap_or_default();
    let server = Server::new(server_config(&config, keys.clone()), Arc::new(plane), supervision, &registry)?;
    let reachable = started_at.reachable_http();
    let router = match foundation {
        Some(foundation) => {
            foundation.serve(&config.matrix, token_key, keys, reachable, &server, &registry)?
        }
        None => server.router(),
    };
    let connections = ice_tcp::Connections::default();
    for listener in tcp_listeners {
        tokio::spawn(ice_tcp::serve(listener, Arc::clone(&shards), connections.clone()));
    }
    if let Some(listener) = admin_listener {
        let router = admin.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    tokio::spawn(weir_livekit::server::serve(http, router));
    admin.ready.store(true, Ordering::SeqCst);
    let announced: Vec<String> = candidates.iter().map(|candidate| candidate.address.to_string()).collect();
    let of_matrix = config.matrix.is_on().then_some(&config.matrix);
    if of_matrix
        .is_some_and(|matrix| matrix.membership != Membership::Off && matrix.sees_rooms_as() == "nothing")
    {
        tracing::warn!(
            "membership is not checked: the focus sees no Matrix room, so whoever knows a room's id may join its call. \
             [matrix.appservice] or [matrix.user] lets it see rooms; matrix.membership = \"off\" says that it need not"
        );
    }
    tracing::info!(
        http = %started_at.http, media = announced.join(" "), shards = shards.handles.len(),
        server_name = of_matrix.map(|matrix| matrix.server_name.as_str()),
        url = of_matrix.map(|matrix| matrix::url(matrix, reachable)),
        membership = of_matrix.map(|matrix| matrix.membership.name()),
        sees_rooms_as = of_matrix.map(config::Matrix::sees_rooms_as),
        "started"
    );
    started(&started_at);

    let mut signals = Signals::new()?;
    let failed_shard = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "shutting down");
            None
        }
        shard = failed.recv() => shard,
    };
    admin.ready.store(false, Ordering::SeqCst);
    let deadline = Duration::from_secs(config.shutdown.deadline_seconds.into());
    tokio::select! {
        () = server.shutdown(deadline) => {}
        _ = signals.next() => tracing::warn!("a second signal: ending at once"),
    }
    shards.stop();
    match failed_shard {
        Some(shard) => anyhow::bail!("shard {shard} failed; its log says why"),
        None => Ok(()),
    }
}

async fn listen(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| cannot_bind(key, address, &error).into())
}

fn cannot_bind(key: &str, address: SocketAddr, error: &std::io::Error) -> ConfigError {
    // The address is wrong then, whichever port was tried on it first.
    let is_elsewhere = error.kind() == std::io::ErrorKind::AddrNotAvailable && key.starts_with("media.");
    let (key, value) = match is_elsewhere {
        true => ("media.bind", address.ip().to_string()),
        false => (key, address.to_string()),
    };
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "stop what listens there (perhaps another weir), or choose another port"
        }
        std::io::ErrorKind::AddrNotAvailable => "choose an address that this machine has",
        std::io::ErrorKind::PermissionDenied => "choose a port above 1023, or give weir CAP_NET_BIND_SERVICE",
        _ => "choose another address or port",
    };
    ConfigError::Value { key: key.to_owned(), value, problem: error.to_string(), remedy: remedy.to_owned() }
}

async fn bind_tcp(config: &Config, addresses: &addresses::Addresses) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    if config.media.tcp_port != 0 {
        for address in &addresses.bind {
            listeners.push(listen("media.tcp_port", SocketAddr::new(*address, config.media.tcp_port)).await?);
        }
    }
    Ok(listeners)
}

fn start_shards(
    config: &Config,
    addresses: &addresses::Addresses,
    context: &Arc<TransportContext>,
    on_failure: &OnFailure,
) -> anyhow::Result<Arc<Shards>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = match config.media.shards {
        0 => cores.min(usize::from(weir_core::shard::MAX_SHARDS)),
        shards => usize::from(shards),
    };
    let bind: Vec<SocketAddr> =
        addresses.bind.iter().map(|address| SocketAddr::new(*address, config.media.udp_port)).collect();
    // Sharing the port among our own threads would also share it with a second focus: found out here.
    let options = SocketOptions {
        reuse_port: false,
        receive_buffer: Some(config.media.receive_buffer_bytes),
        send_buffer: Some(config.media.send_buffer_bytes),
    };
    for (at, address) in bind.iter().enumerate() {
        let socket = weir_udp::UdpSocket::bind(*address, options)
            .map_err(|error| cannot_bind("media.udp_port", *address, &error))?;
        if at == 0 {
            warn_of_small_buffers(&config.media, &socket);
        }
    }
    Ok(Arc::new(Shards::start(
        &bind,
        options,
        context,
        (config.media.rate_control, &seeds(shards)),
        on_failure,
    )?))
}

/// The kernel cuts buffers to its own limits without a word.
fn warn_of_small_buffers(media: &config::Media, socket: &weir_udp::UdpSocket) {
    let Ok((receive, send)) = socket.buffers() else { return };
    for (key, sysctl, asked, got) in [
        ("media.receive_buffer_bytes", "net.core.rmem_max", media.receive_buffer_bytes, receive),
        ("media.send_buffer_bytes", "net.core.wmem_max", media.send_buffer_bytes, send),
    ] {
        if got < asked {
            tracing::warn!(
                key,
                asked,
                got,
                "the kernel cuts a buffer of media sockets: packets are lost in bursts. `sysctl -w {sysctl}={asked}` lets it be"
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "here the randomness is drawn that shards are passed")]
fn seeds(shards: usize) -> Vec<u64> {
    let mut rng = rand::rng();
    (0..shards).map(|_| rng.random()).collect()
}

/// UDP before TCP: a client tries both, and prefers the first.
fn candidates(config: &Config, addresses: &addresses::Addresses) -> Vec<Candidate> {
    let of = |protocol, port| {
        let announce = addresses.announce.iter().map(move |address| SocketAddr::new(*address, port));
        announce.map(move |address| Candidate { protocol, address })
    };
    let tcp = (config.media.tcp_port != 0).then(|| of(Protocol::TcpPassive, config.media.tcp_port));
    of(Protocol::Udp, config.media.udp_port).chain(tcp.into_iter().flatten()).collect()
}

fn server_config(config: &Config, keys: Keys) -> ServerConfig {
    let ice_servers = config.ice_servers.iter().map(|server| IceServer {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.clone(),
    });
    ServerConfig {
        auto_create: config.auto_create(),
        settling: SETTLING,
        room: RoomConfig {
            keys,
            limits: Limits {
                participants: config.limits.participants_per_room,
                tracks: config.limits.tracks_per_participant,
                metadata: config.limits.metadata_bytes,
                attributes: config.limits.attributes_bytes,
                ..Limits::default()
            },
            ice_servers: ice_servers.collect(),
            empty_timeout: Duration::from_secs(config.room.empty_timeout_seconds.into()),
            departure_timeout: Duration::from_secs(config.room.departure_timeout_seconds.into()),
            region: config.node.region.clone(),
            node_id: config.node.id.clone(),
        },
    }
}

/// The operator's own first: the first signs where nothing is said.
fn keys(config: &Config, made: Option<&TokenKey>) -> Keys {
    let made = made.map(|key| (key.name.clone(), key.secret.clone()));
    Keys::new(config.keys.clone().into_iter().chain(made))
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
