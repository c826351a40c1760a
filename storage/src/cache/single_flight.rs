//! Many ask, one works: callers of the same key share one future.
//!
//! The future is driven by whoever waits for it, so no task is started, a caller that goes away
//! does not stop it for the others, and it is dropped with its last caller.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::Shared};

use crate::seam::BoxFuture;

/// The futures under way, by key.
#[derive(Debug)]
pub struct SingleFlight<K: Ord + Copy, V: Clone> {
    flights: Mutex<BTreeMap<K, Flight<V>>>,
}

#[derive(Debug)]
struct Flight<V: Clone> {
    future: Shared<BoxFuture<'static, V>>,
    callers: usize,
}

impl<K: Ord + Copy, V: Clone> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Copy, V: Clone> SingleFlight<K, V> {
    /// Nothing under way.
    pub const fn new() -> Self {
        Self { flights: Mutex::new(BTreeMap::new()) }
    }

    /// Waits for the future of `key`, starting it with `start` when there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the shared one to the other callers.
    pub async fn run(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> V {
        let boarded = self.board(key, start);
        boarded.future.clone().await
    }

    /// Number of keys under way.
    pub fn under_way(&self) -> usize {
        self.flights().len()
    }

    fn board(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> Boarded<'_, K, V> {
        let mut flights = self.flights();
        let flight =
            flights.entry(key).or_insert_with(|| Flight { future: start().shared(), callers: 0 });
        flight.callers += 1;
        Boarded { future: flight.future.clone(), key, all: self }
    }

    fn flights(&self) -> MutexGuard<'_, BTreeMap<K, Flight<V>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller's place; the last one to leave takes the flight along.
struct Boarded<'a, K: Ord + Copy, V: Clone> {
    future: Shared<BoxFuture<'static, V>>,
    key: K,
    all: &'a SingleFlight<K, V>,
}

impl<K: Ord + Copy, V: Clone> Drop for Boarded<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.all.flights();
        if let Some(flight) = flights.get_mut(&self.key) {
            flight.callers -= 1;
            if flight.callers == 0 {
                let ended = flights.remove(&self.key);
                drop(flights); // The future may be dropped here, and it is not ours.
                drop(ended);
            }
        }
    }
}
