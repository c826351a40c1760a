//! The crates rdkafka and rskafka behind the common command line of README.md; the first argument
//! names the crate.

mod common;
mod with_rdkafka;
mod with_rskafka;

use anyhow::bail;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["rdkafka", "produce", bootstrap, topic, codec, path] => {
            with_rdkafka::produce(bootstrap, topic, codec, path, false).await
        }
        ["rdkafka", "idempotent", bootstrap, topic, codec, path] => {
            with_rdkafka::produce(bootstrap, topic, codec, path, true).await
        }
        ["rdkafka", "consume", bootstrap, topic, group, count] => {
            with_rdkafka::consume(bootstrap, topic, group, count.parse()?).await
        }
        ["rdkafka", "admin", bootstrap, topic, old, group, time] => {
            with_rdkafka::administrate(bootstrap, topic, old, group, time.parse()?).await
        }
        ["rskafka", "produce", bootstrap, topic, codec, path] => {
            with_rskafka::produce(bootstrap, topic, codec, path).await
        }
        // It knows no groups.
        ["rskafka", "consume", bootstrap, topic, _, count] => {
            with_rskafka::consume(bootstrap, topic, count.parse()?).await
        }
        ["rskafka", "admin", bootstrap, topic, old, _, time] => {
            with_rskafka::administrate(bootstrap, topic, old, time.parse()?).await
        }
        _ => bail!("no such command: {arguments:?}"),
    }
}
