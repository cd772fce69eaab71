//! The connected clients, for `CLIENT LIST` and `INFO`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The most clients that are connected at once.
pub const CLIENTS_MAX: usize = 10_000;
/// The longest name a client may give itself or its library, in bytes.
pub const NAME_LEN_MAX: usize = 256;

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The name of the connection.
    pub name: String,
    /// The name of the client's library.
    pub library: String,
    /// The library's version.
    pub version: String,
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// Its number; never used twice.
    pub id: u64,
    address: SocketAddr,
    local: SocketAddr,
    since: Instant,
    /// When its last command came, in milliseconds after `since`.
    last_ms: AtomicU64,
    names: Mutex<Names>,
}

impl Client {
    /// What it says of itself.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what it says of itself.
    pub fn rename(&self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes that it has just sent something.
    pub fn touch(&self) {
        self.last_ms.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Its line in `CLIENT LIST`.
    #[must_use]
    pub fn line(&self) -> String {
        let (names, age) = (self.names(), self.since.elapsed());
        let idle_ms = (age.as_millis() as u64).saturating_sub(self.last_ms.load(Ordering::Relaxed));
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags=N db=0 lib-name={} lib-ver={}\n",
            self.id,
            self.address,
            self.local,
            names.name,
            age.as_secs(),
            idle_ms / 1000,
            names.library,
            names.version,
        )
    }
}

/// All clients that are connected.
#[derive(Debug, Default)]
pub struct Clients {
    next: AtomicU64,
    refused: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// Takes a client in; `None` if there are too many.
    pub fn enter(&self, address: SocketAddr, local: SocketAddr) -> Option<Arc<Client>> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.len() >= CLIENTS_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let client = Arc::new(Client {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            address,
            local,
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            names: Mutex::default(),
        });
        connected.insert(client.id, Arc::clone(&client));
        Some(client)
    }

    /// Lets a client go.
    pub fn leave(&self, client: &Client) {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(&client.id);
    }

    /// How many are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many have been taken in since the start.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// How many have been refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// One line per client.
    #[must_use]
    pub fn list(&self) -> String {
        let connected: Vec<_> = {
            let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
            connected.values().cloned().collect()
        };
        connected.iter().fold(String::new(), |mut list, client| {
            // Writing to a string cannot fail.
            let _ = write!(list, "{}", client.line());
            list
        })
    }
}
