//! The command line: every command over sockets against a broker, its JSON parsed, its exit code
//! looked at. With `TEST_CLI_BROKER=host:port` the broker is that one, such as Apache Kafka's,
//! instead of an `aquifer up` of its own.

#![allow(clippy::disallowed_methods, reason = "real processes run on real clocks")]

#[path = "cli/groups.rs"]
mod groups;
#[path = "cli/operators.rs"]
mod operators;
#[path = "cli/shell.rs"]
mod shell;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::ensure;
use aquifer_tests::process::{Place, Process, free_address};
use serde_json::{Value, json};
use shell::Shell;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn help_teaches_by_example_and_nonsense_is_exit_code_2() -> anyhow::Result<()> {
    let shell = Shell::without_broker()?;
    for command in [
        "topic list",
        "topic create",
        "topic describe",
        "topic alter",
        "topic delete",
        "topic delete-records",
        "produce",
        "consume",
        "health",
        "group list",
        "group describe",
        "group lag",
        "group reset",
        "group delete",
        "config get",
        "config set",
        "config unset",
        "cluster status",
        "doctor",
        "completion",
    ] {
        let told = shell.run(&format!("{command} --help"))?.ok()?;
        assert!(
            told.contains("Examples:\n  ") || told.contains("Examples:\n"),
            "{command}: {told}"
        );
        assert!(told.contains("aquifer "), "{command}: {told}");
    }
    for (command, hint) in [
        ("topik list", "'topic'"),
        ("topic lst", "'list'"),
        ("topic list --output xml", "json"),
        ("topic alter orders", "--partitions"),
        ("consume orders --from yesterday", "no place"),
        ("consume orders --format %q", "%q is no token"),
        ("produce orders --timestamp noon", "no time"),
        ("produce orders --tombstone", "--key"),
        ("topic list --bootstrap :x", "--bootstrap"),
        ("config set topic orders nothing", "NAME=VALUE"),
        ("group reset g --topic t", "--to <WHERE>"),
        ("group reset g --topic t --to nowhere", "current"),
        ("group reset g --topic t:x --to 1", "TOPIC:0,2"),
        ("group reset g --topic t --to 1 --shift 1", "cannot be used with"),
    ] {
        let told = shell.run(command)?.refused(2)?;
        assert!(told.contains(hint), "{command}: {told}");
    }
    for kind in ["bash", "zsh", "fish"] {
        let script = shell.run(&format!("completion {kind}"))?.ok()?;
        assert!(script.contains("describe") && script.contains("consume"), "{kind}");
    }
    Ok(())
}

#[test]
fn a_broker_that_is_not_there_is_one_clear_line() -> anyhow::Result<()> {
    let shell = Shell::without_broker()?;
    let commands = ["topic list", "produce t v", "consume t", "group lag", "config get topic t"];
    for command in commands {
        let begun = Instant::now();
        let told = shell.run(command)?.refused(1)?;
        let wanted = format!("aquifer: cannot connect to {}: connection refused", shell.broker);
        assert!(told.starts_with(&wanted) && told.lines().count() == 1, "{command}: {told}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{command} took {:?}", begun.elapsed());
    }
    Ok(())
}

#[test]
fn what_listens_and_is_no_broker_is_told_within_the_timeout() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let shell = Shell::without_broker()?;
    let told = shell.run(&format!("topic list -b {address} --timeout 500ms"))?.refused(1)?;
    assert!(told.contains("does not answer as a Kafka broker: silent for 500ms"), "{told}");
    Ok(())
}

