//! Laws of the limits.

#![allow(clippy::disallowed_methods, reason = "a test may unwrap")]

use clap::Parser;
use hdrhistogram::Histogram;

use super::{
    figures::{Sample, Spread},
    machine::{Jiffies, jiffies, others_share},
    *,
};

const SHORT: Duration = Duration::from_millis(30);

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: LimitsArgs,
}

fn args(line: &str) -> Result<LimitsArgs, clap::Error> {
    let words = std::iter::once("limits").chain(line.split_whitespace());
    Command::try_parse_from(words).map(|command| command.args)
}

fn sample(mib: u64, cpu_ms: u64, wall_ms: u64) -> Sample {
    let (cpu, wall) = (Duration::from_millis(cpu_ms), Duration::from_millis(wall_ms));
    Sample { bytes: mib << 20, cpu, wall }
}

#[test]
fn throughput_is_bytes_over_the_threads_own_time_and_over_the_walls() {
    let samples = [sample(1024, 500, 1000), sample(1024, 250, 1000), sample(1024, 1000, 2000)];
    let throughput = Throughput::of(&samples).unwrap();
    assert_eq!(throughput.gib_per_cpu_s, Spread { median: 2.0, min: 1.0, max: 4.0 });
    assert_eq!(throughput.gib_per_s, Spread { median: 1.0, min: 0.5, max: 1.0 });
    let cost = Cost::of(&samples).unwrap();
    assert_eq!(cost.cpu_s_per_gib, Spread { median: 0.5, min: 0.25, max: 1.0 });
}

#[test]
fn a_median_of_an_even_number_is_between_the_two_in_the_middle() {
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    assert_eq!(Spread::of([7.0]).unwrap(), Spread { median: 7.0, min: 7.0, max: 7.0 });
}

#[test]
fn rounds_without_time_or_bytes_make_no_figure() {
    assert_eq!(Spread::of([]), None);
    assert_eq!(Spread::of([f64::INFINITY, f64::NAN]), None);
    assert_eq!(Throughput::of(&[sample(1, 0, 0)]), None);
    assert_eq!(Cost::of(&[sample(0, 0, 0)]), None);
}

#[test]
fn figures_have_four_significant_digits() {
    let digits = |value: f64| Spread::of([value]).unwrap().median;
    assert_eq!(digits(123_456.0), 123_500.0);
    assert_eq!(digits(0.000_123_456), 0.000_123_5);
    assert_eq!(digits(0.0), 0.0);
    assert_eq!(digits(99_999.0), 100_000.0);
}

#[test]
fn round_trips_are_reported_in_microseconds() {
    let mut histogram: Histogram<u64> = figures::nanos_histogram();
    for nanos in [10_000, 12_000, 90_000] {
        histogram.record(nanos).unwrap();
    }
    let of = RoundTrip::of_nanos(&histogram);
    assert_eq!(of.count, 3);
    assert!((of.p50_us - 12.0).abs() < 0.02, "{of:?}");
    assert!((of.p99_us - 90.0).abs() < 0.1, "{of:?}");
}

#[test]
fn sizes_are_named_as_people_write_them() {
    let names = [1, 1000, 1024, 65_536, 1_048_576, 1_049_600, 4 << 20].map(figures::size_name);
    assert_eq!(names, ["1B", "1000B", "1KiB", "64KiB", "1MiB", "1025KiB", "4MiB"]);
}

#[test]
fn jiffies_are_busy_unless_idle_or_waiting_for_a_disk() {
    let stat = "cpu  10 1 5 100 20 2 3 4 50 0\ncpu0 1 2 3\n";
    assert_eq!(jiffies(stat), Some(Jiffies { busy: 25, total: 145 }));
    for other in ["", "cpu", "cpu 1 2 3", "cpu0 1 2 3 4 5", "cpu a b c d e", "cpu 1 2 3 -4 5"] {
        assert_eq!(jiffies(other), None, "{other}");
    }
    let huge = format!("cpu {0} {0} {0} {0} {0}", u64::MAX);
    assert_eq!(jiffies(&huge), None);
}

#[test]
fn others_have_what_was_busy_and_not_ours() {
    let from = Jiffies { busy: 100, total: 1000 };
    let share = |busy, total, own| others_share(from, Jiffies { busy, total }, own);
    assert_eq!(share(180, 1100, 0.5), Some(0.3));
    assert_eq!(share(110, 1100, 0.5), Some(0.0));
    assert_eq!(share(100, 1000, 0.5), None);
    assert_eq!(share(90, 990, 0.5), None);
}

