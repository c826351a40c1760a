//! What operators do to groups: lag, reset, delete.

use std::time::{Duration, Instant};

use anyhow::ensure;
use aquifer_tests::process::http_get;
use serde_json::{Value, json};

use crate::{PATIENCE, operators::Member, shell::Shell};

/// A topic of two partitions with four records each, and a group that has read one of partition 0.
fn world(shell: &Shell) -> anyhow::Result<(String, String)> {
    let (topic, group) = (shell.topic("read", 2)?, shell.name("billing"));
    for partition in 0..2 {
        shell.run(&format!("produce {topic} -p {partition} a b c d"))?.ok()?;
    }
    let mut member = Member::join(&shell.broker, &group, &topic)?;
    member.commit(&topic, 1)?;
    member.leave()?;
    Ok((topic, group))
}

/// What the group committed, by partition.
fn committed(shell: &Shell, group: &str) -> anyhow::Result<Vec<(i64, i64)>> {
    let told = shell.json(&format!("group lag {group} -o json"))?;
    let rows = told["groups"][0]["offsets"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_i64().unwrap_or(-1);
    Ok(rows.iter().map(|row| (number(&row["partition"]), number(&row["committed"]))).collect())
}

#[test]
fn lag_is_told_by_partition_and_in_total() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let (topic, group) = world(&shell)?;
    shell.run(&format!("group reset {group} --topic {topic}:1 --to 3 --execute"))?.ok()?;
    let told = shell.json(&format!("group lag {group} -o json"))?;
    let told = &told["groups"][0];
    assert_eq!((&told["group"], &told["lag"]), (&json!(group), &json!(4)));
    let total = json!({ "topic": topic, "partitions": 2, "lag": 4, "lag_max": 3 });
    assert_eq!(told["topics"], json!([total]));
    let lags: Vec<Option<i64>> =
        (0..2).map(|partition| told["offsets"][partition]["lag"].as_i64()).collect();
    assert_eq!(lags, [Some(3), Some(1)]);
    let table = shell.run(&format!("group lag {group}"))?.ok()?;
    assert!(table.starts_with(&format!("{group}  lag 4\ntopic ")), "{table}");
    let all = shell.run("group lag --summary")?.ok()?;
    let row: Vec<&str> = all
        .lines()
        .find(|line| line.starts_with(&group))
        .expect("the group has a line")
        .split_whitespace()
        .collect();
    assert_eq!(row, [group.as_str(), topic.as_str(), "2", "4", "3"]);
    let typo = group.replacen("billing", "biling", 1);
    let told = shell.run(&format!("group lag {typo} {group} -o json"))?;
    assert!(told.stdout.contains(&group), "the others are told all the same");
    let words = format!("aquifer: there is no group {typo}; did you mean {group}?\n");
    assert_eq!(told.refused(1)?, words);
    Ok(())
}

