//! A network in memory: it loses, delays, reorders and repeats packets, and can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::random::Random;
use crate::trace::Trace;

/// How packets fare, unless their way is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Packets lost, per mille.
    pub(crate) lost: u64,
    /// Packets delivered twice, per mille.
    pub(crate) doubled: u64,
    /// Packets that take far longer than those sent after them, per mille.
    pub(crate) delayed: u64,
    /// The shortest and the longest way, in microseconds.
    pub(crate) way_us: (u64, u64),
}

impl Weather {
    /// A network that is well.
    pub(crate) const CLEAR: Self = Self { lost: 1, doubled: 1, delayed: 2, way_us: (300, 2_000) };
    /// One that is not.
    pub(crate) const STORM: Self =
        Self { lost: 250, doubled: 30, delayed: 100, way_us: (1_000, 40_000) };
}

/// How much longer a delayed packet takes at the most.
const DELAY_MS: u64 = 300;

/// A network. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    wires: Arc<Mutex<Wires>>,
    trace: Trace,
}

#[derive(Debug)]
struct Wires {
    random: Random,
    weather: Weather,
    /// Ways on which nothing arrives: from, to.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    hosts: BTreeMap<SocketAddr, Host>,
    sent: u64,
}

#[derive(Debug, Default)]
struct Host {
    /// Counts the sockets that had the address; only the newest has it, and none after a kill.
    life: u64,
    plugged: bool,
    /// The names that this life gave to connections, as its packets show them.
    names: BTreeSet<Vec<u8>>,
    /// What is on its way here, by when it arrives.
    coming: BTreeMap<(Instant, u64), Datagram>,
    waker: Option<Waker>,
}

/// What arrives.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) content: Vec<u8>,
}

impl Network {
    pub(crate) fn new(random: Random, trace: Trace) -> Self {
        let wires = Wires {
            random,
            weather: Weather::CLEAR,
            cut: BTreeSet::new(),
            hosts: BTreeMap::new(),
            sent: 0,
        };
        Self { wires: Arc::new(Mutex::new(wires)), trace }
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.wires().weather = weather;
    }

    /// Cuts the way from `from` to `to`, and that way only.
    pub(crate) fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.wires().cut.insert((from, to));
    }

    /// Every way is open again.
    pub(crate) fn mend(&self) {
        self.wires().cut.clear();
    }

    /// Gives `host` its address, and says which of its lives this is. What arrived while nobody
    /// had the address is gone; what arrives from now on is not, whomever it was meant for.
    pub(crate) fn plug(&self, host: SocketAddr) -> u64 {
        let now = Instant::now();
        let mut wires = self.wires();
        let host = wires.hosts.entry(host).or_default();
        host.life += 1;
        host.plugged = true;
        host.names.clear();
        host.coming = host.coming.split_off(&(now, 0));
        host.life
    }

    /// Takes its address from `host`: what it still sends goes nowhere.
    pub(crate) fn unplug(&self, host: SocketAddr) {
        if let Some(host) = self.wires().hosts.get_mut(&host) {
            host.plugged = false;
            host.waker = None;
        }
    }

    /// Sends a packet, in the name of a host's life.
    pub(crate) fn send(&self, from: SocketAddr, life: u64, to: SocketAddr, content: &[u8]) {
        let now = Instant::now();
        let mut wires = self.wires();
        let wires = &mut *wires;
        if !wires.hosts.get(&from).is_some_and(|host| host.plugged && host.life == life) {
            return;
        }
        self.trace.packet(from, to, content.len());
        if let (Some(host), Some(header)) = (wires.hosts.get_mut(&from), LongHeader::of(content)) {
            host.names.insert(header.source.to_vec());
        }
        let weather = wires.weather;
        let lost = wires.random.chance(weather.lost);
        let copies = if wires.random.chance(weather.doubled) { 2 } else { 1 };
        let cut = wires.cut.contains(&(from, to));
        for _ in 0..copies {
            let mut way = wires.random.micros(weather.way_us.0, weather.way_us.1);
            if wires.random.chance(weather.delayed) {
                way += wires.random.millis(0, DELAY_MS);
            }
            wires.sent += 1;
            let Some(host) = wires.hosts.get_mut(&to).filter(|_| !cut && !lost) else { continue };
            let key = (now + way, wires.sent);
            let first = host.coming.keys().next().is_none_or(|first| key < *first);
            host.coming.insert(key, Datagram { from, content: content.to_vec() });
            if let Some(waker) = host.waker.take_if(|_| first) {
                waker.wake();
            }
        }
    }

    /// Takes the next packet that has arrived at `host`; else says when one will, if one is on
    /// its way, and wakes `waker` if that becomes earlier.
    pub(crate) fn take(
        &self,
        host: SocketAddr,
        life: u64,
        waker: &Waker,
    ) -> Result<Datagram, Option<Duration>> {
        let now = Instant::now();
        let mut wires = self.wires();
        let Some(host) =
            wires.hosts.get_mut(&host).filter(|host| host.plugged && host.life == life)
        else {
            return Err(None);
        };
        while let Some(first) = host.coming.first_entry()
            && first.key().0 <= now
        {
            let datagram = first.remove();
            if !is_noise(&datagram.content, &host.names) {
                return Ok(datagram);
            }
        }
        host.waker = Some(waker.clone());
        Err(host.coming.keys().next().map(|(at, _)| *at - now))
    }
}

/// The names of connections that both sides chose themselves have this length, in bytes; the one
/// that a dialling side invents for the other is longer.
const NAME_LEN: usize = 8;

/// What a packet of a handshake shows without its keys (RFC 9000, 17.2).
struct LongHeader<'a> {
    initial: bool,
    destination: &'a [u8],
    source: &'a [u8],
}

impl<'a> LongHeader<'a> {
    fn of(content: &'a [u8]) -> Option<Self> {
        let first = *content.first().filter(|first| **first & 0x80 != 0)?;
        let (destination, rest) = named(content.get(5..)?)?;
        let (source, _) = named(rest)?;
        Some(Self { initial: first & 0x30 == 0, destination, source })
    }
}

/// A name with its length before it, and the rest.
fn named(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// Whether a packet belongs to a handshake with an earlier life. It would be opened with keys that
/// are not its own, and what is then seen in it, and answered, depends on keys: on what no seed
/// fixes. So it gets lost.
fn is_noise(content: &[u8], names: &BTreeSet<Vec<u8>>) -> bool {
    LongHeader::of(content).is_some_and(|header| {
        let chosen = header.destination.len() == NAME_LEN;
        header.initial && chosen && !names.contains(header.destination)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_initial_packet_for_a_forgotten_connection_is_noise() {
        let packet = |first: u8, destination: &[u8]| {
            let mut packet = vec![first, 0, 0, 0, 1, destination.len() as u8];
            packet.extend_from_slice(destination);
            packet.extend_from_slice(&[2, 9, 9, 0]);
            packet
        };
        let names = BTreeSet::from([vec![1; NAME_LEN]]);
        assert!(!is_noise(&packet(0xc0, &[1; NAME_LEN]), &names), "it is known");
        assert!(is_noise(&packet(0xc0, &[2; NAME_LEN]), &names), "it is forgotten");
        assert!(!is_noise(&packet(0xc0, &[2; 20]), &names), "a new connection");
        assert!(!is_noise(&packet(0xe0, &[2; NAME_LEN]), &names), "not initial");
        assert!(!is_noise(&packet(0x40, &[2; NAME_LEN]), &names), "a short header");
        assert!(!is_noise(&[0xc0, 0, 0, 0, 1, 8, 2], &names), "cut short");
    }
}