#[test]
fn a_probe_ends_with_0_only_for_a_process_that_serves() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place::new(folder.path().join("data"))?;
    let shell = Shell::without_broker()?;
    let probe = format!("health --http {} --timeout 2s", place.http);
    let told = shell.run(&probe)?.refused(1)?;
    let wanted = format!("aquifer: nothing healthy at http://{}/readyz", place.http);
    assert!(told.starts_with(&wanted) && told.lines().count() == 1, "{told}");
    let mut serving = place.up()?;
    assert_eq!(shell.run(&probe)?.ok()?, "ready\n");
    assert_eq!(shell.run(&format!("{probe} --live"))?.ok()?, "ok\n");
    // As in a container: the listener is on every address, and only the environment says so.
    let anywhere = format!("0.0.0.0:{}", place.http.port());
    let mut command = shell.command("health");
    assert!(command.env("AQUIFER_HTTP", anywhere).status()?.success());
    let told = shell.run(&format!("health --http {} --timeout 2s", place.kafka))?.refused(1)?;
    assert!(told.contains("does not speak HTTP"), "{told}");
    // What answers, and says that it is not ready: an agent whose metadata nodes are away.
    let alone = Place::new(folder.path().join("alone"))?;
    let (binary, nobody) = (aquifer_tests::process::tool("TEST_BIN")?, free_address()?.to_string());
    let store = format!("file:{}", folder.path().join("bucket").display());
    let mut agent = std::process::Command::new(binary);
    agent.args(["agent", "--metadata", &nobody, "--store", &store]);
    agent.args(["--kafka", &alone.kafka.to_string(), "--http", &alone.http.to_string()]);
    let _agent = Process::start("agent", &mut agent)?;
    let deadline = Instant::now() + PATIENCE;
    while shell.run(&format!("health --live --http {}", alone.http))?.ok().is_err() {
        ensure!(Instant::now() < deadline, "the agent does not live");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = shell.run(&format!("health --http {}", alone.http))?.refused(1)?;
    assert!(told.contains("/readyz answers 503"), "{told}");
    serving.kill()
}

#[test]
fn a_metadata_node_on_every_address_asks_for_one_that_agents_can_reach() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display();
    let shell = Shell::without_broker()?;
    let told = shell.run(&format!("metadata --listen 0.0.0.0:9340 --data {data}"))?.refused(1)?;
    assert!(told.contains("add --voters 1=HOST:9340"), "{told}");
    Ok(())
}

