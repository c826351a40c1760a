//! Says which peers were hung up on, and why: one line per peer and minute, however many they send.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aquifer_storage::seam::{MonoTime, Seams};

/// A peer is named again after this long.
const QUIET: Duration = Duration::from_secs(60);

/// Peers told apart; with more of them within a minute, the rest count as one.
const PEERS_MAX: usize = 1024;

/// Who was named when.
pub struct RefusalLog {
    seams: Seams,
    book: Mutex<Book>,
}

impl RefusalLog {
    /// Nobody was named yet.
    pub fn new(seams: Seams) -> Self {
        Self { seams, book: Mutex::default() }
    }

    /// Logs that `peer` was hung up on, unless it was named within the last minute.
    pub fn note(&self, peer: SocketAddr, reason: &str) {
        let now = self.seams.clock.mono();
        let noted = {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.note(peer.ip().to_canonical(), now)
        };
        match noted {
            Some(0) => tracing::warn!(%peer, reason, "connection closed"),
            Some(unlogged) => {
                tracing::warn!(%peer, reason, unlogged, "connection closed");
            }
            None => tracing::debug!(%peer, reason, "connection closed"),
        }
    }
}

#[derive(Debug, Default)]
struct Book {
    peers: BTreeMap<IpAddr, Named>,
    /// Everybody for whom there was no place.
    others: Option<Named>,
}

#[derive(Debug)]
struct Named {
    at: MonoTime,
    unlogged: u64,
}

impl Named {
    fn note(&mut self, now: MonoTime) -> Option<u64> {
        if now.since(self.at) < QUIET {
            self.unlogged += 1;
            return None;
        }
        self.at = now;
        Some(std::mem::take(&mut self.unlogged))
    }
}

impl Book {
    /// How many earlier refusals went unlogged, if this one is to be logged.
    fn note(&mut self, peer: IpAddr, now: MonoTime) -> Option<u64> {
        if let Some(named) = self.peers.get_mut(&peer) {
            return named.note(now);
        }
        if PEERS_MAX <= self.peers.len() {
            self.peers.retain(|_, named| now.since(named.at) < QUIET);
        }
        if self.peers.len() < PEERS_MAX {
            self.peers.insert(peer, Named { at: now, unlogged: 0 });
            return Some(0);
        }
        match &mut self.others {
            Some(named) => named.note(now),
            None => {
                self.others = Some(Named { at: now, unlogged: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_peer_is_named_once_a_minute_with_how_often_it_was_not() {
        let (mut book, start) = (Book::default(), MonoTime::from_zero(Duration::ZERO));
        assert_eq!(book.note(peer(1), start), Some(0));
        for _ in 0..999 {
            assert_eq!(book.note(peer(1), start + Duration::from_secs(59)), None);
        }
        assert_eq!(book.note(peer(2), start), Some(0), "another peer has its own line");
        assert_eq!(book.note(peer(1), start + QUIET), Some(999));
        assert_eq!(book.note(peer(1), start + QUIET), None);
    }

    #[test]
    fn more_peers_than_are_told_apart_share_one_line() {
        let (mut book, start) = (Book::default(), MonoTime::from_zero(Duration::ZERO));
        let lines = (0..5000).filter_map(|number| book.note(peer(number), start)).count();
        assert_eq!(lines, PEERS_MAX + 1);
        assert_eq!(book.peers.len(), PEERS_MAX);
        let later = start + QUIET;
        assert_eq!(book.note(peer(9000), later), Some(0), "the quiet ones are forgotten");
        assert_eq!(book.peers.len(), 1);
    }
}
