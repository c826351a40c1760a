//! The Dockerfile and the compose files, held against each other and against the command line: no
//! container engine runs where these tests do.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use aquifer_agent::config::Cli;
use clap::{CommandFactory as _, Parser as _};
use serde_yaml_ng::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Dockerfile's instructions, as (word, rest), with continued lines in one.
fn instructions() -> anyhow::Result<Vec<(String, String)>> {
    let text = fs::read_to_string(root().join("Dockerfile"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let joined = lines.fold(String::new(), |joined, line| match line.strip_suffix('\\') {
        Some(begun) => joined + begun,
        None => joined + line + "\n",
    });
    let split = |line: &str| {
        let (word, rest) = line.split_once(' ').with_context(|| format!("alone: {line}"))?;
        Ok((word.to_owned(), rest.trim().to_owned()))
    };
    joined.lines().map(split).collect()
}

/// What the last stage says after `word`, which it says once.
fn instruction(word: &str) -> anyhow::Result<String> {
    let all = instructions()?;
    let from = all.iter().rposition(|(word, _)| word == "FROM").context("FROM")?;
    let mut said = all[from..].iter().filter(|(said, _)| said == word).map(|(_, rest)| rest);
    let rest = said.next().with_context(|| format!("the Dockerfile has no {word}"))?;
    ensure!(said.next().is_none(), "{word} is there twice");
    Ok(rest.clone())
}

/// `NAME=VALUE` pairs of the image's environment.
fn image_environment() -> anyhow::Result<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').context(pair.to_owned())?;
        Ok((name.to_owned(), value.to_owned()))
    };
    instruction("ENV")?.split_whitespace().map(pair).collect()
}

/// The port that the image gives a listener.
fn image_port(listener: &str) -> anyhow::Result<u16> {
    let environment = image_environment()?;
    let found = environment.iter().find(|(name, _)| name == listener).context(listener.to_owned());
    Ok(found?.1.rsplit(':').next().unwrap_or_default().parse()?)
}

fn exposed() -> anyhow::Result<BTreeSet<u16>> {
    Ok(instruction("EXPOSE")?.split(' ').map(str::parse).collect::<Result<_, _>>()?)
}

/// Fails unless the binary takes `arguments`.
fn assert_understood(arguments: &[String]) -> anyhow::Result<()> {
    let line = std::iter::once("aquifer").chain(arguments.iter().map(String::as_str));
    Cli::try_parse_from(line).with_context(|| format!("aquifer {}", arguments.join(" ")))?;
    Ok(())
}

/// Fails unless `AQUIFER_<NAME>` is a flag of a server's.
fn assert_setting(variable: &str) -> anyhow::Result<()> {
    let Some(name) = variable.strip_prefix("AQUIFER_") else { return Ok(()) };
    let flag = name.to_lowercase().replace('_', "-");
    let cli = Cli::command();
    let up = cli.find_subcommand("up").context("up")?;
    let is_flag = up.get_arguments().any(|argument| argument.get_long() == Some(&flag));
    ensure!(is_flag, "{variable} is no setting");
    Ok(())
}

/// The strings of a list.
fn strings(list: &Value) -> anyhow::Result<Vec<String>> {
    let list = list.as_sequence().context("a list")?;
    list.iter().map(|one| Ok(one.as_str().context("a string")?.to_owned())).collect()
}

/// A mapping's entries, none where there is no mapping.
fn entries(mapping: &Value) -> Vec<(&str, &Value)> {
    let entries = mapping.as_mapping().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str()?, value))).collect()
}

#[test]
fn the_image_starts_listens_and_is_asked_as_the_binary_has_it() -> anyhow::Result<()> {
    let json = |text: &str| -> anyhow::Result<Vec<String>> {
        serde_json::from_str(text).with_context(|| text.to_owned())
    };
    assert_eq!(json(&instruction("ENTRYPOINT")?)?, ["aquifer"]);
    assert_understood(&json(&instruction("CMD")?)?)?;
    let health = instruction("HEALTHCHECK")?;
    let (_, asks) = health.split_once("CMD ").context("HEALTHCHECK")?;
    let asks = json(asks)?;
    assert_eq!(asks[..2], ["aquifer", "health"]);
    assert_understood(&asks[1..])?;
    for (name, _) in image_environment()? {
        assert_setting(&name)?;
    }
    let listeners = ["AQUIFER_KAFKA", "AQUIFER_HTTP", "AQUIFER_LISTEN"];
    let ports = listeners.map(image_port).into_iter().collect::<Result<BTreeSet<_>, _>>()?;
    assert_eq!(exposed()?, ports);
    // Whoever runs it owns the only folder it writes to.
    let user = instruction("USER")?;
    let build = instructions()?.into_iter().find(|(_, rest)| rest.contains("cargo build"));
    let (_, build) = build.context("a build")?;
    assert!(build.contains(&format!("chown {user} /image{}", instruction("VOLUME")?)), "{build}");
    let stays = image_environment()?.contains(&("AQUIFER_DATA".into(), instruction("VOLUME")?));
    assert!(stays, "the data folder is the volume");
    Ok(())
}

