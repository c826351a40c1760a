//! Apache Kafka's own command line tools, unmodified, in their usual modes: what they print and how
//! they end. With `TEST_BOOTSTRAP` they run against that cluster: every case passes against Kafka.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

#[path = "tools/groups.rs"]
mod groups;

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use aquifer_tests::{
    kafka_tools::{
        Says::{All, Exactly, Only},
        Tools,
    },
    process::{Place, Process},
};

/// Runs `uses` against a process of its own.
fn over_a_cluster(
    area: &str,
    uses: impl FnOnce(&mut Tools<'_>, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let (_process, bootstrap) = cluster(&place)?;
    let mut tools = Tools::new(bootstrap, folder.path());
    // A cluster that is not of this test may have its topics of an earlier run.
    let topic = format!("{area}-{}", std::process::id());
    uses(&mut tools, &topic)?;
    tools.finish(area)
}

fn cluster(place: &Place) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    match std::env::var("TEST_BOOTSTRAP") {
        Ok(address) => Ok((None, address.parse()?)),
        Err(_) => Ok((Some(place.up()?), place.kafka)),
    }
}

#[test]
fn topics() -> anyhow::Result<()> {
    over_a_cluster("topics", |tools, topic| {
        let create = ["--create", "--topic", topic];
        let exists = format!("Topic '{topic}' already exists.");
        let counts = |count: i32| format!("\tPartitionCount: {count}\tReplicationFactor: 1\t");
        let last = |index: i32| format!("\tTopic: {topic}\tPartition: {index}\tLeader: ");
        let begin = format!("Topic: {topic}\tTopicId: ");

        let with = ["--partitions", "3", "--replication-factor", "1", "--config"];
        let words = [&create[..], &with, &["retention.ms=3600000"]].concat();
        tools.expect("TopicCommand", &words, Exactly(&format!("Created topic {topic}.\n")));
        tools.refuses("TopicCommand", &create, &[&exists]);
        tools.expect("TopicCommand", &[&create[..], &["--if-not-exists"]].concat(), Exactly(""));
        tools.expect("TopicCommand", &["--list"], All(&[topic]));
        let describe = ["--describe", "--topic", topic];
        let texts = [&begin, &counts(3), "retention.ms=3600000", &last(2)];
        tools.expect("TopicCommand", &describe, Only(&texts, &[&last(3)]));
        let none = ["--describe", "--topic", "no-such"];
        tools.refuses("TopicCommand", &none, &["Topic 'no-such' does not exist as expected"]);
        let grow = |count| ["--alter", "--topic", topic, "--partitions", count];
        tools.expect("TopicCommand", &grow("5"), Exactly(""));
        tools.expect("TopicCommand", &describe, All(&[&counts(5), &last(4)]));
        let no_growth =
            format!("The topic {topic} currently has 5 partition(s); 2 would not be an increase.");
        tools.refuses("TopicCommand", &grow("2"), &[&no_growth]);
        tools.expect("TopicCommand", &["--describe", "--under-replicated-partitions"], Exactly(""));
        tools.expect("TopicCommand", &["--describe", "--unavailable-partitions"], Exactly(""));
        tools.expect("TopicCommand", &["--delete", "--topic", topic], Exactly(""));
        tools.expect("TopicCommand", &["--list"], Only(&[], &[topic]));
        Ok(())
    })
}

