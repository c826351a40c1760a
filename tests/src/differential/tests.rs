//! The harness checks itself: what it would not see, it could not judge.

use serde_json::{Value, json};

use super::{
    codec,
    compare::{Difference, differences},
    normal::Tokens,
    path::fits,
    schema,
    script::{self, Action, RuleKind},
    variables::Variables,
};

#[test]
fn what_is_written_is_read_in_every_version() -> anyhow::Result<()> {
    let body = json!({
        "topics": [{
            "name": "a", "numPartitions": 3, "replicationFactor": -1,
            "assignments": [{ "partitionIndex": 0, "brokerIds": [1, 2] }],
            "configs": [{ "name": "x", "value": null }]
        }],
        "timeoutMs": 5, "validateOnly": true
    });
    let (request, _) = schema::api("CreateTopics")?;
    for version in 2..=7 {
        let bytes = codec::encode(request, version, &body)?;
        assert_eq!(codec::decode(request, version, &bytes)?, body, "version {version}");
    }
    let unknown = codec::encode(request, 7, &json!({ "topic": [] }));
    assert!(unknown.is_err_and(|error| format!("{error:#}").contains("no field named topic")));
    Ok(())
}

#[test]
fn tagged_and_null_fields_and_records_survive() -> anyhow::Result<()> {
    let (_, response) = schema::api("Fetch")?;
    let partition = json!({
        "partitionIndex": 0, "errorCode": 0, "highWatermark": 1, "lastStableOffset": 1,
        "logStartOffset": 0, "currentLeader": { "leaderId": 4, "leaderEpoch": 5 },
        "abortedTransactions": null, "preferredReadReplica": -1,
        "records": { "records": [{ "key": "k", "value": null, "headers": [["h", "v"]] }] }
    });
    let topic = json!({ "topicId": "AAAAAAAAAAAAAAAAAAAAAQ", "partitions": [partition] });
    let body = json!({ "responses": [topic] });
    let read = codec::decode(response, 16, &codec::encode(response, 16, &body)?)?;
    let read = &read["responses"][0]["partitions"][0];
    assert_eq!(read["currentLeader"], json!({ "leaderId": 4, "leaderEpoch": 5 }));
    assert_eq!(read["abortedTransactions"], Value::Null);
    let batch = &read["records"][0];
    assert_eq!(batch["crc fits"], json!(true));
    assert_eq!(batch["records"][0]["headers"], json!([["h", "v"]]));
    assert_eq!(batch["records"][0]["timestamp"], batch["baseTimestamp"]);
    Ok(())
}

#[test]
fn a_file_of_steps_is_read_as_it_is_documented() -> anyhow::Result<()> {
    let text = "# comment\ndiffers * -- everywhere\nwith a.b=3\n\n= one\nMetadata 0-2 {topics: [\n\
                {name: 'a'}]}\non second\nkeep id = topics.0.topicId\nuntil topics.0.errorCode = 0\n\
                differs topics{a}.errorCode = 3 -- it is so\nmask x -- drawn\n\
                = two\nRaw '00 ff'\nunanswered\n= three\nAnswer 4-5\non c${version}\n= four\n\
                Metadata 1 {}\nlater\n";
    let area = script::parse("area", text)?;
    assert_eq!((area.rules.len(), area.steps.len()), (1, 4));
    assert_eq!(area.settings, [("a.b".to_owned(), "3".to_owned())]);
    let [one, two, three, four] = &area.steps[..] else { panic!("{area:?}") };
    let Action::Request { api, versions, body } = &one.action else { panic!("{one:?}") };
    assert_eq!((api.as_str(), versions.clone()), ("Metadata", 0..=2));
    assert_eq!(body, &json!({ "topics": [{ "name": "a" }] }));
    assert_eq!(one.connection, "second");
    assert_eq!(one.until, Some(("topics.0.errorCode".to_owned(), json!(0))));
    assert_eq!(one.rules[0].kind, RuleKind::Differs(Some(json!(3))));
    assert_eq!(one.rules[1].kind, RuleKind::Mask);
    assert!(matches!(&two.action, Action::Raw(bytes) if bytes == &[0, 0xff]) && two.unanswered);
    assert!(matches!(&three.action, Action::Answer(Some(versions)) if *versions == (4..=5)));
    assert!(four.later && !one.later);
    assert!(script::parse("area", "= one\nMetadata 1 {}\nwith a.b=3").is_err());
    assert!(script::parse("area", "= one\nMetadata 1 {}\n= one\nMetadata 1 {}").is_err());
    assert!(script::parse("area", "= one\nMetadatum 1 {}").is_err());
    Ok(())
}