#[test]
fn the_image_is_built_with_the_compiler_and_the_files_of_this_repository() -> anyhow::Result<()> {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let version = version.context("rust-version")?.trim_matches('"');
    let (_, from) = instructions()?.into_iter().next().context("FROM")?;
    assert!(from.starts_with(&format!("rust:{version}-")), "{from}");
    let left_out = fs::read_to_string(root().join(".dockerignore"))?;
    // The last says how the allocator keeps memory.
    for wanted in ["Cargo.toml", "Cargo.lock", "agent", "metadata", "storage", "tests", ".cargo"] {
        assert!(root().join(wanted).exists(), "{wanted}");
        assert!(left_out.lines().all(|line| line != wanted), "{wanted} is left out");
    }
    Ok(())
}

/// The services of a compose file, by name.
fn services(file: &str) -> anyhow::Result<(Value, Vec<String>)> {
    let text = fs::read_to_string(root().join("localstack").join(file))?;
    let mut compose: Value = serde_yaml_ng::from_str(&text)?;
    compose.apply_merge()?;
    let names = entries(&compose["services"]).iter().map(|(name, _)| (*name).to_owned()).collect();
    Ok((compose, names))
}

/// The container's ports that are published, as (host, container).
fn published(service: &Value) -> anyhow::Result<Vec<(u16, u16)>> {
    if service["ports"].is_null() {
        return Ok(Vec::new());
    }
    let pair = |text: &String| {
        let ports = text.strip_prefix("127.0.0.1:").context("published to this host alone")?;
        let (host, container) = ports.split_once(':').context(ports.to_owned())?;
        Ok((host.parse()?, container.parse()?))
    };
    strings(&service["ports"])?.iter().map(pair).collect()
}

fn check_aquifer(service: &Value, names: &[String]) -> anyhow::Result<()> {
    let command = strings(&service["command"])?;
    assert_understood(&command)?;
    for (name, value) in entries(&service["environment"]) {
        assert_setting(name)?;
        // host:port or a URL with one: the host is a service.
        let value = value.as_str().context("a string")?;
        let place = value.strip_prefix("http://").unwrap_or(value);
        if let Some((host, port)) = place.split_once(':')
            && !port.starts_with("//")
        {
            ensure!(names.iter().any(|name| name == host), "{name}: there is no {host}");
        }
    }
    for (_, container) in published(service)? {
        ensure!(exposed()?.contains(&container), "nothing listens on {container}");
    }
    if let Some(at) = command.iter().position(|word| word == "--advertise") {
        let (_, told) = command[at + 1].rsplit_once(':').context("--advertise")?;
        let kafka = (told.parse()?, image_port("AQUIFER_KAFKA")?);
        ensure!(published(service)?.contains(&kafka), "clients are told {told}");
    }
    // What listens on every address would tell agents that one.
    if command[0] == "metadata" {
        let at = command.iter().position(|word| word == "--voters").context("--voters")?;
        let (_, told) = command[at + 1].split_once('=').context("ID=HOST:PORT")?;
        let (host, port) = told.split_once(':').context("HOST:PORT")?;
        ensure!(names.iter().any(|name| name == host), "--voters: there is no {host}");
        ensure!(port.parse::<u16>()? == image_port("AQUIFER_LISTEN")?, "--voters: {port}");
    }
    if let Ok(asks) = strings(&service["healthcheck"]["test"]) {
        ensure!(asks[..2] == ["CMD", "aquifer"], "{asks:?}: there is nothing else in the image");
        assert_understood(&asks[2..])?;
    }
    Ok(())
}

fn check_compose(file: &str) -> anyhow::Result<()> {
    let (compose, names) = services(file)?;
    let (mut ports, mut builds) = (Vec::new(), 0);
    for (name, service) in entries(&compose["services"]) {
        let image = service["image"].as_str().context("an image")?;
        if image == "aquifer" {
            check_aquifer(service, &names).with_context(|| name.to_owned())?;
        } else {
            ensure!(image.contains(':'), "{image} is another one tomorrow");
        }
        if let Some(context) = service["build"].as_str() {
            builds += 1;
            ensure!(root().join("localstack").join(context).join("Dockerfile").exists(), "{name}");
        }
        for (other, wanted) in entries(&service["depends_on"]) {
            let healthy = &compose["services"][other];
            ensure!(names.iter().any(|name| name == other), "{name} waits for {other}");
            ensure!(wanted["condition"] == "service_healthy", "{name} waits for {other}");
            ensure!(!healthy["healthcheck"].is_null(), "{other} is never healthy");
        }
        for volume in strings(&service["volumes"]).unwrap_or_default() {
            let source = volume.split(':').next().unwrap_or_default();
            let is_there = match source.starts_with('.') {
                true => root().join("localstack").join(source).is_dir(),
                false => entries(&compose["volumes"]).iter().any(|(name, _)| *name == source),
            };
            ensure!(is_there, "{name}: there is no {source}");
        }
        ports.extend(published(service)?.into_iter().map(|(host, _)| host));
    }
    ensure!(builds == 1, "the image is built once, not {builds} times");
    let distinct: BTreeSet<u16> = ports.iter().copied().collect();
    ensure!(distinct.len() == ports.len(), "a port is published twice: {ports:?}");
    Ok(())
}

#[test]
fn the_compose_files_start_what_there_is_and_publish_what_listens() -> anyhow::Result<()> {
    for file in ["compose.minio.yaml", "compose.localstack.yaml"] {
        check_compose(file).with_context(|| file.to_owned())?;
    }
    Ok(())
}
