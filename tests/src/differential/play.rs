//! Plays an area's steps against one server.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{
    codec,
    normal::Tokens,
    path::lookup,
    recorded::Answered,
    schema::{self, Message},
    script::{Action, Area, Step},
    variables::Variables,
};
use crate::{
    client::succeeded,
    process::tool,
    raw::{Bytes, Connection, Heard, frame},
};

/// How long a step with `until` is asked again.
const UNTIL_MAX: Duration = Duration::from_secs(5);
/// A step that takes longer is named: it asks for something that never comes.
const SLOW: Duration = Duration::from_secs(3);
/// How long nothing must come where no answer is expected.
const SILENCE: Duration = Duration::from_millis(500);
/// What is asked without waiting is there after this, before the next step is.
const ARRIVAL: Duration = Duration::from_millis(150);

struct Server {
    address: SocketAddr,
    connections: BTreeMap<String, Connection>,
    variables: Variables,
    unmet: Vec<String>,
    /// What was asked without waiting, by connection.
    asked: BTreeMap<String, (&'static Message, i16)>,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Played {
    /// In the steps' order, in their normal form.
    pub answers: Vec<Answered>,
    /// Steps whose `until` did not come true.
    pub unmet: Vec<String>,
}

/// Plays the steps in their order.
///
/// # Errors
/// The step that could not be played.
pub fn play(area: &Area, address: SocketAddr) -> anyhow::Result<Played> {
    let mut server = Server {
        address,
        connections: BTreeMap::new(),
        variables: Variables::default(),
        unmet: Vec::new(),
        asked: BTreeMap::new(),
    };
    server.introduce().context("ask who is there")?;
    let mut tokens = Tokens::new(&server.variables);
    let mut answers = Vec::new();
    for step in &area.steps {
        let versions = match &step.action {
            Action::Request { versions, .. } | Action::Answer(Some(versions)) => {
                versions.clone().map(Some).collect()
            }
            _ => vec![None],
        };
        for version in versions {
            let name = match version {
                Some(version) => format!("{}@{version}", step.name),
                None => step.name.clone(),
            };
            let begun = Instant::now();
            let answer = server.step(step, version);
            if SLOW < begun.elapsed() {
                eprintln!("{}: step {name} took {:?}", area.name, begun.elapsed());
            }
            let answer = answer.with_context(|| format!("{}: step {name}", area.name))?;
            answers.push(Answered { step: name, answer: tokens.normal(&answer) });
        }
    }
    Ok(Played { answers, unmet: server.unmet })
}

impl Server {
    /// Learns the server's own id and its cluster's.
    fn introduce(&mut self) -> anyhow::Result<()> {
        let answer = self.request("first", ("Metadata", 12, &json!({ "topics": [] })), false)?;
        let found = |path| lookup(&answer, path).cloned().with_context(|| format!("{answer}"));
        self.variables.set("node", found("brokers.0.nodeId")?);
        self.variables.set("cluster", found("clusterId")?);
        self.variables.set("address", self.address.to_string().into());
        Ok(())
    }

    fn step(&mut self, step: &Step, version: Option<i16>) -> anyhow::Result<Value> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        self.variables.set("now", u64::try_from(now)?.into());
        self.variables.set("version", version.into());
        let deadline = Instant::now() + UNTIL_MAX;
        let answer = loop {
            let answer = self.act(step, version)?;
            let Some((path, value)) = &step.until else { break answer };
            // Nothing will come of asking again what is not served.
            let is_refused = !answer.is_object();
            if lookup(&answer, path) == Some(value) {
                break answer;
            }
            if is_refused || deadline < Instant::now() {
                self.unmet.push(format!("{}: {path} = {value} in {answer}", step.name));
                break answer;
            }
            sleep(Duration::from_millis(100));
        };
        for (name, path) in &step.keep {
            let kept = lookup(&answer, path).with_context(|| format!("no {path} in {answer}"))?;
            self.variables.set(&self.variables.spliced(name)?, kept.clone());
        }
        Ok(answer)
    }

    fn act(&mut self, step: &Step, version: Option<i16>) -> anyhow::Result<Value> {
        let connection = self.variables.spliced(&step.connection)?;
        match (&step.action, version) {
            (Action::Request { api, body, .. }, Some(version)) => {
                let asked = (api.as_str(), version, &self.variables.filled(body)?);
                match step.later {
                    false => self.request(&connection, asked, step.unanswered),
                    true => self.ask_later(&connection, asked),
                }
            }
            (Action::Raw(payload), _) => {
                let heard = self.exchange(&connection, payload, step.unanswered)?;
                Ok(match heard {
                    Heard::Frame(frame) => codec::shown(&frame),
                    other => without_frame(&other),
                })
            }
            (Action::Answer(_), _) => self.take_answer(&connection, step.unanswered),
            (Action::Run { command, argument }, _) => {
                run(self.address, command, &self.variables.filled(argument)?)
            }
            (Action::Request { .. }, None) => bail!("a request has a version"),
        }
    }