#[test]
fn topics_are_created_listed_described_and_deleted() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let (orders, copy) = (shell.name("orders"), shell.name("other"));
    let created =
        shell.json(&format!("topic create {orders} -p 3 -c retention.ms=86400000 -o json"))?;
    assert_eq!(created["topics"][0]["created"], true);
    assert_eq!(created["topics"][0]["partitions"], 3);
    let again = shell.run(&format!("topic create {orders} {copy} -p 1"))?;
    let told = again.refused(1)?;
    let words = format!("topic {orders}: Topic '{orders}' already exists. (TOPIC_ALREADY_EXISTS)");
    assert_eq!(told.trim_end(), format!("aquifer: {words}"));
    assert_eq!(again.stdout, format!("created topic {copy} with 1 partition\n"));
    let told = shell.run(&format!("topic create {orders} --if-not-exists"))?.ok()?;
    assert_eq!(told, format!("topic {orders} is there already\n"));

    let listed = shell.json("topic list -o json")?;
    let topics = listed["topics"].as_array().expect("a list");
    let row = topics.iter().find(|topic| topic["name"] == *orders).expect("it is listed");
    assert_eq!((&row["partitions"], &row["internal"]), (&json!(3), &json!(false)));
    let table = shell.run("topic list")?.ok()?;
    assert!(table.starts_with("topic "), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");

    let described = shell.json(&format!("topic describe {orders} -o json"))?;
    let topic = &described["topics"][0];
    assert_eq!(topic["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(topic["partitions"][2]["latest"], 0);
    let configs = topic["configs"].as_array().expect("a list");
    let retention = configs.iter().find(|config| config["name"] == "retention.ms");
    assert_eq!(retention.expect("it was set")["value"], "86400000");

    let typo = orders.replacen("orders", "ordrs", 1);
    for command in ["topic describe", "topic delete", "produce", "consume", "config get topic"] {
        let value = if command == "produce" { " v" } else { "" };
        let told = shell.run(&format!("{command} {typo}{value}"))?.refused(1)?;
        let wanted = format!("there is no topic {typo}; did you mean {orders}?");
        assert!(told.contains(&wanted), "{command}: {told}");
    }
    let deleted = shell.json(&format!("topic delete {orders} {copy} -o json"))?;
    assert_eq!(deleted, json!({ "deleted": [orders, copy] }));
    shell.run(&format!("topic delete {orders} --if-exists"))?.ok()?;
    shell.run(&format!("topic delete {orders}"))?.refused(1)?;
    Ok(())
}

#[test]
fn records_come_back_as_they_went_with_keys_headers_nulls_and_bytes() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("mixed", 5)?;
    let lines = b"a:1\nb:\nno separator\n\xff\xfe:\x00\x80\n".to_vec();
    let told = shell.feed(&format!("produce {topic} -K : -H trace=7 -H empty="), lines)?;
    assert_eq!(told.ok()?, "", "standard output has the answer, and there is none");
    shell.run(&format!("produce {topic} -k gone --tombstone"))?.ok()?;
    shell.feed(&format!("produce {topic} -i raw -k file"), b"line\nline\n".to_vec())?.ok()?;

    let read = |topic: &str| -> anyhow::Result<Vec<Value>> {
        let mut records = shell.lines(&format!("consume {topic} -o json"))?;
        records.sort_by_key(|record| (record["timestamp"].as_i64(), record["offset"].as_i64()));
        Ok(records)
    };
    let records = read(&topic)?;
    let find = |name: &str, key: Value| {
        let found = records.iter().find(|record| record[name] == key);
        found.unwrap_or_else(|| panic!("no record with {name} {key}")).clone()
    };
    let headers = json!([{"key": "trace", "value": "7"}, {"key": "empty", "value": ""}]);
    let first = find("key", json!("a"));
    assert_eq!((&first["value"], &first["headers"]), (&json!("1"), &headers));
    assert_eq!(first["timestamp_type"], "create");
    assert_eq!(find("key", json!("b"))["value"], "");
    assert_eq!(find("value", json!("no separator"))["key"], Value::Null);
    let binary = find("key_base64", json!("//4="));
    assert_eq!((&binary["value_base64"], &binary["value"]), (&json!("AIA="), &Value::Null));
    let gone = find("key", json!("gone"));
    assert!(gone.as_object().is_some_and(|fields| fields.contains_key("value")), "null is told");
    assert_eq!(gone["value"], Value::Null);
    assert_eq!(find("key", json!("file"))["value"], "line\nline\n");

    // What is printed can be produced again, and is the same.
    let copy = shell.topic("copy", 5)?;
    let printed = shell.run(&format!("consume {topic} -o json"))?.stdout;
    shell.feed(&format!("produce {copy} -i json"), printed.into_bytes())?.ok()?;
    let plain = |records: Vec<Value>| -> Vec<Value> {
        let mut records: Vec<Value> = records
            .into_iter()
            .map(|record| {
                let names = ["key", "key_base64", "value", "value_base64", "headers", "timestamp"];
                names.iter().map(|name| record[*name].clone()).collect()
            })
            .collect();
        records.sort_by_key(ToString::to_string);
        records
    };
    assert_eq!(plain(read(&copy)?), plain(records));
    Ok(())
}

#[test]
fn produce_tells_where_records_went_and_keys_go_where_java_puts_them() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("placed", 6)?;
    // murmur2 of Kafka's Java client, without the sign, modulo 6.
    for (key, hash) in [("21", -973_932_308i32), ("foobar", -790_332_482), ("abc", 479_470_107)] {
        let written = shell.lines(&format!("produce {topic} -k {key} v -o json"))?;
        assert_eq!(written[0]["partition"], (hash & i32::MAX) % 6, "{key}");
    }
    let written = shell.lines(&format!("produce {topic} -p 5 x y z -o json"))?;
    let first = written[0]["offset"].as_i64().expect("an offset");
    let offsets: Vec<Option<i64>> = written.iter().map(|row| row["offset"].as_i64()).collect();
    assert_eq!(offsets, [Some(first), Some(first + 1), Some(first + 2)]);
    let told = shell.run(&format!("consume {topic} -p 5 --from {first} -f %o=%s,"))?.ok()?;
    assert_eq!(told, format!("{first}=x,{}=y,{}=z,", first + 1, first + 2));
    let told = shell.run(&format!("produce {topic} -p 6 x"))?.refused(1)?;
    assert!(told.contains("has no partition 6: it has 6, from 0"), "{told}");
    let told = shell.feed(&format!("produce {topic} -i json"), b"{\"value\":1}\n".to_vec())?;
    assert!(told.refused(1)?.contains("line 1 of the input is no record"));
    let told = shell.run(&format!("produce {} v", shell.name("absent")))?.refused(1)?;
    assert!(told.contains("--create"), "{told}");
    let created = shell.name("made");
    shell.run(&format!("produce {created} v --create"))?.ok()?;
    assert_eq!(shell.run(&format!("consume {created}"))?.ok()?, "v\n");
    Ok(())
}

