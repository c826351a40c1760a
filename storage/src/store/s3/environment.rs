//! What AWS SDK users leave in the environment and in their profile: address, region, credentials.
//!
//! Only the names below are read, so a stray `AWS_*` variable that the SDK beneath would take
//! (`AWS_SKIP_SIGNATURE`, `AWS_ALLOW_HTTP`, `AWS_CHECKSUM_ALGORITHM`, `AWS_TIMEOUT`, ...) changes
//! nothing. A setting that users rely on and that is not supported refuses the start instead of
//! being passed over.
//!
//! # Order
//! What the caller gives; then keys of the environment, keys of the profile, web identity,
//! container, pod, and last the instance's role.
//!
//! Profiles that assume roles, run a process or use SSO are left to the AWS SDK; a build without
//! the feature `aws-sdk` refuses them: `aws configure export-credentials` makes keys of them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{S3Options, profile};

/// Settings of a profile that make credentials in a way that only the AWS SDK knows.
const FOREIGN_SETTINGS: [&str; 4] =
    ["role_arn", "credential_process", "sso_session", "sso_start_url"];
/// One that we have no part of the AWS SDK for.
const LOGIN_SETTING: &str = "login_session";

/// The environment as this module sees it.
pub(super) struct World<'a> {
    /// A variable's value.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// A file's text.
    pub(super) read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// Everything about a store's address and signature, decided.
pub(super) struct Resolved {
    pub(super) region: String,
    /// With its scheme; `None` for AWS.
    pub(super) endpoint: Option<String>,
    pub(super) credentials: CredentialSource,
    /// Certificates to trust besides the system's, as PEM.
    pub(super) ca_bundle: Option<String>,
}

/// An access key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
}

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum CredentialSource {
    /// They are at hand.
    Keys(Keys),
    /// A token in a file is exchanged for them (EKS service accounts).
    WebIdentity {
        token_file: String,
        role_arn: String,
        session_name: Option<String>,
        sts_endpoint: Option<String>,
    },
    /// The container service gives them (ECS).
    Container { relative_uri: String },
    /// The pod's agent gives them (EKS Pod Identity).
    Pod { full_uri: String, token_file: String },
    /// The instance's metadata service gives them.
    Instance { metadata_endpoint: Option<String> },
    /// The AWS SDK makes them of what a profile says.
    #[cfg(feature = "aws-sdk")]
    Profile(ForeignProfile),
}

/// A profile whose credentials are not keys, and the files it may be in.
#[cfg(feature = "aws-sdk")]
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ForeignProfile {
    pub(super) name: String,
    /// `None` where there is no such file.
    pub(super) credentials: Option<PathBuf>,
    /// Likewise.
    pub(super) config: Option<PathBuf>,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsRefused {
    /// Half an access key.
    #[error("{there} is set and {missing} is not")]
    Half {
        /// The one that is set.
        there: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A profile that was asked for is in no file.
    #[error(
        "profile {profile:?} is neither in {} nor in {}",
        credentials.display(),
        config.display()
    )]
    NoProfile {
        /// Its name.
        profile: String,
        /// The credentials file.
        credentials: PathBuf,
        /// The config file.
        config: PathBuf,
    },
    /// A profile whose credentials are not keys.
    #[error(
        "profile {profile:?} uses {setting}, which this build does not support: set the variables \
         that `aws configure export-credentials --profile {profile} --format env` prints"
    )]
    ForeignProfile {
        /// Its name.
        profile: String,
        /// The setting.
        setting: &'static str,
    },
    /// A variable that would change where requests go.
    #[error("{variable} is not supported: set AWS_ENDPOINT_URL_S3 to the endpoint")]
    Unsupported {
        /// Its name.
        variable: &'static str,
    },
    /// `AWS_EC2_METADATA_DISABLED` and nothing else.
    #[error(
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run \
         with a role"
    )]
    NoCredentials,
    /// A file that the environment names.
    #[error("{} cannot be read", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Fills what `options` leaves open.
pub(super) fn resolve(options: &S3Options, world: &World<'_>) -> Result<Resolved, SettingsRefused> {
    let profile = Profile::find(world)?;
    let from_profile = |name: &str| profile.settings.get(name).filter(|v| !v.is_empty()).cloned();
    let endpoint = options
        .endpoint
        .clone()
        .or_else(|| world.variable("AWS_ENDPOINT_URL_S3"))
        .or_else(|| world.variable("AWS_ENDPOINT_URL"))
        .or_else(|| from_profile("endpoint_url"));
    let region = options
        .region
        .clone()
        .or_else(|| world.variable("AWS_REGION"))
        .or_else(|| world.variable("AWS_DEFAULT_REGION"))
        .or_else(|| from_profile("region"))
        .unwrap_or_else(|| "us-east-1".to_owned());
    for variable in ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"] {
        if endpoint.is_none() && world.is_true(variable) {
            return Err(SettingsRefused::Unsupported { variable });
        }
    }
    let ca_bundle = match world.variable("AWS_CA_BUNDLE").map(PathBuf::from) {
        None => None,
        Some(path) => Some(world.file(path)?),
    };
    let credentials = credentials(options, world, &profile)?;
    Ok(Resolved { region, endpoint, credentials, ca_bundle })
}

