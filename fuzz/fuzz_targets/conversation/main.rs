//! A conversation that somebody bends: frames of three real nodes, out of order, again and again,
//! to the wrong node, with fields replaced, or cut short. Nobody panics, no promise is taken back,
//! and what is no frame or has no place is refused.
//!
//! The input is a script of four-byte lines; see [`step`].
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use towline_protocol::frame::Purpose;
use world::{NODES, Outcome, Said, World};

const STEPS_MAX: usize = 192;
/// A quarter of a second: two heartbeats, and a candidate's patience.
const TICK_MS: u64 = 250;

/// A number that somewhere is one too many.
fn odd(world: &World, at: usize, pick: u8) -> u64 {
    let machine = &world.nodes[at].machine;
    let around = |value: u64| match pick / 8 % 4 {
        0 => value,
        1 => value.saturating_sub(1),
        2 => value.saturating_add(1),
        _ => value.saturating_add(u64::from(pick)),
    };
    around(match pick % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 62,
        3 => 1 << 32,
        4 => machine.committed().get(),
        5 => machine.positions().end.get(),
        6 => machine.fence().number,
        _ => machine.fence().incarnation.0,
    })
}

/// Replaces, flips or cuts something of what was said.
fn bend(world: &World, said: &Said, [how, at, with]: [u8; 3]) -> Vec<u8> {
    let mut bytes = said.bytes.to_vec();
    let at = usize::from(at) % bytes.len().max(1);
    match how % 4 {
        0 => {
            let eight = odd(world, said.to, with).to_le_bytes();
            let end = (at + 8).min(bytes.len());
            bytes[at..end].copy_from_slice(&eight[..end - at]);
        }
        1 => bytes[at] = with,
        2 => bytes[at] ^= 1 << (with % 8),
        _ => bytes.truncate(at),
    }
    bytes
}

/// One line: what is done, by or to whom, and two bytes of how.
fn step(world: &mut World, [what, who, how, with]: [u8; 4], next: Option<[u8; 3]>) {
    let (one, other) = (usize::from(who) % NODES, usize::from(who / 4) % NODES);
    // Counted from the newest.
    let nth = world.said.len().checked_sub(1 + usize::from(how) % world.said.len().max(1));
    match what % 16 {
        0 => world.tick(TICK_MS * u64::from(1 + how % 8)),
        1 => world.dial(one, other, Purpose::Stream),
        2 => world.speak(one, other),
        3 => world.grow(one, other),
        4 => world.flush(one),
        5 => world.apply(one),
        6 => world.promote(one, how % 2 == 1),
        7 => world.read(one),
        8 => world.break_stream(one, other),
        // Everything that was said arrives, oldest first.
        9 => {
            for said in std::mem::take(&mut world.said) {
                world.receive(said.from, said.to, &said.bytes);
            }
        }
        10 | 11 => {
            let Some(said) = nth.map(|nth| world.said.remove(nth)) else { return };
            world.receive(said.from, said.to, &said.bytes);
        }
        // Again, and perhaps to somebody else, from somebody else.
        12 => {
            let Some(said) = nth.map(|nth| world.said[nth].clone()) else { return };
            let (from, to) = if with % 2 == 0 { (said.from, said.to) } else { (one, other) };
            world.receive(from, to, &said.bytes);
        }
        _ => {
            let Some(said) = nth.map(|nth| world.said[nth].clone()) else { return };
            let bytes = bend(world, &said, [what / 16, who, with]);
            // A second change, of the line that follows.
            let said = Said { bytes: bytes.into(), ..said };
            let bytes = match next.filter(|_| what % 2 == 1) {
                Some(next) if !said.bytes.is_empty() => bend(world, &said, next),
                _ => said.bytes.to_vec(),
            };
            let outcome = world.receive(said.from, said.to, &bytes);
            assert!(!bytes.is_empty() || outcome == Outcome::Malformed, "nothing is no frame");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let lines: Vec<[u8; 4]> = input
        .chunks_exact(4)
        .take(STEPS_MAX)
        .map(|line| [line[0], line[1], line[2], line[3]])
        .collect();
    for (at, line) in lines.iter().enumerate() {
        let next = lines.get(at + 1).map(|next| [next[0], next[2], next[3]]);
        step(&mut world, *line, next);
    }
});
