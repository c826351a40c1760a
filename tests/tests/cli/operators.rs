//! What operators do: groups, settings, more partitions, records by their time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use aquifer_agent::{
    bench::client::Connection,
    wire::{
        Str,
        messages::{
            JoinGroupRequest, JoinGroupRequestProtocols, JoinGroupResponse, LeaveGroupRequest,
            LeaveGroupResponse, OffsetCommitRequest, OffsetCommitRequestTopics,
            OffsetCommitRequestTopicsPartitions, OffsetCommitResponse, SyncGroupRequest,
            SyncGroupRequestAssignments, SyncGroupResponse,
        },
    },
};
use bytes::{BufMut as _, Bytes};
use serde_json::{Value, json};

use crate::{PATIENCE, shell::Shell};

/// A member of a classic group that reads partition 0 of a topic.
pub struct Member {
    connection: Connection,
    group: Str,
    id: Str,
    generation: i32,
}

impl Member {
    pub fn join(broker: &str, group: &str, topic: &str) -> anyhow::Result<Self> {
        let mut connection = Connection::open(broker)?;
        let group = Str::from(group);
        let mut subscription = Vec::new();
        subscription.put_i16(0);
        subscription.put_i32(1);
        subscription.put_i16(i16::try_from(topic.len())?);
        subscription.put_slice(topic.as_bytes());
        subscription.put_i32(-1);
        let request = JoinGroupRequest {
            group_id: group.clone(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocols {
                name: "range".into(),
                metadata: Bytes::from(subscription),
            }],
            ..JoinGroupRequest::default()
        };
        let begun = Instant::now();
        // The last version that gives a member id at once. A new cluster first has to set its
        // coordinator up.
        let joined: JoinGroupResponse = loop {
            let answer: JoinGroupResponse = connection.call_version(3, &request)?;
            if answer.error_code == 0 || PATIENCE < begun.elapsed() {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        ensure!(joined.error_code == 0, "join: {}", joined.error_code);
        let (id, generation) = (joined.member_id, joined.generation_id);
        let mut assignment = Vec::new();
        assignment.put_i16(0);
        assignment.put_i32(1);
        assignment.put_i16(i16::try_from(topic.len())?);
        assignment.put_slice(topic.as_bytes());
        assignment.put_i32(1);
        assignment.put_i32(0);
        assignment.put_i32(-1);
        let assignment = Bytes::from(assignment);
        let request = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: generation,
            member_id: id.clone(),
            assignments: vec![SyncGroupRequestAssignments { member_id: id.clone(), assignment }],
            ..SyncGroupRequest::default()
        };
        let synced: SyncGroupResponse = connection.call_version(2, &request)?;
        ensure!(synced.error_code == 0, "sync: {}", synced.error_code);
        Ok(Self { connection, group, id, generation })
    }

    pub fn commit(&mut self, topic: &str, offset: i64) -> anyhow::Result<()> {
        let partition = OffsetCommitRequestTopicsPartitions {
            committed_offset: offset,
            ..OffsetCommitRequestTopicsPartitions::default()
        };
        let topic = OffsetCommitRequestTopics {
            name: topic.into(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopics::default()
        };
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let answer: OffsetCommitResponse = self.connection.call_version(7, &request)?;
        ensure!(answer.topics[0].partitions[0].error_code == 0, "{answer:?}");
        Ok(())
    }

    pub fn leave(mut self) -> anyhow::Result<()> {
        let (group_id, member_id) = (self.group, self.id);
        let request = LeaveGroupRequest { group_id, member_id, ..LeaveGroupRequest::default() };
        let answer: LeaveGroupResponse = self.connection.call_version(1, &request)?;
        ensure!(answer.error_code == 0, "leave: {}", answer.error_code);
        Ok(())
    }
}

#[test]
fn a_group_is_listed_and_described_with_members_offsets_and_lag() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let (topic, group) = (shell.topic("read", 2)?, shell.name("billing"));
    shell.run(&format!("produce {topic} -p 0 a b c"))?.ok()?;
    let mut member = Member::join(&shell.broker, &group, &topic)?;
    member.commit(&topic, 1)?;

    let listed = shell.json("group list --state stable -o json")?;
    let groups = listed["groups"].as_array().expect("a list");
    let row = groups.iter().find(|row| row["group"] == *group).expect("it is listed");
    let told = (&row["type"], &row["protocol_type"], &row["state"]);
    assert_eq!(told, (&json!("classic"), &json!("consumer"), &json!("Stable")));
    let none = shell.json("group list --state Empty -o json")?;
    assert!(
        none["groups"].as_array().is_some_and(|rows| rows.iter().all(|r| r["group"] != *group))
    );

    let described = shell.json(&format!("group describe {group} -o json"))?;
    let told = &described["groups"][0];
    assert_eq!((&told["state"], &told["assignor"]), (&json!("Stable"), &json!("range")));
    let row = &told["members"][0];
    assert_eq!(
        (&row["client_id"], &row["member_id"]),
        (&json!("aquifer-bench"), &json!(&*member.id))
    );
    assert_eq!(row["partitions"], json!([{ "topic": topic, "partitions": [0] }]));
    let offset = json!({
        "topic": topic, "partition": 0, "committed": 1, "latest": 3, "lag": 2,
        "member_id": &*member.id,
    });
    assert_eq!(told["offsets"], json!([offset]));
    let table = shell.run(&format!("group describe {group}"))?.ok()?;
    assert!(table.contains("1 member, lag 2"), "{table}");

    member.leave()?;
    let described = shell.json(&format!("group describe {group} -o json"))?;
    let told = &described["groups"][0];
    assert_eq!((&told["state"], &told["members"]), (&json!("Empty"), &json!([])));
    let reader = &told["offsets"][0]["member_id"];
    assert_eq!((&told["offsets"][0]["lag"], reader), (&json!(2), &Value::Null));

    let typo = group.replacen("billing", "biling", 1);
    let told = shell.run(&format!("group describe {typo}"))?.refused(1)?;
    assert!(told.contains(&format!("there is no group {typo}; did you mean {group}?")), "{told}");
    Ok(())
}

#[test]
fn topics_get_more_partitions_and_never_fewer() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("grows", 1)?;
    shell.run(&format!("topic alter {topic} --partitions 3 --validate-only"))?.ok()?;
    let told = shell.run(&format!("topic alter {topic} --partitions 3"))?.ok()?;
    assert_eq!(told, format!("topic {topic} has 3 partitions now, 1 before\n"));
    let described = shell.json(&format!("topic describe {topic} -o json"))?;
    assert_eq!(described["topics"][0]["partitions"].as_array().map(Vec::len), Some(3));
    let told = shell.run(&format!("topic alter {topic} --partitions 2"))?.refused(1)?;
    let words = "currently has 3 partition(s); 2 would not be an increase. (INVALID_PARTITIONS)";
    assert!(told.contains(words), "{told}");
    Ok(())
}

