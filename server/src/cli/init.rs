//! `towline init`: founds a cluster, once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use towline_protocol::id::{ClusterId, Incarnation, LogId, NodeId};
use towline_protocol::lsn::SegmentSize;
use towline_protocol::voters::{Voter, Voters};
use towline_transport::{CertificateAuthority, CertificateError};
use towline_wal::{Founding, Role};

use super::exit::{Exit, Failure};
use super::node_spec::NodeSpec;

/// Files that others must not read, and folders that others must not enter.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIR: u32 = 0o700;

/// Arguments of `towline init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The cluster's name.
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    /// The folder to make: one folder per node, and the cluster's certificate authority.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Nodes on this machine, such as a,b,c; they get ports from --base-port on.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        conflicts_with = "node",
        required_unless_present = "node"
    )]
    pub nodes: Vec<NodeId>,
    /// With --nodes: clients of the n-th node connect to port BASE + n, other nodes to
    /// BASE + 200 + n.
    #[arg(long, value_name = "PORT", default_value_t = 7000,
          value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,
    /// A node with its addresses for nodes and for clients; once per node. An observer has no
    /// vote.
    #[arg(long, value_name = "NAME=REPL,RESP[,zone=ZONE][,observer]")]
    pub node: Vec<NodeSpec>,
    /// How many voters must have a write on disk before it is acknowledged; a majority if not
    /// given.
    #[arg(long, value_name = "COUNT")]
    pub w: Option<u8>,
    /// The node that leads first; the first one if not given.
    #[arg(long, value_name = "NODE")]
    pub primary: Option<NodeId>,
    /// The size of the log's files in bytes: a power of two.
    #[arg(long, value_name = "BYTES", default_value_t = SegmentSize::DEFAULT.bytes())]
    pub segment_size: u64,
}

/// What all nodes of the new cluster share.
struct Cluster<'a> {
    name: &'a str,
    id: ClusterId,
    log: LogId,
    segment_size: SegmentSize,
    primary: NodeId,
    voters: Voters,
    nodes: &'a [NodeSpec],
}

pub(super) fn run(args: &InitArgs) -> Result<Exit, Failure> {
    found_cluster(args)?;
    let (dir, primary) = (args.dir.display(), primary_of(args, &specs(args)));
    println!("cluster {} is founded in {dir}", args.cluster);
    println!("  keep {dir}/ca.key safe: whoever has it can make a node of this cluster");
    println!("start its nodes:");
    for spec in specs(args) {
        let binary = if spec.node == primary { "primary" } else { "replica" };
        println!("  {binary} --config {dir}/{}/towline.toml", spec.node);
    }
    println!("and look at them:\n  towline list --config {dir}");
    Ok(Exit::Ok)
}

/// Founds a cluster in a folder that is empty or absent.
///
/// # Errors
/// [`Failure`] if the arguments make no sense or the folder cannot be written.
pub fn found_cluster(args: &InitArgs) -> Result<(), Failure> {
    let nodes = specs(args);
    let cluster = described(args, &nodes)?;
    make_empty(&args.dir)?;
    let unable = |error: CertificateError| Failure::new(Exit::Error, error.to_string());
    let authority = CertificateAuthority::new(&cluster.id, cluster.name).map_err(unable)?;
    let ca = authority.cert_pem();
    write(&args.dir.join("ca.pem"), ca.as_bytes())?;
    write_private(&args.dir.join("ca.key"), authority.key_pem().as_bytes())?;
    for (place, spec) in nodes.iter().enumerate() {
        let folder = args.dir.join(spec.node.as_str());
        make_dir(&folder)?;
        let issued = authority.issue(spec.node).map_err(unable)?;
        write(&folder.join("ca.pem"), ca.as_bytes())?;
        write(&folder.join("node.pem"), issued.cert_pem.as_bytes())?;
        write_private(&folder.join("node.key"), issued.key_pem.as_bytes())?;
        write(&folder.join("towline.toml"), config_text(&cluster, spec).as_bytes())?;
        found_log(&cluster, spec.node, incarnation(&cluster, place)?, &folder)?;
    }
    Ok(())
}

fn specs(args: &InitArgs) -> Vec<NodeSpec> {
    let short = args.nodes.iter().zip(1..).map(|(node, nth): (_, u16)| {
        let address = |port: u16| format!("127.0.0.1:{port}");
        NodeSpec {
            node: *node,
            repl: address(args.base_port.saturating_add(200).saturating_add(nth)),
            resp: address(args.base_port.saturating_add(nth)),
            zone: String::new(),
            observer: false,
        }
    });
    if args.node.is_empty() { short.collect() } else { args.node.clone() }
}

fn primary_of(args: &InitArgs, nodes: &[NodeSpec]) -> NodeId {
    let first = nodes.iter().find(|spec| !spec.observer).or(nodes.first());
    let first = first.map(|spec| spec.node);
    args.primary.or(first).expect("the arguments name at least one node")
}