#[test]
fn configs() -> anyhow::Result<()> {
    over_a_cluster("configs", |tools, topic| {
        tools.expect("TopicCommand", &["--create", "--topic", topic], All(&["Created topic"]));
        let of_topic = ["--entity-type", "topics", "--entity-name", topic];
        let with = |words: &[&'static str]| -> Vec<String> {
            of_topic.iter().chain(words).map(|word| (*word).to_owned()).collect()
        };
        let mut config = |words: &[&'static str], says| {
            let words = with(words);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            tools.expect("ConfigCommand", &words, says);
        };
        let done = format!("Completed updating config for topic {topic}.\n");
        let own = format!("Dynamic configs for topic {topic} are:\n");
        config(
            &["--alter", "--add-config", "retention.ms=7200000,max.message.bytes=2000000"],
            Exactly(&done),
        );
        let texts = [
            own.as_str(),
            "  max.message.bytes=2000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:\
             max.message.bytes=2000000, DEFAULT_CONFIG:message.max.bytes=1048588}\n",
            "  retention.ms=7200000 sensitive=false \
             synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=7200000}\n",
        ];
        config(&["--describe"], All(&texts));
        config(&["--alter", "--delete-config", "retention.ms,max.message.bytes"], Exactly(&done));
        config(&["--describe"], Exactly(&own));
        let all = format!("All configs for topic {topic} are:\n");
        let texts = [
            all.as_str(),
            "  cleanup.policy=delete sensitive=false \
             synonyms={DEFAULT_CONFIG:log.cleanup.policy=delete}\n",
            "  max.message.bytes=1048588 ",
            "  retention.ms=604800000 ",
        ];
        config(&["--describe", "--all"], All(&texts));
        let unknown = with(&["--alter", "--add-config", "no.such=1"]);
        let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
        tools.refuses("ConfigCommand", &unknown, &["Unknown topic config name: no.such"]);
        let id = broker_id(tools)?;
        let of_broker = ["--entity-type", "brokers", "--entity-name", &id, "--describe", "--all"];
        let texts =
            [&format!("All configs for broker {id} are:\n"), "  message.max.bytes=1048588 "];
        tools.expect("ConfigCommand", &of_broker, All(&texts));
        let of_all = ["--entity-type", "brokers", "--entity-default", "--describe"];
        tools.expect(
            "ConfigCommand",
            &of_all,
            All(&["Default configs for brokers in the cluster"]),
        );
        Ok(())
    })
}

/// The id of the first broker, as a tool prints it.
fn broker_id(tools: &Tools<'_>) -> anyhow::Result<String> {
    let output = tools.run("BrokerApiVersionsCommand", &[], "")?;
    let out = String::from_utf8_lossy(&output.stdout);
    let id = out.split_once("(id: ").and_then(|(_, rest)| rest.split_once(' '));
    Ok(id.with_context(|| format!("an id in {out}"))?.0.to_owned())
}

#[test]
fn records() -> anyhow::Result<()> {
    over_a_cluster("records", |tools, topic| {
        let to = ["--topic", topic];
        let numbers: String = (1..=10).map(|number| format!("{number}\n")).collect();
        tools.expect_with("ConsoleProducer", &to, &numbers, Exactly(""));
        let keyed = [&to[..], &["--reader-property", "parse.key=true"]].concat();
        let keyed = [&keyed[..], &["--reader-property", "key.separator=:"]].concat();
        tools.expect_with("ConsoleProducer", &keyed, "k1:v1\nk2:v2\n", Exactly(""));
        let read = ["--from-beginning", "--max-messages", "12", "--timeout-ms", "30000"];
        let shown = ["--formatter-property", "print.key=true"];
        let shown = [&shown[..], &["--formatter-property", "print.offset=true"]].concat();
        let mut lines: String =
            (0..10).map(|at| format!("Offset:{at}\tnull\t{}\n", at + 1)).collect();
        lines.push_str("Offset:10\tk1\tv1\nOffset:11\tk2\tv2\n");
        let words = [&to[..], &read, &shown].concat();
        tools.expect("ConsoleConsumer", &words, Exactly(&lines));

        let ends = format!("{topic}:0:12\n");
        tools.expect("GetOffsetShell", &to, Exactly(&ends));
        let at = |time| [&to[..], &["--time", time]].concat();
        tools.expect("GetOffsetShell", &at("earliest"), Exactly(&format!("{topic}:0:0\n")));
        tools.expect("GetOffsetShell", &at("max-timestamp"), Exactly(&format!("{topic}:0:11\n")));
        tools.expect("GetOffsetShell", &at("1"), Exactly(&format!("{topic}:0:0\n")));
        let partition = format!("{topic}:0");
        tools.expect("GetOffsetShell", &["--topic-partitions", &partition], Exactly(&ends));

        let text = format!(
            "{{\"version\":1,\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":5}}]}}"
        );
        let file = tools.file("delete.json", &text)?;
        let deleted = format!(
            "Executing records delete operation\nRecords delete operation completed:\n\
             partition: {topic}-0\tlow_watermark: 5\n"
        );
        tools.expect("DeleteRecordsCommand", &["--offset-json-file", &file], Exactly(&deleted));
        tools.expect("GetOffsetShell", &at("earliest"), Exactly(&format!("{topic}:0:5\n")));
        Ok(())
    })
}