    fn request(
        &mut self,
        connection: &str,
        (api, version, body): (&str, i16, &Value),
        unanswered: bool,
    ) -> anyhow::Result<Value> {
        let (request, response) = schema::api(api)?;
        let heard = self.exchange(connection, &payload(request, version, body)?, unanswered)?;
        told(response, version, &heard)
    }

    /// Sends a request without waiting for its answer.
    fn ask_later(
        &mut self,
        connection: &str,
        (api, version, body): (&str, i16, &Value),
    ) -> anyhow::Result<Value> {
        let (request, response) = schema::api(api)?;
        let payload = payload(request, version, body)?;
        self.connection(connection)?.send(&frame(&payload))?;
        let before = self.asked.insert(connection.to_owned(), (response, version));
        ensure!(before.is_none(), "the answer before on connection {connection} was not taken");
        sleep(ARRIVAL);
        Ok("asked".into())
    }

    /// The answer to what was asked without waiting.
    fn take_answer(&mut self, connection: &str, unanswered: bool) -> anyhow::Result<Value> {
        let asked = self.asked.remove(connection);
        let (response, version) = asked.with_context(|| format!("nothing asked: {connection}"))?;
        let heard = self.hear(connection, unanswered)?;
        if heard == Heard::Silence {
            // A server that answers in order answers nothing else over it.
            self.connections.remove(connection);
        }
        told(response, version, &heard)
    }

    /// Sends a frame over a connection, which is opened anew when it was closed.
    fn exchange(&mut self, name: &str, payload: &[u8], brief: bool) -> anyhow::Result<Heard> {
        self.connection(name)?.send(&frame(payload))?;
        self.hear(name, brief)
    }

    fn connection(&mut self, name: &str) -> anyhow::Result<&mut Connection> {
        if !self.connections.contains_key(name) {
            self.connections.insert(name.to_owned(), Connection::open(self.address)?);
        }
        Ok(self.connections.get_mut(name).expect("it was put there"))
    }

    fn hear(&mut self, name: &str, brief: bool) -> anyhow::Result<Heard> {
        let connection = self.connection(name)?;
        connection.patience(if brief { SILENCE } else { crate::raw::ANSWER_MAX })?;
        let heard = connection.hear()?;
        // What was expected and did not come blocks what comes after it.
        if heard == Heard::Closed || (heard == Heard::Silence && !brief) {
            self.connections.remove(name);
        }
        Ok(heard)
    }
}

const CORRELATION: i32 = 77;

/// A request with its header.
fn payload(request: &Message, version: i16, body: &Value) -> anyhow::Result<Vec<u8>> {
    let header = Bytes::new().i16(request.key).i16(version).i32(CORRELATION);
    let header = header.string("differential");
    let header = if request.is_flexible(version) { header.uvarint(0) } else { header };
    Ok(header.raw(&codec::encode(request, version, body)?).0)
}

/// What was heard, as a step's answer.
fn told(response: &Message, version: i16, heard: &Heard) -> anyhow::Result<Value> {
    match heard {
        Heard::Frame(frame) => {
            ensure!(frame.starts_with(&CORRELATION.to_be_bytes()), "another request's answer");
            answer(response, version, &frame[4..])
        }
        other => Ok(without_frame(other)),
    }
}

fn without_frame(heard: &Heard) -> Value {
    match heard {
        Heard::Closed => "the connection was closed".into(),
        _ => "no answer".into(),
    }
}

/// The body behind a response's header.
fn answer(response: &Message, version: i16, frame: &[u8]) -> anyhow::Result<Value> {
    const API_VERSIONS: i16 = 18;
    if response.key == API_VERSIONS {
        // Its header has no tagged fields in any version, and what it does not know it answers
        // in version 0.
        let known = codec::decode(response, version, frame);
        return known.or_else(|_| codec::decode(response, 0, frame));
    }
    let behind = match response.is_flexible(version) {
        true => frame.strip_prefix(&[0]).context("tagged fields in a response's header")?,
        false => frame,
    };
    codec::decode(response, version, behind)
}

/// Runs a client program: `COMMAND.. BOOTSTRAP ARGUMENT`, which prints one JSON value.
fn run(address: SocketAddr, command: &[String], argument: &Value) -> anyhow::Result<Value> {
    let (program, command) = command.split_first().context("a program's name")?;
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut process = match program.as_str() {
        "librdkafka" => {
            let mut process = Command::new(tool("TEST_PYTHON")?);
            process.arg(clients.join("python/ask.py"));
            process
        }
        other => bail!("no client program is named {other}"),
    };
    process.args(command).arg(address.to_string()).arg(argument.to_string());
    let printed = succeeded(program, process.stdin(Stdio::null()).output()?)?;
    serde_json::from_str(&printed).with_context(|| printed)
}