#[test]
fn lag_is_a_metric_by_group_topic_and_partition() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let Some(http) = shell.http else { return Ok(()) }; // Kafka has none.
    let (topic, group) = world(&shell)?;
    let told = |lag: i64| -> anyhow::Result<()> {
        let labels = format!("group=\"{group}\",topic=\"{topic}\",partition=\"0\"");
        let line = format!("aquifer_group_lag{{{labels}}} {lag}");
        let begun = Instant::now();
        loop {
            let (_, text) = http_get(http, "/metrics")?;
            if text.lines().any(|told| told == line) {
                let rows = text.lines().filter(|told| told.starts_with("aquifer_group_lag{"));
                ensure!(rows.count() == 1, "only what was committed: {text}");
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "no {line} in {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    told(3)?;
    shell.run(&format!("produce {topic} -p 0 e f"))?.ok()?;
    told(5)?;
    shell.run(&format!("group reset {group} --topic {topic}:0 --to latest --execute"))?.ok()?;
    told(0)
}

#[test]
fn a_reset_is_shown_first_and_done_when_it_is_told_to() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let (topic, group) = world(&shell)?;
    let reset = |how: &str| shell.run(&format!("group reset {group} {how}"));
    let shown = reset(&format!("--topic {topic} --to latest"))?;
    assert!(shown.ok()?.contains("partition  committed  new  lag"), "{}", shown.stdout);
    assert_eq!(shown.refused(0)?, "nothing was changed: add --execute to do it\n");
    assert_eq!(committed(&shell, &group)?, [(0, 1)], "nothing was changed");

    let told =
        shell.json(&format!("group reset {group} --topic {topic} --to 2 --execute -o json"))?;
    let row = |partition: i32, committed: Option<i64>| {
        json!({ "topic": topic, "partition": partition, "committed": committed, "new": 2,
            "lag": 2 })
    };
    let rows = json!([row(0, Some(1)), row(1, None)]);
    assert_eq!(told, json!({ "group": group, "executed": true, "offsets": rows }));
    let done = |how: &str, expected: [i64; 2]| -> anyhow::Result<()> {
        reset(&format!("{how} --execute"))?.ok()?;
        assert_eq!(committed(&shell, &group)?, [(0, expected[0]), (1, expected[1])], "{how}");
        Ok(())
    };
    done("--all-topics --shift 1", [3, 3])?;
    done("--all-topics --shift -9", [0, 0])?;
    done("--all-topics --to 99", [4, 4])?;
    done(&format!("--topic {topic}:1 --to -1"), [4, 3])?;
    done("--all-topics --to current", [4, 3])?;
    done("--all-topics --to -1h", [0, 0])?;
    done("--all-topics --to 2100-01-01", [4, 4])?;
    done("--all-topics --to earliest", [0, 0])?;

    done(&format!("--topic {topic}:0 --to 1"), [1, 0])?;
    let saved = shell.run(&format!("group lag {group} -o json"))?.ok()?;
    done("--all-topics --to latest", [4, 4])?;
    let back = format!("group reset {group} --from-file - --execute");
    shell.feed(&back, saved.into_bytes())?.ok()?;
    assert_eq!(committed(&shell, &group)?, [(0, 1), (1, 0)], "what was saved is back");
    let lines = format!("{topic},0,3\n\"{group}\",\"{topic}\",1,2\nother,{topic},0,0\n");
    shell.feed(&back, lines.into_bytes())?.ok()?;
    assert_eq!(committed(&shell, &group)?, [(0, 3), (1, 2)], "as Kafka's tool exports them");
    let told = shell.feed(&back, b"orders,0\n".to_vec())?.refused(1)?;
    assert!(told.contains("line 1: expected [GROUP,]TOPIC,PARTITION,OFFSET"), "{told}");

    let told = reset(&format!("--topic {topic}:5 --to 1"))?.refused(1)?;
    assert!(told.contains("has no partition 5: it has 2, from 0"), "{told}");
    assert!(reset("--to 1")?.refused(2)?.contains("--all-topics"));
    let made = shell.name("made");
    let told = shell.run(&format!("group reset {made} --topic {topic} --shift 1"))?.refused(1)?;
    assert!(told.contains("it cannot be shifted, give --to"), "{told}");
    shell.run(&format!("group reset {made} --topic {topic} --to 1 --execute"))?.ok()?;
    assert_eq!(committed(&shell, &made)?, [(0, 1), (1, 1)], "a group is made");
    Ok(())
}

#[test]
fn some_of_what_a_group_committed_is_forgotten_and_the_group_stays() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let (topic, group) = world(&shell)?;
    shell.run(&format!("group reset {group} --topic {topic} --to 1 --execute"))?.ok()?;
    assert_eq!(committed(&shell, &group)?, [(0, 1), (1, 1)]);
    let told = shell.run(&format!("group delete {group} --topic {topic}:1"))?.ok()?;
    assert_eq!(told, format!("deleted offset 1 of {topic}/1\n"));
    assert_eq!(committed(&shell, &group)?, [(0, 1)]);
    let told = shell.run(&format!("group delete {group} --topic {topic}:1"))?.refused(1)?;
    assert!(told.contains(&format!("committed nothing of {topic}:1")), "{told}");
    let told = shell.run(&format!("group delete absent {group} --topic {topic}"))?.refused(2)?;
    assert!(told.contains("--topic is about one group"), "{told}");
    let told = shell.json(&format!("group delete {group} -t {topic} -o json"))?;
    let gone = json!([{ "topic": topic, "partition": 0, "offset": 1 }]);
    assert_eq!(told, json!({ "group": group, "deleted": gone }));
    Ok(())
}

#[test]
fn a_group_with_members_is_neither_reset_nor_deleted() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let (topic, group) = world(&shell)?;
    let member = Member::join(&shell.broker, &group, &topic)?;
    let told =
        shell.run(&format!("group reset {group} --topic {topic} --to 0 --execute"))?.refused(1)?;
    let words = format!("aquifer: group {group} has a member and is Stable: stop them first\n");
    assert_eq!(told, words);
    let told = shell.run(&format!("group delete {group}"))?.refused(1)?;
    assert_eq!(told, format!("aquifer: group {group} has members: stop them first\n"));
    let told = shell.run(&format!("group delete {group} --topic {topic}"))?.refused(1)?;
    let words = format!("aquifer: members of group {group} read {topic}/0: stop them first\n");
    assert_eq!(told, words);
    assert_eq!(committed(&shell, &group)?, [(0, 1)]);
    member.leave()?;

    let told = shell.json(&format!("group delete {group} -o json"))?;
    assert_eq!(told, json!({ "deleted": [group] }));
    let told = shell.run(&format!("group delete {group}"))?.refused(1)?;
    assert!(told.contains(&format!("there is no group {group}")), "{told}");
    shell.run(&format!("group delete {group} --if-exists"))?.ok()?;
    Ok(())
}