#[test]
fn load() -> anyhow::Result<()> {
    over_a_cluster("load", |tools, topic| {
        let words = ["--topic", topic, "--num-records", "1000", "--record-size", "100"];
        let words = [&words[..], &["--throughput", "-1"]].concat();
        tools.expect("ProducerPerformance", &words, All(&["1000 records sent, "]));
        let words = ["--topic", topic, "--num-records", "1000", "--timeout", "30000"];
        tools.expect("ConsumerPerformance", &words, All(&["start.time, end.time, ", ", 1000, "]));
        let other = format!("{topic}-verifiable");
        let words = ["--topic", &other, "--max-messages", "3"];
        let sent = ["\"value\":\"2\",\"offset\":2,", "\"sent\":3,\"acked\":3,"];
        tools.expect("VerifiableProducer", &words, All(&sent));
        let group = format!("{topic}-group");
        let words = [&words[..], &["--group-id", &group]].concat();
        let read =
            ["\"count\":3,\"minOffset\":0,\"maxOffset\":2}", "\"offset\":3}],\"success\":true"];
        tools.expect("VerifiableConsumer", &words, All(&read));
        let third = format!("{topic}-latency");
        let words = ["--topic", &third, "--num-records", "20", "--producer-acks", "all"];
        let words = [&words[..], &["--record-size", "100"]].concat();
        tools.expect("EndToEndLatency", &words, All(&["Avg latency: ", "Percentiles: 50th = "]));
        Ok(())
    })
}

#[test]
fn groups() -> anyhow::Result<()> {
    over_a_cluster("groups", |tools, topic| {
        let group = &format!("{topic}-readers");
        tools.expect_with("ConsoleProducer", &["--topic", topic], "a\nb\nc\n", Exactly(""));
        let read = ["--topic", topic, "--group", group, "--from-beginning", "--max-messages", "3"];
        tools.expect("ConsoleConsumer", &read, Exactly("a\nb\nc\n"));

        let main = "ConsumerGroupCommand";
        tools.expect(main, &["--list"], All(&[group]));
        tools.expect("GroupsCommand", &["--list"], All(&[group, "Classic", "consumer"]));
        tools.expect("GroupsCommand", &["--list", "--consumer"], All(&[group]));
        let describe = ["--describe", "--group", group];
        tools.expect(
            main,
            &describe,
            All(&[
                "GROUP",
                &format!("Consumer group '{group}' has no active members."),
                topic,
                " 3 ",
            ]),
        );
        let state = [&describe[..], &["--state"]].concat();
        tools.expect(main, &state, All(&["COORDINATOR (ID)", "Empty", " 0"]));
        tools.expect(main, &[&describe[..], &["--members"]].concat(), All(&["#PARTITIONS"]));
        let unknown = ["--describe", "--group", "no-such-group"];
        // Kafka's tool ends with success all the same.
        tools.expect(main, &unknown, All(&["Group no-such-group not found."]));
        let reset = |how: &[&'static str]| -> Vec<String> {
            let words = ["--reset-offsets", "--group", group, "--topic", topic];
            words.iter().chain(how).map(|word| (*word).to_owned()).collect()
        };
        let mut resets = |how: &[&'static str], to: &str| {
            let words = reset(how);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let row = format!("0          {to}");
            tools.expect(main, &words, All(&["NEW-OFFSET", &row]));
        };
        resets(&["--to-earliest", "--dry-run"], "0");
        resets(&["--shift-by", "-2", "--execute"], "1");
        resets(&["--to-datetime", "2020-01-01T00:00:00.000", "--dry-run"], "0");
        tools.expect(main, &describe, All(&["0          1               3               2"]));
        let words = ["--delete-offsets", "--group", group, "--topic", topic];
        tools.expect(main, &words, All(&["Request succeeded for deleting offsets", "Successful"]));
        let deleted =
            format!("Deletion of requested consumer groups ('{group}') was successful.\n");
        tools.expect(main, &["--delete", "--group", group], Exactly(&deleted));
        tools.expect(main, &["--list"], Only(&[], &[group]));
        Ok(())
    })
}

