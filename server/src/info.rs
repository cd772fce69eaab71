//! INFO.

use std::fmt::Write;
use std::fs;

use bytes::Bytes;
use towline::NodeState;

use crate::clients::CLIENTS_MAX;
use crate::server::{REDIS_VERSION, Server};
use crate::status::state_name;

/// Writes the lines of one section.
type Section = fn(&Server) -> String;

const SECTIONS: [(&str, Section); 7] = [
    ("Server", server_section),
    ("Clients", clients_section),
    ("Memory", memory_section),
    ("Persistence", persistence_section),
    ("Stats", stats_section),
    ("Replication", replication_section),
    ("Keyspace", keyspace_section),
];

/// The sections that were asked for; all, if none was named.
#[must_use]
pub fn text(server: &Server, asked: &[Bytes]) -> String {
    let is_asked = |section: &str| {
        asked.is_empty()
            || asked.iter().any(|name| {
                name.eq_ignore_ascii_case(section.as_bytes())
                    || ["all", "default", "everything"]
                        .iter()
                        .any(|every| name.eq_ignore_ascii_case(every.as_bytes()))
            })
    };
    let sections = SECTIONS.iter().filter(|(section, _)| is_asked(section));
    let texts: Vec<_> =
        sections.map(|(section, body)| format!("# {section}\r\n{}", body(server))).collect();
    texts.join("\r\n")
}

fn server_section(server: &Server) -> String {
    format!(
        "redis_version:{REDIS_VERSION}\r\ntowline_version:{}\r\nredis_mode:standalone\r\n\
         os:{}\r\narch_bits:{}\r\nprocess_id:{}\r\ntcp_port:{}\r\nuptime_in_seconds:{}\r\n\
         uptime_in_days:{}\r\nconfig_file:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        usize::BITS,
        std::process::id(),
        server.address.port(),
        server.uptime_s(),
        server.uptime_s() / 86_400,
        server.config.path.display(),
    )
}

fn clients_section(server: &Server) -> String {
    format!(
        "connected_clients:{}\r\nmaxclients:{CLIENTS_MAX}\r\nblocked_clients:0\r\n",
        server.clients.len()
    )
}

fn memory_section(_: &Server) -> String {
    let resident = resident_bytes().unwrap_or(0);
    format!(
        "used_memory:{resident}\r\nused_memory_rss:{resident}\r\nmaxmemory:0\r\n\
         maxmemory_policy:noeviction\r\n"
    )
}

fn resident_bytes() -> Option<u64> {
    const KIB: u64 = 1024;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * KIB)
}

fn persistence_section(_: &Server) -> String {
    "loading:0\r\nrdb_bgsave_in_progress:0\r\nrdb_last_bgsave_status:ok\r\naof_enabled:1\r\n\
     aof_last_write_status:ok\r\n"
        .to_owned()
}

fn stats_section(server: &Server) -> String {
    format!(
        "total_connections_received:{}\r\ntotal_commands_processed:{}\r\n\
         rejected_connections:{}\r\n",
        server.clients.received(),
        server.commands(),
        server.clients.refused(),
    )
}

fn replication_section(server: &Server) -> String {
    let status = server.node.status();
    let (leadership, at) = (status.leadership, status.watermarks);
    let mut text = String::new();
    // Writing to a string cannot fail.
    if leadership.open.is_some() {
        let live = status.replicas.iter().filter(|replica| replica.connected);
        let _ = write!(text, "role:master\r\nconnected_slaves:{}\r\n", live.clone().count());
        for (number, replica) in live.enumerate() {
            let (host, port) = server.address_of(replica.node);
            let _ = write!(
                text,
                "slave{number}:ip={host},port={port},state=online,offset={},lag=0\r\n",
                replica.flushed
            );
        }
    } else {
        let (host, port) = match leadership.primary {
            Some(primary) => server.address_of(primary),
            None => (String::new(), "0".to_owned()),
        };
        let link = if leadership.state == NodeState::Streaming { "up" } else { "down" };
        let _ = write!(
            text,
            "role:slave\r\nmaster_host:{host}\r\nmaster_port:{port}\r\n\
             master_link_status:{link}\r\nmaster_sync_in_progress:0\r\n\
             slave_repl_offset:{}\r\nslave_read_only:1\r\nconnected_slaves:0\r\n",
            at.applied
        );
    }
    let _ = write!(
        text,
        "master_replid:{}\r\nmaster_repl_offset:{}\r\ntowline_state:{}\r\ntowline_epoch:{}\r\n\
         towline_flushed:{}\r\ntowline_committed:{}\r\ntowline_applied:{}\r\n",
        status.log,
        at.committed,
        state_name(leadership.state),
        status.epoch,
        at.flushed,
        at.committed,
        at.applied,
    );
    text
}

fn keyspace_section(server: &Server) -> String {
    match server.store.len() {
        0 => String::new(),
        keys => format!("db0:keys={keys},expires=0,avg_ttl=0\r\n"),
    }
}
