//! Running a node: from its configuration to a clean end.

use std::fmt;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use towline::{Engine, NoHook, Node, NodeConfig, PromotionHook};
use towline_engine::Store;
use towline_wal::Role;

use crate::config::Config;
use crate::hook::ExecutableHook;
use crate::listener;
use crate::server::Server;

/// The folder of the engine's state below a node's data folder.
pub const ENGINE_DIR: &str = "engine";

/// The role a person expects a node to be in. The role itself is state on disk, written by
/// `towline init` and by every promotion: a node that is started as the other one says so, and does
/// what its disk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialRole {
    /// It leads.
    Primary,
    /// It follows.
    Replica,
}

impl fmt::Display for InitialRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        })
    }
}

/// Why a node did not start, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StartError {
    what: String,
}

impl StartError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// Runs a node until it is told to stop. What goes wrong is said on standard error.
#[must_use]
pub fn run_node(role: InitialRole, config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("towline: the threads of the node could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(role, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(role: InitialRole, config: Config) -> Result<(), StartError> {
    let mut stop = Stop::new()?;
    tracing::info!(node = %config.node, cluster = config.cluster, %role, "starting");
    let listener = TcpListener::bind(config.resp).await.map_err(|error| {
        StartError::new(format!(
            "clients cannot connect to {}: {error}; free the port or change listen.resp in {}",
            config.resp,
            config.path.display()
        ))
    })?;
    say_role(role, &config);
    let address = listener.local_addr().unwrap_or(config.resp);
    let unfit = |error: towline::NodeError| {
        StartError::new(format!("{}: {error}", config.data_dir.display()))
    };
    // Before the engine makes its files: a folder that is not this node's stays as it is.
    Node::check_folder(&node_config(&config)).map_err(unfit)?;
    let store = open_store(&config)?;
    let engine: Arc<dyn Engine> = Arc::clone(&store) as Arc<dyn Engine>;
    let node = tokio::select! {
        node = Node::start(node_config(&config), engine, hook(&config)) => node.map_err(unfit)?,
        () = stop.requested() => return Ok(()),
    };
    let server = Arc::new(Server::new(node.clone(), store, config, address));
    let (stop_listening, stopped) = watch::channel(false);
    let effects = Arc::clone(&server);
    let dropper = tokio::spawn(async move { effects.write_path.drop_effects_on_demotion().await });
    let clients = tokio::spawn(listener::listen(listener, Arc::clone(&server), stopped));
    announce(&server);
    stop.requested().await;
    tracing::info!("stopping");
    // Whoever listens may be gone already; then there is nobody to tell.
    let _ = stop_listening.send(true);
    if let Err(error) = clients.await {
        tracing::error!("the clients' port ended badly: {error}");
    }
    dropper.abort();
    node.shutdown().await;
    tracing::info!("stopped");
    Ok(())
}

/// The role is state on disk: what is asked for here only says what a person expects.
fn say_role(asked: InitialRole, config: &Config) {
    let logs = config.data_dir.join("logs");
    // A folder without a log is an error of the node's, which says what to do.
    for log in logs.read_dir().into_iter().flatten().flatten() {
        let role = match towline_wal::read_control(&log.path()) {
            Ok(control) if control.role == Role::Primary => InitialRole::Primary,
            Ok(_) => InitialRole::Replica,
            Err(_) => continue,
        };
        if role != asked {
            tracing::warn!(
                "started as a {asked}, but {} is a {role}'s: the folder decides. towline \
                 failover changes who leads",
                log.path().display()
            );
        }
    }
}

fn open_store(config: &Config) -> Result<Arc<Store>, StartError> {
    let path = config.data_dir.join(ENGINE_DIR);
    let store = Store::open(&path)
        .map_err(|error| StartError::new(format!("{}: {error}", path.display())))?;
    Ok(Arc::new(store))
}

fn hook(config: &Config) -> Arc<dyn PromotionHook> {
    match &config.promotion_hook {
        Some(path) => Arc::new(ExecutableHook::new(path.clone())),
        None => Arc::new(NoHook),
    }
}

fn node_config(config: &Config) -> NodeConfig {
    NodeConfig {
        cluster: config.cluster.clone(),
        node: config.node,
        data_dir: config.data_dir.clone(),
        listen: config.repl,
        peers: config.peers.clone(),
        tls: config.tls.clone(),
        heartbeat: config.timing.heartbeat,
        commit_timeout: config.timing.commit_timeout,
        candidate_deadline: config.timing.candidate_deadline,
        hook_deadline: config.timing.hook_deadline,
        upkeep: config.upkeep,
    }
}

/// The one line on standard output, for whoever started this process.
fn announce(server: &Server) {
    println!(
        "towline: node {} of {} is ready: clients {}, replication {}, folder {}",
        server.config.node,
        server.config.cluster,
        server.address,
        server.config.repl,
        server.config.data_dir.display()
    );
}

/// The signals that ask a process to end.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, StartError> {
        let listen = |kind| {
            signal(kind).map_err(|error: io::Error| {
                StartError::new(format!("signals cannot be received: {error}"))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