#[test]
fn consume_begins_and_ends_where_it_is_told() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("places", 1)?;
    let lines: String = (0..5000).map(|number| format!("{number}\n")).collect();
    shell.feed(&format!("produce {topic}"), lines.clone().into_bytes())?.ok()?;
    let read = |options: &str| shell.run(&format!("consume {topic} {options}"))?.ok();
    assert_eq!(read("")?, lines);
    assert_eq!(read("--from-beginning -n 2")?, "0\n1\n");
    assert_eq!(read("--tail 2")?, "4998\n4999\n");
    assert_eq!(read("--from -1")?, "4999\n");
    assert_eq!(read("--offset 4997 -n 1")?, "4997\n");
    assert_eq!(read("--tail 0")?, "");
    assert_eq!(read("--isolation read_committed --tail 1")?, "4999\n");
    assert_eq!(read("-n 2 -D ,")?, "0,1,");
    assert_eq!(read(r"-n 1 -K \t")?, "\t0\n");
    assert_eq!(read(r"--tail 1 -f %t[%p]@%o:%K:%S\n")?, format!("{topic}[0]@4999:-1:4\n"));
    Ok(())
}

#[test]
fn following_shows_records_as_they_come_and_ends_cleanly_on_ctrl_c() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("live", 2)?;
    shell.run(&format!("produce {topic} old"))?.ok()?;
    let mut command = shell.command(&format!("consume {topic} --follow"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line)?;
    assert_eq!(line, "old\n");
    for number in 0..3 {
        shell.run(&format!("produce {topic} new{number}"))?.ok()?;
        line.clear();
        output.read_line(&mut line)?;
        assert_eq!(line, format!("new{number}\n"));
    }
    shell::signal(&child, "INT")?;
    let begun = Instant::now();
    let status = child.wait()?;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    let (mut rest, mut told) = (String::new(), String::new());
    output.read_to_string(&mut rest)?;
    child.stderr.take().expect("it is piped").read_to_string(&mut told)?;
    assert_eq!((rest.as_str(), told.as_str()), ("", ""));
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let topic = shell.topic("pipe", 1)?;
    let lines = "0123456789012345678901234567890123456789\n".repeat(50_000);
    shell.feed(&format!("produce {topic}"), lines.into_bytes())?.ok()?;
    let mut command = shell.command(&format!("consume {topic}"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = BufReader::with_capacity(64, child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    output.read_line(&mut line)?;
    drop(output);
    let begun = Instant::now();
    let ended = child.wait_with_output()?;
    ensure!(begun.elapsed() < PATIENCE, "it went on");
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    Ok(())
}

#[test]
fn a_typed_record_is_written_before_the_input_ends() -> anyhow::Result<()> {
    use std::io::Write as _;
    let shell = Shell::start()?;
    let topic = shell.topic("typed", 1)?;
    let mut command = shell.command(&format!("produce {topic} -o json"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().expect("it is piped");
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    for offset in 0..3 {
        writeln!(input, "line {offset}")?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        assert_eq!(serde_json::from_str::<Value>(&line)?["offset"], offset);
    }
    drop(input);
    assert_eq!(child.wait()?.code(), Some(0));
    Ok(())
}

#[test]
fn the_cluster_is_shown_as_its_clients_see_it() -> anyhow::Result<()> {
    let shell = Shell::start()?;
    let told = shell.json(&format!("cluster status --bootstrap {} -o json", shell.broker))?;
    let brokers = told["brokers"].as_array().expect("a list");
    assert!(brokers.iter().any(|broker| broker["address"] == shell.broker), "{told}");
    assert!(told["cluster_id"].is_string(), "{told}");
    assert_eq!(told["quorum"]["nodes"].as_array().map(Vec::len), Some(1), "{told}");
    let table = shell.run(&format!("cluster status -b {}", shell.broker))?.ok()?;
    assert!(table.contains("broker") && table.contains(&shell.broker), "{table}");
    Ok(())
}