#[test]
fn arguments_out_of_range_are_refused() {
    assert!(args("--only relay,disk").is_err());
    let refused = |line: &str| Plan::of(&args(line).unwrap()).is_err();
    for line in ["--seconds 0", "--seconds NaN", "--seconds 1e9", "--repeat 0", "--repeat 1001"] {
        assert!(refused(line), "{line}");
    }
    assert!(args("--store nonsense").unwrap().store.open().is_err());
    assert!(args("").unwrap().store.open().unwrap().is_none());
}

#[test]
fn all_limits_are_measured_unless_some_are_named() {
    let plan = |line: &str| Plan::of(&args(line).unwrap()).unwrap();
    assert!(plan("").wants(Limit::Touch) && plan("").wants_store());
    let named = plan("--only relay,rtt");
    assert!(named.wants(Limit::Relay) && named.wants(Limit::Rtt));
    assert!(!named.wants(Limit::Send) && !named.wants_store());
}

#[test]
fn a_thread_that_waits_uses_no_cpu_and_one_that_works_does() {
    let before = meter::thread_cpu();
    std::thread::sleep(SHORT);
    let waited = meter::thread_cpu() - before;
    assert!(waited < SHORT / 2, "{waited:?}");
    while meter::thread_cpu() - before < SHORT {
        std::hint::black_box(before);
    }
    assert!(meter::thread_cpu() <= meter::process_cpu());
}

#[test]
fn the_relay_is_charged_for_its_own_thread_only() {
    for write_bytes in [1 << 10, 64 << 10] {
        let sample = sockets::relay(write_bytes, 4 * SHORT).unwrap();
        assert!(0 < sample.bytes && sample.bytes.is_multiple_of(4 << 20), "{sample:?}");
        assert!(Duration::ZERO < sample.cpu, "{sample:?}");
        // Three threads on any number of cores: one's own time never exceeds the wall's.
        assert!(sample.cpu <= sample.wall + SHORT / 3, "{sample:?}");
    }
}

#[test]
fn sends_and_round_trips_end_by_themselves() {
    let sample = sockets::send(64 << 10, SHORT).unwrap();
    assert!(0 < sample.bytes && sample.cpu <= sample.wall + SHORT / 3, "{sample:?}");
    let mut histogram = figures::nanos_histogram();
    sockets::round_trips(SHORT, &mut histogram).unwrap();
    assert!(!histogram.is_empty());
}

#[test]
fn memory_is_measured_wherever_it_is() {
    for place in memory::Place::ALL {
        for sample in [memory::crc32c(place, SHORT), memory::copy(place, SHORT)] {
            assert!(0 < sample.bytes && Duration::ZERO < sample.cpu, "{place:?} {sample:?}");
        }
    }
}

#[test]
fn appends_leave_no_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut histogram = report::micros_histogram();
    disk::appends(folder.path(), 4096, SHORT, &mut histogram).unwrap();
    assert!(!histogram.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(disk::appends(&folder.path().join("no"), 1, SHORT, &mut histogram).is_err());
}

#[tokio::test]
async fn puts_and_gets_are_measured_and_their_objects_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("--store file:{}", folder.path().display());
    let store = args(&line).unwrap().store.open().unwrap().unwrap();
    let kinds = store::Kinds { put: true, get: true };
    let figures = store::measure(&store, kinds, SHORT / 3, 1).await.unwrap();
    let names: Vec<_> = figures.put.keys().map(String::as_str).collect();
    let expected = ["4KiB_x1", "4KiB_x4", "4MiB_x1", "4MiB_x4", "512KiB_x1", "512KiB_x4"];
    assert_eq!(names, expected);
    assert!(figures.get.keys().eq(figures.put.keys()));
    for (name, figure) in figures.put.iter().chain(&figures.get) {
        assert!(0 < figure.latency.count && 0.0 < figure.mib_per_s, "{name} {figure:?}");
    }
    assert!(store.list("", None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_not_a_figure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bucket");
    let line = format!("--store file:{}", path.display());
    let store = args(&line).unwrap().store.open().unwrap().unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "in the way").unwrap();
    let kinds = store::Kinds { put: true, get: false };
    assert!(store::measure(&store, kinds, SHORT, 1).await.is_err());
}

#[test]
fn without_store_and_data_the_report_says_what_it_lacks() {
    let line = "--only fsync,rtt --seconds 0.01 --repeat 2";
    let report = measure_local(&Plan::of(&args(line).unwrap()).unwrap()).unwrap();
    assert_eq!(report.skipped, ["fsync: --data"]);
    assert!(report.rtt_64_bytes.is_some() && report.relay.is_empty());
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("\"p50_us\"") && !text.contains("memcpy"), "{text}");
}
