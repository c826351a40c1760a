//! `kafka-consumer-groups.sh` in every mode, over groups of both protocols, with and without members.

use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use aquifer_tests::{
    client::Client,
    kafka_tools::{
        Says::{All, Exactly, Lines, Only},
        Tools,
    },
};

use super::over_a_cluster;

const MAIN: &str = "ConsumerGroupCommand";

const ABSENT: &str =
    "org.apache.kafka.common.errors.GroupIdNotFoundException: The group id does not exist.";
const NOT_EMPTY: &str =
    "org.apache.kafka.common.errors.GroupNotEmptyException: The group is not empty.";
const SUBSCRIBED: &str = "org.apache.kafka.common.errors.GroupSubscribedToTopicException: Deleting \
    offsets of a topic is forbidden while the consumer group is actively subscribed to it.";

fn not_deleted(why: &str) -> String {
    format!("* Group '{{g}}' could not be deleted due to: {why}")
}

/// A member of a group, killed when dropped.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Member {
    /// A member of the classic protocol that commits nothing.
    fn classic(tools: &Tools<'_>, group: &str, topic: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("kcat");
        command.args(["-b", &tools.bootstrap().to_string(), "-G", group, topic]);
        command.args(["-X", "enable.auto.commit=false", "-X", "session.timeout.ms=6000"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// A member of the new protocol that commits what it reads.
    fn consumer(tools: &Tools<'_>, group: &str, topic: &str) -> anyhow::Result<Self> {
        let bootstrap = tools.bootstrap().to_string();
        let words = ["group", &bootstrap, topic, group, "/no-such-file", "consumer"];
        let mut command = Client::Librdkafka.command(&words)?;
        Ok(Self(command.stdout(Stdio::null()).spawn()?))
    }
}

/// A topic with ten records in its first partition and three in the second.
fn ten_and_three(tools: &mut Tools<'_>, topic: &str) -> anyhow::Result<()> {
    let words = ["--create", "--topic", topic, "--partitions", "2"];
    tools.expect("TopicCommand", &words, All(&["Created topic"]));
    for (partition, count) in [("0", 10), ("1", 3)] {
        let mut command = Command::new("kcat");
        command.args(["-b", &tools.bootstrap().to_string(), "-P", "-t", topic, "-p", partition]);
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let lines = "record\n".repeat(count);
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), lines.as_bytes())?;
        ensure!(child.wait()?.success(), "kcat");
    }
    Ok(())
}

/// Uses of the tool about one group and topic.
struct Uses<'a, 'b> {
    tools: &'a mut Tools<'b>,
    group: &'a str,
    topic: &'a str,
}

impl Uses<'_, '_> {
    /// The words of a use, which `{g}` and `{t}` name the group and the topic in.
    fn named(&self, text: &str) -> String {
        text.replace("{g}", self.group).replace("{t}", self.topic)
    }

    /// A use must print these lines.
    fn lines(&mut self, words: &str, lines: &[&str]) {
        let (words, lines) = self.both(words, lines);
        let words: Vec<&str> = words.split(' ').collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.tools.expect(MAIN, &words, Lines(&lines));
    }

    /// A use must print these lines, and end with failure.
    fn refused(&mut self, words: &str, texts: &[&str]) {
        let (words, texts) = self.both(words, texts);
        let words: Vec<&str> = words.split(' ').collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.tools.refuses(MAIN, &words, &texts);
    }

    fn both(&self, words: &str, texts: &[&str]) -> (String, Vec<String>) {
        (self.named(words), texts.iter().map(|text| self.named(text)).collect())
    }

    /// A reset, by a way, of both partitions to these offsets: dry, and as Kafka exports it.
    fn resets(&mut self, how: &str, to: [&str; 2]) {
        let rows = [format!("{{g}} {{t}} 0 {}", to[0]), format!("{{g}} {{t}} 1 {}", to[1])];
        let words = format!("--reset-offsets --group {{g}} --topic {{t}} {how}");
        self.lines(&words, &["GROUP TOPIC PARTITION NEW-OFFSET", &rows[0], &rows[1]]);
    }
}

