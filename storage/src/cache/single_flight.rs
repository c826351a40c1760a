//! Many ask, one works: callers of the same key share one future.
//!
//! The future is driven by whoever waits for it, so no task is started, a caller that goes away
//! does not stop it for the others, and it is dropped with its last caller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::Shared};

use crate::seam::BoxFuture;

/// The futures under way, by key.
#[derive(Debug)]
pub struct SingleFlight<K: Ord + Copy, V: Clone> {
    flights: Flights<K, V>,
}

type Flights<K, V> = Arc<Mutex<BTreeMap<K, Flight<V>>>>;

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
    pub fn new() -> Self {
        Self { flights: Arc::default() }
    }

    /// Waits for the future of `key`, starting it with `start` when there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the shared one to the other callers.
    pub async fn run(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> V {
        self.board(key, start).landed().await
    }

    /// Takes a place in the future of `key` at once, starting it with `start` when there is none:
    /// whoever asks from now on joins it, though nobody drives it yet.
    pub fn board(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> Boarded<K, V> {
        let mut flights = lock(&self.flights);
        let flight =
            flights.entry(key).or_insert_with(|| Flight { future: start().shared(), callers: 0 });
        flight.callers += 1;
        Boarded { future: flight.future.clone(), key, all: Arc::clone(&self.flights) }
    }

    /// Number of keys under way.
    pub fn under_way(&self) -> usize {
        lock(&self.flights).len()
    }
}

/// One caller's place; the last one to leave takes the flight along.
#[derive(Debug)]
#[must_use = "dropping it gives the place up"]
pub struct Boarded<K: Ord + Copy, V: Clone> {
    future: Shared<BoxFuture<'static, V>>,
    key: K,
    all: Flights<K, V>,
}

impl<K: Ord + Copy, V: Clone> Boarded<K, V> {
    /// Waits for the future, and drives it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the shared one to the other callers.
    pub async fn landed(self) -> V {
        self.future.clone().await
    }
}

impl<K: Ord + Copy, V: Clone> Drop for Boarded<K, V> {
    fn drop(&mut self) {
        let mut flights = lock(&self.all);
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

/// Every section leaves the map whole, so a panic elsewhere while it was held is no harm.
fn lock<K: Ord + Copy, V: Clone>(
    flights: &Mutex<BTreeMap<K, Flight<V>>>,
) -> MutexGuard<'_, BTreeMap<K, Flight<V>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}
