//! Explores.
#![forbid(unsafe_code)]
use stateright::{Checker, Model};
use towline_model::{Checked, setting::*};
fn main() {
    let a: Vec<u8> = std::env::args().skip(2).map(|x| x.parse().unwrap()).collect();
    let kind = std::env::args().nth(1).unwrap();
    let mut s = Setting::three("base");
    s.epochs = a[0];
    s.writes = a[1];
    s.crashes = a[2];
    if kind == "round" {
        s.reads = Reads::Round;
    }
    if kind == "lease" {
        s.reads = Reads::Lease;
    }
    if kind == "add" {
        s.nodes = 4;
        s.sets.push(Set::new(0b1011, 2));
    }
    if kind == "two" {
        s.nodes = 2;
        s.sets[0] = Set::new(3, 2);
    }
    if kind == "swap" {
        s.sets = vec![Set::new(0b011, 2), Set { members: 0b101, w: 2, replaces: 0b010 }];
    }
    if kind == "chain" {
        s.sets = vec![Set::new(1, 1), Set::new(3, 2), Set::new(2, 1)];
        s.nodes = 2;
    }
    let t = std::time::Instant::now();
    let c = Checked::new(s).checker().threads(2).spawn_bfs().join();
    println!(
        "{} unique {} total {:?} depth {}",
        c.unique_state_count(),
        c.state_count(),
        t.elapsed(),
        c.max_depth()
    );
    for (n, p) in c.discoveries() {
        println!(
            "{n}: {}",
            p.into_actions().iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(" ")
        );
    }
}
