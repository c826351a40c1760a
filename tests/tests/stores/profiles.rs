//! Profiles whose credentials somebody else makes: a process, SSO, a role. The AWS SDK runs in a
//! child, since its environment is the process's own.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::ensure;
use aquifer_tests::process::free_address;

use super::{CHILD, child, pair, served};

const TEST: &str = "in_a_child_the_environment_is_enough";
const START_URL: &str = "https://water.awsapps.com/start";
/// Where `aws sso login` leaves the token for [`START_URL`]: its SHA-1.
const TOKEN_FILE: &str = ".aws/sso/cache/3672bffc3083b2cf15d7aa85b9accda636423065.json";

/// The variables of a child that uses the profile `deep` with these settings.
fn with_profile(home: &Path, settings: &str) -> anyhow::Result<Vec<(String, String)>> {
    fs::create_dir_all(home.join(".aws"))?;
    fs::write(home.join(".aws/config"), format!("[profile deep]\n{settings}\n"))?;
    let home = home.to_string_lossy();
    Ok(vec![pair(CHILD, "1"), pair("HOME", &home), pair("AWS_PROFILE", "deep")])
}

/// A program that prints MinIO's keys, and how often it ran.
fn key_maker(folder: &Path, ends: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (program, runs) = (folder.join("keys"), folder.join("runs"));
    let keys = format!(
        "{{\"Version\": 1, \"AccessKeyId\": \"AKIATEST\", \"SecretAccessKey\": \"secrettest\"{ends}}}"
    );
    fs::write(&program, format!("#!/bin/sh\necho >>{}\necho '{keys}'\n", runs.display()))?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok((program, runs))
}

#[test]
fn a_profile_with_a_process_leads_to_the_store() -> anyhow::Result<()> {
    // Good for ever, for long, and about to end: then each request asks again.
    let soon = time_in(60);
    for (ends, is_kept) in [
        (String::new(), true),
        (", \"Expiration\": \"2099-01-01T00:00:00Z\"".to_owned(), true),
        (format!(", \"Expiration\": \"{soon}\""), false),
    ] {
        let served = served()?;
        let (program, runs) = key_maker(served.folder.path(), &ends)?;
        let settings = format!(
            "credential_process = {}\nendpoint_url = http://{}",
            program.display(),
            served.address
        );
        child(TEST, &with_profile(served.folder.path(), &settings)?)?;
        let runs = fs::read_to_string(runs)?.lines().count();
        ensure!((runs == 1) == is_kept, "the process ran {runs} times with {ends:?}");
    }
    Ok(())
}

/// A time so many seconds from now, as AWS writes it.
fn time_in(seconds: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("+{seconds} seconds"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_profile_with_sso_leads_to_the_store() -> anyhow::Result<()> {
    let served = served()?;
    let home = served.folder.path();
    let portal = portal()?;
    let settings = format!(
        "sso_start_url = {START_URL}\nsso_region = eu-north-1\nsso_account_id = 123456789012\n\
         sso_role_name = reader\nendpoint_url = http://{}",
        served.address
    );
    let mut variables = with_profile(home, &settings)?;
    variables.push(pair("AWS_ENDPOINT_URL_SSO", &format!("http://{portal}")));
    // Whoever has not logged in is told so.
    let refused = child(TEST, &variables).expect_err("nobody logged in").to_string();
    ensure!(refused.contains("no credentials"), "{refused}");

    let token = home.join(TOKEN_FILE);
    fs::create_dir_all(token.parent().expect("it lies in a folder"))?;
    let login = "{\"accessToken\": \"drop\", \"expiresAt\": \"2099-01-01T00:00:00Z\"}";
    fs::write(token, login)?;
    child(TEST, &variables)
}

/// What AWS's SSO portal does: gives a role's keys for the token of a login.
fn portal() -> anyhow::Result<SocketAddr> {
    serve(|asked, headers| {
        let is_known = headers.contains("x-amz-sso_bearer_token: drop\n");
        let wanted = asked.starts_with("GET /federation/credentials?")
            && asked.contains("role_name=reader")
            && asked.contains("account_id=123456789012");
        (is_known && wanted).then(|| {
            "{\"roleCredentials\": {\"accessKeyId\": \"AKIATEST\", \"secretAccessKey\": \
             \"secrettest\", \"expiration\": 4070908800000}}"
                .to_owned()
        })
    })
}

/// What AWS's token service does: gives keys to whoever may assume a role.
fn token_service() -> anyhow::Result<SocketAddr> {
    serve(|asked, headers| {
        let is_signed = headers.contains("credential=akiasource/");
        (is_signed && asked.starts_with("POST /")).then(|| {
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleResult><AssumedRoleUser><AssumedRoleId>A:s</AssumedRoleId>\
             <Arn>arn:aws:sts::123456789012:assumed-role/reader/s</Arn></AssumedRoleUser>\
             <Credentials><AccessKeyId>AKIATEST</AccessKeyId>\
             <SecretAccessKey>secrettest</SecretAccessKey><SessionToken></SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
             </AssumeRoleResponse>"
                .to_owned()
        })
    })
}

/// A server that answers what `answer` says to the first line and the headers in lower case, or 401.
fn serve(answer: fn(&str, &str) -> Option<String>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(free_address()?)?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answered(stream, answer);
        }
    });
    Ok(address)
}

fn answered(mut stream: TcpStream, answer: fn(&str, &str) -> Option<String>) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut asked, mut headers) = (String::new(), String::new());
    reader.read_line(&mut asked)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        headers += &format!("{}\n", line.trim().to_ascii_lowercase());
    }
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
    reader.read_exact(&mut body)?;
    let told = answer(&asked, &headers);
    let status = if told.is_some() { "200 OK" } else { "401 Unauthorized" };
    let told = told.unwrap_or_else(|| "{\"message\": \"no\"}".to_owned());
    write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n")?;
    write!(stream, "content-length: {}\r\nconnection: close\r\n\r\n{told}", told.len())?;
    Ok(())
}

#[test]
fn a_profile_with_a_role_leads_to_the_store() -> anyhow::Result<()> {
    let served = served()?;
    let settings = format!(
        "role_arn = arn:aws:iam::123456789012:role/reader\nsource_profile = source\n\
         endpoint_url = http://{}\n[profile source]\naws_access_key_id = AKIASOURCE\n\
         aws_secret_access_key = source",
        served.address
    );
    let mut variables = with_profile(served.folder.path(), &settings)?;
    variables.push(pair("AWS_ENDPOINT_URL_STS", &format!("http://{}", token_service()?)));
    child(TEST, &variables)
}
