//! What the benchmark of the metadata group says of itself, on small nodes.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: MetadataArgs,
}

fn args(line: &[&str]) -> MetadataArgs {
    Line::parse_from(["bench"].iter().chain(line)).args
}

#[test]
fn more_runs_than_partitions_and_empty_loads_are_refused() {
    for line in [
        ["--runs-per-commit", "9", "--topics", "2", "--partitions", "4"].as_slice(),
        &["--runs-per-commit", "0"],
        &["--agents", "0"],
        &["--committers", "0"],
        &["--voters", "2"],
        &["--seconds", "nan"],
    ] {
        assert!(args(line).shape().is_err(), "{line:?}");
    }
    assert!(args(&[]).shape().is_ok());
}

#[test]
fn a_run_and_a_batch_cost_few_bytes_of_log() {
    for idempotent in [false, true] {
        let shape = LoadShape { topics: 2, partitions: 512, runs: 8, batches: 1, idempotent };
        let bytes = LogBytes::of(shape);
        assert!(bytes.per_run <= 24.0 && bytes.per_batch <= 16.0, "{bytes:?}");
        assert!(5.0 < bytes.per_batch, "{bytes:?}");
        // Each run of another topic, whose 16 bytes of id are named once per commit.
        let bytes = LogBytes::of(LoadShape { topics: 16, partitions: 64, ..shape });
        assert!(bytes.per_run + bytes.per_batch <= 40.0, "{bytes:?}");
    }
}

#[test]
fn a_machine_is_filled_to_the_asked_number_of_runs() {
    let shape = LoadShape { topics: 2, partitions: 8, runs: 8, batches: 2, idempotent: true };
    let held = serde_json::to_value(held::measure(shape, 4, 2000).unwrap()).unwrap();
    assert_eq!(held["runs"], 2048);
    assert!(0.0 < held["snapshot_encode_s"].as_f64().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_of_a_load_is_counted_and_the_folder_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for client in [["--topics", "2"].as_slice(), &["--grpc"], &["--voters", "3"]] {
        let common = ["--data", data, "--agents", "3", "--seconds", "0.3"];
        let args = args(&[common.as_slice(), client].concat());
        let shape = args.shape().unwrap();
        let load = measure(&args, shape, 4, &system::seams()).await.unwrap();
        assert!(0 < load.latency.count && 0.0 < load.syncs_per_s, "{load:?}");
        assert!(load.entry_bytes_per_commit < load.disk_bytes_per_commit, "{load:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
