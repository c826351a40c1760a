//! How long a request takes [pure].
//!
//! Each kind draws from a generator of its own, so that a kind's sequence depends on the seed
//! alone and not on how requests of other kinds fall between.

use std::{str::FromStr, time::Duration};

use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{super::floor::model::Delay, request::Kind};

/// A store that is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Answers at once.
    Zero,
    /// PUT p50 100 ms and p99 195 ms, GET 63 and 78 ms, 85 MiB/s per connection.
    S3Standard,
    /// PUT p50 8 ms and p99 25 ms, GET 6 and 15 ms, 85 MiB/s per connection.
    S3Express,
}

impl Preset {
    /// MiB per second of one connection; `None` when bytes cost no time.
    pub const fn mib_per_second(self) -> Option<f64> {
        match self {
            Self::Zero => None,
            Self::S3Standard | Self::S3Express => Some(85.0),
        }
    }

    /// p50 and p99 of a PUT and of a GET in milliseconds.
    const fn put_and_get(self) -> Option<[(f64, f64); 2]> {
        match self {
            Self::Zero => None,
            Self::S3Standard => Some([(100.0, 195.0), (63.0, 78.0)]),
            Self::S3Express => Some([(8.0, 25.0), (6.0, 15.0)]),
        }
    }

    /// The delay of one request of `kind`. A HEAD takes as long as a GET, a LIST twice that; a
    /// DELETE half as long as a PUT, and as long for a thousand keys as for one.
    fn delay(self, kind: Kind) -> Option<Delay> {
        let [put, get] = self.put_and_get()?;
        let ((p50_ms, p99_ms), factor) = match kind {
            Kind::Put => (put, 1.0),
            Kind::Get | Kind::Head => (get, 1.0),
            Kind::List => (get, 2.0),
            Kind::Delete | Kind::Post => (put, 0.5),
        };
        let delay = Delay::new(p50_ms * factor, p99_ms * factor);
        Some(delay.expect("percentiles of presets are in order"))
    }
}

/// PUTs that are slow for no reason of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    fraction: f64,
    factor: f64,
}

/// A tail that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not FRACTION:FACTOR with a fraction of 0 to 1 and a factor of 1 to 1000")]
pub struct TailRefused {
    text: String,
}

impl Tail {
    /// No PUT is slow.
    pub const NONE: Self = Self { fraction: 0.0, factor: 1.0 };
}

impl FromStr for Tail {
    type Err = TailRefused;

    fn from_str(text: &str) -> Result<Self, TailRefused> {
        let refused = || TailRefused { text: text.to_owned() };
        let (fraction, factor) = text.split_once(':').ok_or_else(refused)?;
        let fraction = fraction.parse().map_err(|_| refused())?;
        let factor = factor.parse().map_err(|_| refused())?;
        if (0.0..=1.0).contains(&fraction) && (1.0..=1000.0).contains(&factor) {
            Ok(Self { fraction, factor })
        } else {
            Err(refused())
        }
    }
}

/// Draws latencies.
#[derive(Debug)]
pub struct LatencyModel {
    preset: Preset,
    tail: Tail,
    generators: [StdRng; Kind::ALL.len()],
}

impl LatencyModel {
    /// Draws the same sequence of each kind for the same arguments.
    pub fn new(preset: Preset, tail: Tail, seed: u64) -> Self {
        let mut seeds = StdRng::seed_from_u64(seed);
        let generators = Kind::ALL.map(|_| StdRng::seed_from_u64(seeds.random()));
        Self { preset, tail, generators }
    }

