//! redis-server, as durable as it gets, with one replica.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cluster::free_tcp;
use crate::process::{Folder, Running, sleep};
use crate::resp::{Reply, Resp};

/// How long the two may take to come up and meet.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A primary and its replica. They end with this handle.
pub(super) struct Rival {
    primary: SocketAddr,
    _running: [Running; 2],
}

impl Rival {
    pub(super) fn start(folder: &Folder) -> Result<Self> {
        let (primary, replica) = (free_tcp()?, free_tcp()?);
        let running = [
            serve(folder, "redis-primary", primary, None)?,
            serve(folder, "redis-replica", replica, Some(primary))?,
        ];
        let rival = Self { primary, _running: running };
        let started = Instant::now();
        while let Err(why) = rival.is_open() {
            if started.elapsed() > START_LIMIT {
                return Err(why);
            }
            sleep(Duration::from_millis(50))?;
        }
        Ok(rival)
    }

    pub(super) fn primary(&self) -> SocketAddr {
        self.primary
    }

    fn is_open(&self) -> Result<()> {
        let mut resp = Resp::connect(self.primary, Duration::from_secs(2))?;
        resp.call(&["SET", "xtask:open", "1"])?;
        let met = resp.call(&["WAIT", "1", "500"])?;
        if met != Reply::Text("1".to_owned()) {
            bail!("its replica does not follow: WAIT answered {met:?}");
        }
        Ok(())
    }
}

fn serve(
    folder: &Folder,
    name: &str,
    address: SocketAddr,
    primary: Option<SocketAddr>,
) -> Result<Running> {
    let own = folder.path().join(name);
    std::fs::create_dir_all(&own)?;
    let mut command = Command::new("redis-server");
    command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    command.args(["--daemonize", "no", "--dir"]).arg(&own);
    if let Some(primary) = primary {
        command.args(["--replicaof", &primary.ip().to_string(), &primary.port().to_string()]);
    }
    Running::serve(&mut command, &folder.path().join(format!("{name}.log")))
}