fn described<'a>(args: &'a InitArgs, nodes: &'a [NodeSpec]) -> Result<Cluster<'a>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    if args.cluster.is_empty() || args.cluster.len() > towline_wal::CLUSTER_NAME_LEN_MAX {
        let max = towline_wal::CLUSTER_NAME_LEN_MAX;
        return Err(usage(format!("--cluster takes a name of 1 to {max} bytes")));
    }
    for (place, spec) in nodes.iter().enumerate() {
        if nodes[..place].iter().any(|other| other.node == spec.node) {
            return Err(usage(format!("{} is named twice", spec.node)));
        }
    }
    let segment_size = SegmentSize::new(args.segment_size).ok_or_else(|| {
        usage(format!(
            "--segment-size {} must be a power of two from {} to {}",
            args.segment_size,
            SegmentSize::MIN.bytes(),
            SegmentSize::MAX.bytes()
        ))
    })?;
    let members = nodes.iter().filter(|spec| !spec.observer);
    let members = members
        .map(|spec| {
            let incarnation = Incarnation(random()?);
            Ok(Voter { node: spec.node, incarnation, zone: spec.zone.clone() })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let voters = Voters::new(members, args.w).map_err(|error| usage(error.to_string()))?;
    let primary = primary_of(args, nodes);
    if voters.get(primary).is_none() {
        return Err(usage(format!("--primary {primary} must be one of the nodes, and a voter")));
    }
    Ok(Cluster {
        name: &args.cluster,
        id: ClusterId(random_wide()?),
        log: LogId(random_wide()?),
        segment_size,
        primary,
        voters,
        nodes,
    })
}

/// A voter's incarnation is the one in the voter set; an observer has one of its own.
fn incarnation(cluster: &Cluster<'_>, place: usize) -> Result<Incarnation, Failure> {
    let node = cluster.nodes[place].node;
    match cluster.voters.get(node) {
        Some(voter) => Ok(voter.incarnation),
        None => random().map(Incarnation),
    }
}

fn found_log(
    cluster: &Cluster<'_>,
    node: NodeId,
    incarnation: Incarnation,
    folder: &Path,
) -> Result<(), Failure> {
    let role = if node == cluster.primary { Role::Primary } else { Role::Replica };
    let founding = Founding {
        cluster: cluster.id,
        cluster_name: cluster.name.to_owned(),
        log: cluster.log,
        node,
        incarnation,
        segment_size: cluster.segment_size,
        role,
        voters: cluster.voters.clone(),
    };
    let dir = folder.join("data").join("logs").join(cluster.log.to_string());
    towline_wal::found(&dir, &founding)
        .map_err(|error| Failure::new(Exit::Error, error.to_string()))
}

/// A node's configuration, to be read and changed by people.
fn config_text(cluster: &Cluster<'_>, own: &NodeSpec) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!(
        "# Node {node} of {name}. Paths are relative to this file.\n\
         # Who votes, and how many of them commit a write, is kept in the log.\n\
         cluster = {name}\nnode = \"{node}\"\ndata_dir = \"data\"\n\n\
         [listen]\nresp = {resp} # clients\nrepl = {repl} # other nodes\n\n\
         [tls]\nca = \"ca.pem\"\ncert = \"node.pem\"\nkey = \"node.key\"\n\n\
         # How each node is reached by the others and by clients, this one included.\n",
        node = own.node,
        name = quoted(cluster.name),
        resp = quoted(&own.resp),
        repl = quoted(&own.repl),
    );
    for spec in cluster.nodes {
        text.push_str(&format!(
            "[peers.{}]\nrepl = {}\nresp = {}\n\n",
            spec.node,
            quoted(&spec.repl),
            quoted(&spec.resp)
        ));
    }
    text.push_str(
        "# [timing]\n# heartbeat_ms = 100\n# commit_timeout_ms = 5000\n\
         # candidate_deadline_ms = 10000\n# hook_deadline_ms = 5000\n\n\
         # [log]\n# keep_bytes_max = 1073741824 # the whole log is kept unless this is set\n\
         # scrub_bytes_per_s = 8388608\n\n\
         # [hooks]\n# promotion = \"promotion.sh\"\n",
    );
    text
}

fn make_empty(dir: &Path) -> Result<(), Failure> {
    make_dir(dir)?;
    let mut entries = fs::read_dir(dir).map_err(|error| failed(dir, &error))?;
    if entries.next().is_some() {
        return Err(Failure::new(
            Exit::Refused,
            format!("{}: is not empty; a cluster is founded once, in a new folder", dir.display()),
        ));
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir);
    made.map_err(|error| failed(dir, &error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| failed(path, &error))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Error, format!("{}: cannot be written: {error}", path.display()))
}

fn random_wide() -> Result<u128, Failure> {
    Ok(u128::from(random()?) << 64 | u128::from(random()?))
}

/// Never 0, which stands for none.
fn random() -> Result<u64, Failure> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; 8];
    File::open(SOURCE)
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| Failure::new(Exit::Error, format!("{SOURCE}: {error}")))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

#[cfg(test)]
#[path = "init_tests.rs"]
mod tests;