#[test]
fn the_oldest_records_are_deleted_up_to_an_offset_and_the_others_stay() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("trimmed", 2)?;
    shell.run(&format!("produce {topic} -p 1 a b c d"))?.ok()?;
    let delete = format!("topic delete-records {topic}");
    let told = shell.run(&format!("{delete} --before 2 --partition 1"))?.ok()?;
    assert_eq!(told, format!("{topic} partition 1 begins at 2 now\n"));
    let read = shell.run(&format!("consume {topic} -f %o=%s;"))?.ok()?;
    assert_eq!(read, "2=c;3=d;");
    // An offset means one partition; a later one than the end means none.
    let told = shell.run(&format!("{delete} --before 2"))?.refused(2)?;
    assert!(told.contains("has 2 partitions") && told.contains("--partition"), "{told}");
    let told = shell.run(&format!("{delete} --before 5 -p 1"))?.refused(1)?;
    assert!(told.contains("OFFSET_OUT_OF_RANGE"), "{told}");
    let told = shell.run(&format!("{delete} --before 0 -p 7"))?.refused(1)?;
    assert!(told.contains("no partition 7: it has 2"), "{told}");
    for nonsense in ["-1", "soon", "2.5"] {
        let told = shell.run(&format!("{delete} --before={nonsense}"))?.refused(2)?;
        assert!(told.contains("an offset from 0, or end"), "{nonsense}: {told}");
    }
    let rows = json!([{"partition": 0, "earliest": 0}, {"partition": 1, "earliest": 4}]);
    let told = shell.json(&format!("{delete} --before end -o json"))?;
    assert_eq!(told, json!({ "topic": topic, "partitions": rows }));
    assert_eq!(shell.run(&format!("consume {topic}"))?.ok()?, "");
    Ok(())
}

