use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use super::*;
use crate::config::{Config, Overrides};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: InitArgs,
}

fn init(dir: &Path, line: &str) -> Result<(), Failure> {
    let words = ["init", "--dir", dir.to_str().unwrap()].into_iter().chain(line.split(' '));
    found_cluster(&Line::try_parse_from(words).unwrap().args)
}

#[test]
fn a_cluster_is_founded_once_and_its_configurations_load() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cluster");
    init(&dir, "--cluster orders --nodes a,b,c --base-port 7100").unwrap();
    let mut controls = Vec::new();
    for node in ["a", "b", "c"] {
        let file = dir.join(node).join("towline.toml");
        let config = Config::load(&file, [], &Overrides::default()).unwrap();
        assert_eq!(config.node.as_str(), node);
        assert_eq!(config.peers.len(), 3);
        let mut logs = fs::read_dir(config.data_dir.join("logs")).unwrap();
        controls.push(towline_wal::read_control(&logs.next().unwrap().unwrap().path()).unwrap());
        let mode = fs::metadata(&config.tls.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE_FILE);
    }
    let roles: Vec<_> = controls.iter().map(|control| control.role).collect();
    assert_eq!(roles, [Role::Primary, Role::Replica, Role::Replica]);
    assert!(controls.iter().all(|control| control.cluster == controls[0].cluster));
    assert!(controls.iter().all(|control| control.founding_voters == controls[0].founding_voters));
    assert_eq!((controls[0].founding_voters.n(), controls[0].founding_voters.w()), (3, 2));

    let again = init(&dir, "--cluster orders --nodes a,b,c").unwrap_err();
    assert_eq!(again.exit, Exit::Refused);
}

#[test]
fn what_makes_no_sense_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cluster");
    for line in [
        "--cluster c --nodes a,a",
        "--cluster c --nodes a,b --w 3",
        "--cluster c --nodes a --primary z",
        "--cluster c --nodes a --segment-size 1000",
        "--cluster c --node a=h:1,h:2,observer",
        "--cluster c --node a=h:1,h:2 --node b=h:3,h:4,observer --primary b",
    ] {
        assert_eq!(init(&dir, line).unwrap_err().exit, Exit::Usage, "{line}");
        assert!(!dir.exists(), "{line}");
    }
}