fn credentials(
    options: &S3Options,
    world: &World<'_>,
    profile: &Profile,
) -> Result<CredentialSource, SettingsRefused> {
    let given = [&options.access_key_id, &options.secret_access_key, &options.session_token];
    if let Some(keys) = keys(given.map(Clone::clone))? {
        return Ok(CredentialSource::Keys(keys));
    }
    let named = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    if let Some(keys) = keys(named.map(|name| world.variable(name)))? {
        return Ok(CredentialSource::Keys(keys));
    }
    let settings = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    if let Some(keys) = keys(settings.map(|name| profile.settings.get(name).cloned()))? {
        return Ok(CredentialSource::Keys(keys));
    }
    if let Some(source) = role(world)? {
        return Ok(source);
    }
    if let Some(foreign) = profile.foreign()? {
        return Ok(foreign);
    }
    if world.is_true("AWS_EC2_METADATA_DISABLED") {
        return Err(SettingsRefused::NoCredentials);
    }
    let metadata_endpoint = world.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    Ok(CredentialSource::Instance { metadata_endpoint })
}

/// Roles of pods and containers, which their platforms announce by variables.
fn role(world: &World<'_>) -> Result<Option<CredentialSource>, SettingsRefused> {
    const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
    const ROLE: &str = "AWS_ROLE_ARN";
    const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    const FULL_URI_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    if let Some(token_file) = world.variable(TOKEN_FILE) {
        let half = SettingsRefused::Half { there: TOKEN_FILE, missing: ROLE };
        let role_arn = world.variable(ROLE).ok_or(half)?;
        let session_name = world.variable("AWS_ROLE_SESSION_NAME");
        let sts_endpoint = world.variable("AWS_ENDPOINT_URL_STS");
        return Ok(Some(CredentialSource::WebIdentity {
            token_file,
            role_arn,
            session_name,
            sts_endpoint,
        }));
    }
    if let Some(relative_uri) = world.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(Some(CredentialSource::Container { relative_uri }));
    }
    let Some(full_uri) = world.variable(FULL_URI) else {
        return Ok(None);
    };
    let half = SettingsRefused::Half { there: FULL_URI, missing: FULL_URI_TOKEN };
    let token_file = world.variable(FULL_URI_TOKEN).ok_or(half)?;
    Ok(Some(CredentialSource::Pod { full_uri, token_file }))
}

/// Id, secret and token; `None` when neither id nor secret is there.
fn keys(parts: [Option<String>; 3]) -> Result<Option<Keys>, SettingsRefused> {
    const ID: &str = "AWS_ACCESS_KEY_ID";
    const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
    match parts {
        [Some(access_key_id), Some(secret_access_key), session_token] => {
            Ok(Some(Keys { access_key_id, secret_access_key, session_token }))
        }
        [Some(_), None, _] => Err(SettingsRefused::Half { there: ID, missing: SECRET }),
        [None, Some(_), _] => Err(SettingsRefused::Half { there: SECRET, missing: ID }),
        [None, None, _] => Ok(None),
    }
}

/// The chosen profile, from both files; the credentials file wins.
struct Profile {
    name: String,
    settings: BTreeMap<String, String>,
    /// The credentials and the config file, where there are such.
    #[cfg_attr(not(feature = "aws-sdk"), expect(dead_code, reason = "for the AWS SDK"))]
    files: [Option<PathBuf>; 2],
}

impl Profile {
    fn find(world: &World<'_>) -> Result<Self, SettingsRefused> {
        let asked = world.variable("AWS_PROFILE").or_else(|| world.variable("AWS_DEFAULT_PROFILE"));
        let name = asked.clone().unwrap_or_else(|| "default".to_owned());
        let home = world.variable("HOME").map(|home| Path::new(&home).join(".aws"));
        let path = |variable: &str, file: &str| {
            let given = world.variable(variable).map(PathBuf::from);
            given.or_else(|| home.as_ref().map(|home| home.join(file))).unwrap_or_default()
        };
        let credentials = path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = path("AWS_CONFIG_FILE", "config");
        let section = match name.as_str() {
            "default" => name.clone(),
            _ => format!("profile {name}"),
        };
        let mut found = None;
        for (path, section) in [(&config, &section), (&credentials, &name)] {
            // Neither file has to be there, nor to be ours to read.
            let text = (world.read_file)(path).unwrap_or_default();
            if let Some(settings) = profile::section(&text, section) {
                found.get_or_insert_with(BTreeMap::new).extend(settings);
            }
        }
        match found {
            None if asked.is_some() => {
                Err(SettingsRefused::NoProfile { profile: name, credentials, config })
            }
            found => {
                let there = |path: PathBuf| (world.read_file)(&path).is_ok().then_some(path);
                let files = [there(credentials), there(config)];
                Ok(Self { name, settings: found.unwrap_or_default(), files })
            }
        }
    }

    /// What makes its credentials, if that is not keys.
    fn foreign(&self) -> Result<Option<CredentialSource>, SettingsRefused> {
        let is_set = |setting: &&'static str| self.settings.contains_key(*setting);
        let refused =
            |setting| SettingsRefused::ForeignProfile { profile: self.name.clone(), setting };
        match FOREIGN_SETTINGS.into_iter().find(is_set) {
            None if is_set(&LOGIN_SETTING) => Err(refused(LOGIN_SETTING)),
            None => Ok(None),
            #[cfg(feature = "aws-sdk")]
            Some(_) => {
                let [credentials, config] = self.files.clone();
                let name = self.name.clone();
                Ok(Some(CredentialSource::Profile(ForeignProfile { name, credentials, config })))
            }
            #[cfg(not(feature = "aws-sdk"))]
            Some(setting) => Err(refused(setting)),
        }
    }
}

impl World<'_> {
    /// An empty variable is one that is not set.
    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn file(&self, path: PathBuf) -> Result<String, SettingsRefused> {
        (self.read_file)(&path).map_err(|source| SettingsRefused::File { path, source })
    }
}

#[cfg(test)]
mod tests;