#[test]
fn settings_are_shown_changed_and_taken_back() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("set", 1)?;
    let value = |name: &str| -> anyhow::Result<Value> {
        let told = shell.json(&format!("config get topic {topic} {name} -o json"))?;
        Ok(told["configs"][0]["value"].clone())
    };
    assert_eq!(value("retention.ms")?, "604800000");
    let set = format!("config set topic {topic} retention.ms=1000 max.message.bytes=2000");
    shell.run(&format!("{set} --validate-only"))?.ok()?;
    assert_eq!(value("retention.ms")?, "604800000");
    shell.run(&set)?.ok()?;
    assert_eq!(value("retention.ms")?, "1000");
    let told = shell.run(&format!("config get topic {topic}"))?.ok()?;
    assert!(told.contains("max.message.bytes") && told.contains("dynamic_topic_config"), "{told}");
    shell
        .run(&format!("topic alter {topic} -c retention.ms=2000 --unset max.message.bytes"))?
        .ok()?;
    assert_eq!(
        (value("retention.ms")?, value("max.message.bytes")?),
        (json!("2000"), json!("1048588"))
    );
    shell.run(&format!("config unset topic {topic} retention.ms"))?.ok()?;
    assert_eq!(value("retention.ms")?, "604800000");

    let told = shell.run(&format!("config get topic {topic} retention.m"))?.refused(1)?;
    assert!(told.contains("has no setting retention.m; did you mean retention.ms?"), "{told}");
    let told = shell.run(&format!("config set topic {topic} retentionms=1"))?.refused(1)?;
    let words =
        "Unknown topic config name: retentionms (INVALID_CONFIG); did you mean retention.ms?";
    assert!(told.contains(words), "{told}");
    let told = shell.run(&format!("config set topic {topic} retention.ms=soon"))?.refused(1)?;
    assert!(told.contains("INVALID_CONFIG"), "{told}");

    let group = shell.name("group");
    let set = format!("config set group {group} consumer.session.timeout.ms=50000");
    shell.run(&set)?.ok()?;
    let told = shell.json(&format!("config get group {group} -o json"))?;
    assert_eq!(told["configs"][0]["value"], "50000", "{told}");
    assert_eq!(told["configs"][0]["source"], "DYNAMIC_GROUP_CONFIG");
    let told = shell.run("config get broker 77")?.refused(1)?;
    assert!(told.contains("there is no broker 77"), "{told}");
    shell.run("config get broker default --all")?.ok()?;
    Ok(())
}

#[test]
fn records_are_found_by_their_time() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("timed", 1)?;
    for (time, value) in
        [("2024-01-01", "old"), ("2024-06-01T12:00:00Z", "mid"), ("1735689600000", "new")]
    {
        shell.run(&format!("produce {topic} --timestamp {time} {value}"))?.ok()?;
    }
    shell.run(&format!("produce {topic} now"))?.ok()?;
    let read = |from: &str| shell.run(&format!("consume {topic} --from {from}"))?.ok();
    assert_eq!(read("2023-01-01")?, "old\nmid\nnew\nnow\n");
    assert_eq!(read("2024-06-01T12:00:00Z")?, "mid\nnew\nnow\n");
    assert_eq!(read("@1735689600000")?, "new\nnow\n");
    assert_eq!(read("-5m")?, "now\n");
    assert_eq!(read("2099-01-01")?, "");
    Ok(())
}