#[test]
fn variables_stand_for_values_numbers_and_parts_of_texts() -> anyhow::Result<()> {
    let mut variables = Variables::default();
    variables.set("now", json!(1000));
    variables.set("ids", json!([1, 2]));
    let filled = variables.filled(&json!(["$now", "$now-1", "$ids", "at ${now}!", "plain"]))?;
    assert_eq!(filled, json!([1000, 999, [1, 2], "at 1000!", "plain"]));
    variables.set("version", json!(4));
    variables.set(&variables.spliced("id${version}")?, json!("x"));
    assert_eq!(variables.filled(&json!(["$id${version}", "$id4"]))?, json!(["x", "x"]));
    assert!(variables.filled(&json!("$nothing")).is_err());
    Ok(())
}

#[test]
fn drawn_values_are_compared_by_where_they_come_again() {
    let mut variables = Variables::default();
    variables.set("node", json!(7));
    let normal = |ids: [&str; 3]| {
        let uuid = "0123abcd-0000-1111-2222-333344445555";
        let topic = |name: &str, id: &str| json!({ "name": name, "topicId": id, "leaderId": 7 });
        let answer = json!({
            "topics": [topic("b", ids[1]), topic("a", ids[0])],
            "text": format!("{uuid} of {}", ids[2])
        });
        Tokens::new(&variables).normal(&answer)
    };
    let (a, b) = ("AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAAg");
    let once = normal([a, b, a]);
    assert_eq!(once["topics"][0]["name"], "a", "{once}");
    assert_eq!(once["topics"][0]["leaderId"], "<node>");
    assert_eq!(once["topics"][1]["topicId"], "<id of b>");
    assert!(differences(&once, &normal([b, a, b])).is_empty());
    assert_eq!(differences(&once, &normal([a, b, b])).len(), 1);
}

#[test]
fn members_are_told_apart_by_where_their_ids_came_first() {
    let mut variables = Variables::default();
    variables.set("node", json!(7));
    let normal = |first: &str, second: &str| {
        let member = |uuid: &str| json!({ "memberId": format!("c-{uuid}") });
        let mut tokens = Tokens::new(&variables);
        tokens.normal(&member(first));
        tokens.normal(&json!({ "members": [member(second), member(first)] }))
    };
    let (a, b) = ("0123abcd-0000-1111-2222-333344445555", "0123abcd-0000-1111-2222-333344446666");
    assert_eq!(normal(a, b), normal(b, a));
    assert_eq!(normal(a, b)["members"][0]["memberId"], "c-<uuid 1>");
}

#[test]
fn a_difference_is_named_by_labels_and_found_in_any_order() {
    let kafka = json!({ "topics": [{ "name": "a", "code": 1 }, { "name": "b", "code": 2 }] });
    let ours = json!({ "topics": [{ "name": "b", "code": 2 }, { "name": "a", "code": 3 }] });
    let expected = Difference {
        path: "topics{a}.code".to_owned(),
        kafka: Some(json!(1)),
        ours: Some(json!(3)),
    };
    assert_eq!(differences(&kafka, &ours), [expected]);
    assert!(fits("topics{*}.code", "topics{a}.code") && !fits("topics{*}.cod", "topics{a}.code"));
    let missing = differences(&kafka, &json!({ "topics": [{ "name": "a", "code": 1 }] }));
    assert_eq!(missing[0].path, "topics{b}");
    assert_eq!(missing[0].ours, None);
}
