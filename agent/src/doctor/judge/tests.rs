//! Laws of judge.

use aquifer_storage::probe::Verdict::{self, Ok as Fine};

use super::*;

fn folder_with(sync: Result<Duration, (ErrorKind, String)>, free_bytes: u64) -> FolderSeen {
    FolderSeen { path: "/data".to_owned(), exists: true, sync, free_bytes: Some(free_bytes) }
}

fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
    findings.iter().map(|finding| finding.verdict).collect()
}

#[test]
fn a_folder_is_judged_by_its_sync_and_its_room() {
    let fast = Ok(Duration::from_millis(2));
    assert_eq!(verdicts(&folder("data", &folder_with(fast.clone(), 1 << 31))), [Fine, Fine]);
    assert_eq!(verdicts(&folder("data", &folder_with(fast, 1 << 20))), [Fine, Warning]);
    let slow = Ok(Duration::from_millis(21));
    assert_eq!(verdicts(&folder("data", &folder_with(slow, 1 << 31)))[0], Warning);
    let denied = Err((ErrorKind::PermissionDenied, "denied".to_owned()));
    let found = folder("data", &folder_with(denied, 1 << 31));
    assert_eq!(found[0].verdict, Failed);
    assert!(found[0].advice.contains("chown"), "{}", found[0]);
}

#[test]
fn a_port_in_use_may_be_ours_and_a_foreign_address_never_works() {
    let address = "127.0.0.1:9092".parse().unwrap();
    let at = |bound| port("--kafka", address, bound).verdict;
    assert_eq!(at(Ok(())), Fine);
    assert_eq!(at(Err(ErrorKind::AddrInUse)), Warning);
    assert_eq!(at(Err(ErrorKind::AddrNotAvailable)), Failed);
    assert_eq!(at(Err(ErrorKind::PermissionDenied)), Failed);
}

#[test]
fn what_clients_are_told_must_lead_somewhere() {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let at = |listener: &str, resolved: &[&str]| {
        let resolved = Ok(resolved.iter().map(|text| ip(text)).collect());
        advertised("kafka", ip(listener), &resolved).verdict
    };
    assert_eq!(at("127.0.0.1", &["127.0.0.1"]), Fine);
    assert_eq!(at("0.0.0.0", &["10.0.0.1", "127.0.0.1"]), Fine);
    assert_eq!(at("0.0.0.0", &["127.0.0.1"]), Warning);
    assert_eq!(at("0.0.0.0", &["0.0.0.0"]), Failed);
    assert_eq!(at("0.0.0.0", &[]), Failed);
    assert_eq!(advertised("kafka", ip("::"), &Err("no".to_owned())).verdict, Failed);
}

#[test]
fn few_open_files_are_a_warning() {
    assert_eq!(open_files(None).verdict, Fine);
    assert_eq!(open_files(Some(10_000)).verdict, Fine);
    assert_eq!(open_files(Some(1024)).verdict, Warning);
}

fn lineage(number: u32, nonce: u64) -> Lineage {
    Lineage { number, nonce }
}

fn claim(cluster_id: &str, lineage: Lineage) -> Claimed {
    Ok(Some(ClusterFile { cluster_id: cluster_id.to_owned(), lineage }))
}

fn living(number: u32, nonce: u64) -> Life {
    Life { cluster_id: "a".to_owned(), lineage: lineage(number, nonce), has_leader: true }
}

#[test]
fn a_node_must_be_of_the_life_that_owns_the_prefix() {
    let claimed = claim("a", lineage(1, 7));
    let at = |seen: &Life, claimed| {
        let found = life("metadata", "node-1:9340", seen, claimed);
        (found.verdict, found.to_string())
    };
    assert_eq!(at(&living(1, 7), &claimed).0, Fine);
    let foreign = claim("b", lineage(1, 7));
    for (seen, claimed, words) in [
        (living(0, 7), &claimed, "restored since"),
        (living(1, 8), &claimed, "half way"),
        (living(2, 9), &claimed, "half way"),
        (living(1, 7), &foreign, "wrong one"),
        (living(1, 7), &Ok(None), "--store"),
    ] {
        let (verdict, text) = at(&seen, claimed);
        assert!(verdict == Failed && text.contains(words), "{text}");
    }
    let leaderless = Life { has_leader: false, ..living(1, 7) };
    assert_eq!(at(&leaderless, &claimed).0, Warning);
    assert_eq!(at(&living(1, 7), &Err("no answer".to_owned())).0, Fine);
}

#[test]
fn one_node_that_answers_is_enough_to_begin_with() {
    let claimed = claim("a", lineage(1, 7));
    let up = ("one:9340".to_owned(), Ok(living(1, 7)));
    let down = ("two:9340".to_owned(), Err("refused".to_owned()));
    assert_eq!(verdicts(&nodes(&[up, down.clone()], &claimed)), [Fine, Warning]);
    assert_eq!(verdicts(&nodes(&[down.clone(), down], &claimed)), [Failed, Failed]);
    assert!(nodes(&[], &claimed).is_empty());
}

#[test]
fn an_unread_claim_is_unknown() {
    assert_eq!(prefix(&Ok(None)).verdict, Fine);
    assert_eq!(prefix(&claim("a", lineage(0, 1))).verdict, Fine);
    assert_eq!(prefix(&Err("denied".to_owned())).verdict, Unknown);
}