#[test]
fn a_group_without_members_in_every_mode() -> anyhow::Result<()> {
    over_a_cluster("groups-empty", |tools, topic| {
        ten_and_three(tools, topic)?;
        let group = &format!("{topic}-g");
        let mut uses = Uses { tools, group, topic };
        let made = ["{g} {t} 0 4", "{g} {t} 1 3"];
        uses.lines("--reset-offsets --group {g} --topic {t} --to-offset 4 --execute", &made);
        uses.lines("--list --state", &["GROUP STATE", "{g} Empty"]);
        uses.lines(
            "--list --state empty --type classic",
            &["GROUP TYPE STATE", "{g} Classic Empty"],
        );
        uses.lines("--list --type", &["GROUP TYPE", "{g} Classic"]);
        let words = ["--list", "--state", "stable", "--type", "consumer"];
        uses.tools.expect(MAIN, &words, Only(&[], &[group]));
        uses.refused(
            "--list --state nonsense",
            &["Invalid state list 'nonsense'. Valid states are:"],
        );
        uses.refused(
            "--list --type nonsense",
            &["Invalid types list 'nonsense'. Valid types are:"],
        );
        let nobody = "Consumer group '{g}' has no active members.";
        let heading =
            "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID";
        let rows = ["{g} {t} 0 4 10 6 - - -", "{g} {t} 1 3 3 0 - - -"];
        uses.lines("--describe --group {g}", &[nobody, heading, rows[0], rows[1]]);
        uses.lines("--describe --group {g} --offsets", &[nobody, heading, rows[0], rows[1]]);
        uses.lines("--describe --group {g} --offsets --verbose", &["{g} {t} 0 - 4 10 6 - - -"]);
        uses.lines("--describe --all-groups --offsets", &[rows[0], rows[1]]);
        uses.lines(
            "--describe --group {g} --members",
            &["GROUP CONSUMER-ID HOST CLIENT-ID #PARTITIONS"],
        );
        uses.lines("--describe --group {g} --state", &[nobody]);

        uses.resets("--to-earliest", ["0", "0"]);
        uses.resets("--to-latest --dry-run", ["10", "3"]);
        uses.resets("--to-current", ["4", "3"]);
        uses.resets("--to-offset 999", ["10", "3"]);
        uses.resets("--shift-by -2", ["2", "1"]);
        uses.resets("--shift-by 5", ["9", "3"]);
        uses.resets("--to-datetime 2020-01-01T00:00:00.000", ["0", "0"]);
        uses.resets("--to-datetime 2100-01-01T00:00:00.000", ["10", "3"]);
        uses.resets("--by-duration PT1H", ["0", "0"]);
        let export = "--reset-offsets --group {g} --topic {t}:0 --to-offset 7 --export --dry-run";
        uses.lines(export, &["{t},0,7"]);
        let saved = uses.named("{t},0,6\n{t},1,1\n");
        let file = uses.tools.file("offsets.csv", &saved)?;
        let from_file = format!("--reset-offsets --group {{g}} --from-file {file}");
        uses.lines(&format!("{from_file} --dry-run"), &["{g} {t} 0 6", "{g} {t} 1 1"]);
        uses.lines(&format!("{from_file} --execute"), &["{g} {t} 0 6", "{g} {t} 1 1"]);
        uses.lines("--reset-offsets --all-groups --all-topics --shift-by 1", &["{g} {t} 0 7"]);
        uses.lines("--describe --group {g}", &["{g} {t} 0 6 10 4 - - -", "{g} {t} 1 1 3 2 - - -"]);

        uses.lines("--delete-offsets --group {g} --topic {t}:0", &["{t} 0 Successful"]);
        uses.lines("--describe --group {g}", &["{g} {t} 1 1 3 2 - - -"]);
        let deleted = uses.named("Deletion of requested consumer groups ('{g}') was successful.\n");
        uses.tools.expect(MAIN, &["--delete", "--group", group], Exactly(&deleted));
        uses.lines("--delete --group {g}", &[&not_deleted(ABSENT)]);
        Ok(())
    })
}

#[test]
fn a_classic_group_with_a_member_in_every_mode() -> anyhow::Result<()> {
    over_a_cluster("groups-classic", |tools, topic| {
        ten_and_three(tools, topic)?;
        let group = &format!("{topic}-g");
        let _member = Member::classic(tools, group, topic)?;
        tools.until(MAIN, &["--describe", "--group", group, "--state"], "Stable")?;
        let mut uses = Uses { tools, group, topic };
        uses.lines("--list --state stable --type", &["GROUP TYPE STATE", "{g} Classic Stable"]);
        let told = ["--describe", "--group", group, "--members", "--verbose"];
        let assigned = uses.named("{t}:0,1");
        let texts = ["CURRENT-ASSIGNMENT", " rdkafka ", " 2 ", assigned.as_str()];
        uses.tools.expect(MAIN, &told, All(&texts));
        let told = ["--describe", "--group", group, "--state"];
        uses.tools.expect(MAIN, &told, All(&["ASSIGNMENT-STRATEGY", " range ", " Stable "]));
        let stable = "Error: Assignments can only be reset if the group '{g}' is inactive, but the \
                      current state is Stable.";
        let reset = "--reset-offsets --group {g} --topic {t} --to-earliest --execute";
        uses.lines(reset, &[stable]);
        let kept = format!("{{t}} 0 Error: {SUBSCRIBED}");
        uses.lines("--delete-offsets --group {g} --topic {t}:0", &[&kept]);
        uses.lines("--delete --group {g}", &[&not_deleted(NOT_EMPTY)]);
        Ok(())
    })
}

#[test]
fn a_consumer_group_in_every_mode() -> anyhow::Result<()> {
    over_a_cluster("groups-consumer", |tools, topic| {
        ten_and_three(tools, topic)?;
        let group = &format!("{topic}-g");
        let member = Member::consumer(tools, group, topic)?;
        tools.until(MAIN, &["--describe", "--group", group, "--state"], "Stable")?;
        let read = format!("{topic} 0 10 10 0 ");
        tools.until(MAIN, &["--describe", "--group", group], &read)?;
        let mut uses = Uses { tools, group, topic };
        uses.lines("--list --type consumer --state", &["GROUP TYPE STATE", "{g} Consumer Stable"]);
        let told = ["--describe", "--group", group, "--members", "--verbose"];
        let assigned = uses.named("{t}:0,1");
        let texts =
            ["CURRENT-EPOCH", "TARGET-EPOCH", "TARGET-ASSIGNMENT", " rdkafka ", assigned.as_str()];
        uses.tools.expect(MAIN, &told, All(&texts));
        let told = ["--describe", "--group", group, "--state", "--verbose"];
        let texts = ["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH", " uniform ", " Stable "];
        uses.tools.expect(MAIN, &told, All(&texts));
        let stable = "Error: Assignments can only be reset if the group '{g}' is inactive, but the \
                      current state is Stable.";
        uses.lines("--reset-offsets --group {g} --topic {t} --to-earliest --execute", &[stable]);
        let kept = format!("{{t}} 0 Error: {SUBSCRIBED}");
        uses.lines("--delete-offsets --group {g} --topic {t}:0", &[&kept]);
        uses.lines("--delete --group {g}", &[&not_deleted(NOT_EMPTY)]);
        drop(member);
        Ok(())
    })
}