    /// How long the next request of `kind` takes from the end of its head; `None` when no wait at
    /// all is asked for.
    pub fn draw(&mut self, kind: Kind) -> Option<Duration> {
        let delay = self.preset.delay(kind)?;
        let generator = &mut self.generators[kind as usize];
        let ms = delay.draw_ms(generator);
        let slow = kind == Kind::Put && generator.random::<f64>() < self.tail.fraction;
        let ms = if slow { ms * self.tail.factor } else { ms };
        Some(Duration::from_secs_f64(ms / 1000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: usize = 100_000;

    /// p50 and p99 of `kind` in milliseconds.
    fn percentiles(model: &mut LatencyModel, kind: Kind) -> (f64, f64) {
        let mut drawn: Vec<Duration> = (0..SAMPLES).map(|_| model.draw(kind).unwrap()).collect();
        drawn.sort_unstable();
        let at = |percent: usize| drawn[SAMPLES * percent / 100].as_secs_f64() * 1000.0;
        (at(50), at(99))
    }

    #[test]
    fn every_preset_has_its_percentiles_within_3_percent() {
        let expected = [
            (Preset::S3Standard, Kind::Put, (100.0, 195.0)),
            (Preset::S3Standard, Kind::Get, (63.0, 78.0)),
            (Preset::S3Standard, Kind::Head, (63.0, 78.0)),
            (Preset::S3Standard, Kind::List, (126.0, 156.0)),
            (Preset::S3Standard, Kind::Delete, (50.0, 97.5)),
            (Preset::S3Standard, Kind::Post, (50.0, 97.5)),
            (Preset::S3Express, Kind::Put, (8.0, 25.0)),
            (Preset::S3Express, Kind::Get, (6.0, 15.0)),
        ];
        for (preset, kind, (p50, p99)) in expected {
            let drawn = percentiles(&mut LatencyModel::new(preset, Tail::NONE, 7), kind);
            let near = |drawn: f64, expected: f64| (drawn / expected - 1.0).abs() < 0.03;
            assert!(near(drawn.0, p50) && near(drawn.1, p99), "{preset:?} {kind:?}: {drawn:?}");
        }
    }

    #[test]
    fn a_seed_has_one_sequence_whatever_falls_between() {
        let model = |seed| LatencyModel::new(Preset::S3Standard, Tail::NONE, seed);
        let puts = |model: &mut LatencyModel| -> Vec<_> {
            (0..20).map(|_| model.draw(Kind::Put)).collect()
        };
        let plain = puts(&mut model(3));
        let mut mixed = model(3);
        let between: Vec<_> = (0..20)
            .map(|_| {
                mixed.draw(Kind::Get);
                mixed.draw(Kind::Put)
            })
            .collect();
        assert_eq!(plain, between);
        assert_ne!(plain, puts(&mut model(4)));
    }

    #[test]
    fn only_the_asked_fraction_of_puts_is_slow() {
        let tail = "0.01:5".parse().unwrap();
        let mut slow = LatencyModel::new(Preset::S3Standard, tail, 1);
        let mut plain = LatencyModel::new(Preset::S3Standard, "0:5".parse().unwrap(), 1);
        let mut count = 0;
        for _ in 0..SAMPLES {
            let (slow, plain) = (slow.draw(Kind::Put).unwrap(), plain.draw(Kind::Put).unwrap());
            let ratio = slow.as_secs_f64() / plain.as_secs_f64();
            assert!((ratio - 1.0).abs() < 1e-3 || (ratio - 5.0).abs() < 1e-3);
            count += usize::from(ratio > 2.0);
            assert_eq!(slow.max(plain), slow);
        }
        assert!((900..1100).contains(&count), "{count}");
        for _ in 0..100 {
            assert_eq!(slow.draw(Kind::Get), plain.draw(Kind::Get));
        }
    }

    #[test]
    fn the_zero_preset_never_waits() {
        let mut model = LatencyModel::new(Preset::Zero, "1:1000".parse().unwrap(), 1);
        assert!(Kind::ALL.iter().all(|kind| model.draw(*kind).is_none()));
    }

    #[test]
    fn a_tail_outside_its_ranges_is_refused() {
        for text in ["", "1", "0.1", "2:5", "-0.1:5", "0.1:0.5", "0.1:1001", "nan:5", "0.1:inf"] {
            assert!(text.parse::<Tail>().is_err(), "{text}");
        }
        assert_eq!("0.5:3".parse(), Ok(Tail { fraction: 0.5, factor: 3.0 }));
    }
}