#[test]
fn cluster_wide() -> anyhow::Result<()> {
    over_a_cluster("cluster", |tools, topic| {
        tools.expect("TopicCommand", &["--create", "--topic", topic], All(&["Created topic"]));
        tools.expect_with("ConsoleProducer", &["--topic", topic], "a\n", Exactly(""));
        let texts = ["(id: ", "Produce(0): 0 to 13 [usable: ", "Fetch(1): 4 to 18 [usable: "];
        tools.expect("BrokerApiVersionsCommand", &[], All(&texts));
        let id = broker_id(tools)?;
        ensure!(id.parse::<i32>().is_ok(), "{id}");
        tools.expect("ClusterTool", &["cluster-id"], All(&["Cluster ID: "]));
        tools.expect(
            "FeatureCommand",
            &["describe"],
            All(&[
                "Feature: metadata.version",
                "FinalizedVersionLevel: 4.3-IV0",
                "Feature: group.version",
                "FinalizedVersionLevel: 1 ",
            ]),
        );
        let texts = ["ClusterId: ", "LeaderId: ", "CurrentVoters: "];
        tools.expect("MetadataQuorumCommand", &["describe", "--status"], All(&texts));
        let partition = format!("{{\"partition\":\"{topic}-0\",\"size\":");
        let from = format!("Received log directory information from brokers {id}\n");
        let texts = [from.as_str(), &partition, "\"offsetLag\":0,\"isFuture\":false"];
        tools.expect("LogDirsCommand", &["--describe", "--topic-list", topic], All(&texts));
        let elect = ["--election-type", "preferred", "--topic", topic, "--partition", "0"];
        let elected = format!("Valid replica already elected for partitions {topic}-0\n");
        tools.expect("LeaderElectionCommand", &elect, Exactly(&elected));
        let all = ["--election-type", "preferred", "--all-topic-partitions"];
        tools.expect("LeaderElectionCommand", &all, Exactly(""));
        reassignment(tools, topic, &id)
    })
}

fn reassignment(tools: &mut Tools<'_>, topic: &str, id: &str) -> anyhow::Result<()> {
    let main = "ReassignPartitionsCommand";
    tools.expect(main, &["--list"], Exactly("No partition reassignments found.\n"));
    let text = format!("{{\"version\":1,\"topics\":[{{\"topic\":\"{topic}\"}}]}}");
    let file = tools.file("move.json", &text)?;
    let words = ["--generate", "--topics-to-move-json-file", &file, "--broker-list", id];
    let proposed = format!(
        "Proposed partition reassignment configuration\n{{\"version\":1,\"partitions\":[{{\"topic\":\
         \"{topic}\",\"partition\":0,\"replicas\":[{id}],\"log_dirs\":[\"any\"]}}]}}"
    );
    tools.expect(main, &words, All(&["Current partition replica assignment\n", &proposed]));
    let text = format!(
        "{{\"version\":1,\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\"replicas\":[{id}]\
         ,\"log_dirs\":[\"any\"]}}]}}"
    );
    let file = &tools.file("assignment.json", &text)?;
    let started = format!("Successfully started partition reassignment for {topic}-0");
    tools.expect(main, &["--execute", "--reassignment-json-file", file], All(&[&started]));
    let done = format!("Reassignment of partition {topic}-0 is completed.");
    tools.expect(main, &["--verify", "--reassignment-json-file", file], All(&[&done]));
    Ok(())
}
