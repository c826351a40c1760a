//! The messages of Kafka 4.3.1, from the same table the agent's codec is made of.

#[path = "../../../agent/build/parse.rs"]
#[allow(dead_code, missing_docs)]
mod parse;

use std::sync::LazyLock;

use anyhow::Context;
pub use parse::{Field, Message, Scalar, Type};

static TABLE: LazyLock<Vec<Message>> = LazyLock::new(|| {
    parse::table(include_str!("../../../agent/src/wire/messages.txt")).expect("the agent builds")
});

/// The request and the response of an API, by Kafka's name of it.
///
/// # Errors
/// There is no such API.
pub fn api(name: &str) -> anyhow::Result<(&'static Message, &'static Message)> {
    let find =
        |suffix: &str| TABLE.iter().find(|message| message.name == format!("{name}{suffix}"));
    let request = find("Request").with_context(|| format!("there is no API named {name}"))?;
    let response = find("Response").with_context(|| format!("{name} has no response"))?;
    Ok((request, response))
}
