//! Laws of environment.

use super::*;

const CREDENTIALS: &str = "/home/w/.aws/credentials";
const CONFIG: &str = "/home/w/.aws/config";

/// Resolves `options` in a world of `variables` and `files`.
fn resolve_in(
    options: &S3Options,
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Resolved, SettingsRefused> {
    let find = |list: &[(&str, &str)], name: &str| {
        let found = list.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let world = World {
        variable: &|name| find(variables, name),
        read_file: &|path| {
            let text = find(files, path.to_str().unwrap());
            text.ok_or_else(|| io::ErrorKind::NotFound.into())
        },
    };
    resolve(options, &world)
}

fn resolved(variables: &[(&str, &str)], files: &[(&str, &str)]) -> Resolved {
    resolve_in(&S3Options::default(), variables, files).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(variables: &[(&str, &str)], files: &[(&str, &str)]) -> String {
    let refused = resolve_in(&S3Options::default(), variables, files);
    refused.err().expect("the settings are refused").to_string()
}

/// The credentials in a line, for comparing.
fn source(resolved: &Resolved) -> String {
    match &resolved.credentials {
        CredentialSource::Keys(keys) => {
            let token = keys.session_token.as_deref().unwrap_or("-");
            format!("keys {} {} {token}", keys.access_key_id, keys.secret_access_key)
        }
        CredentialSource::WebIdentity { token_file, role_arn, .. } => {
            format!("web {token_file} {role_arn}")
        }
        CredentialSource::Container { relative_uri } => format!("container {relative_uri}"),
        CredentialSource::Pod { full_uri, token_file } => format!("pod {full_uri} {token_file}"),
        CredentialSource::Instance { metadata_endpoint } => {
            format!("instance {}", metadata_endpoint.as_deref().unwrap_or("-"))
        }
        #[cfg(feature = "aws-sdk")]
        CredentialSource::Profile(profile) => {
            format!("profile {} {:?} {:?}", profile.name, profile.credentials, profile.config)
        }
    }
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];

#[test]
fn the_variables_of_the_aws_sdks_are_read() {
    let resolved = resolved(
        &[
            ("AWS_ENDPOINT_URL_S3", "http://s3:9000"),
            ("AWS_ENDPOINT_URL", "http://all:1"),
            ("AWS_REGION", "eu-north-1"),
            ("AWS_DEFAULT_REGION", "eu-south-1"),
            ("AWS_SESSION_TOKEN", "token"),
            KEYS[0],
            KEYS[1],
        ],
        &[],
    );
    assert_eq!(resolved.endpoint.as_deref(), Some("http://s3:9000"));
    assert_eq!(resolved.region, "eu-north-1");
    assert_eq!(source(&resolved), "keys id secret token");
}

#[test]
fn less_special_variables_come_second_and_empty_ones_are_not_set() {
    let resolved = resolved(
        &[
            ("AWS_ENDPOINT_URL_S3", ""),
            ("AWS_ENDPOINT_URL", "http://all:1"),
            ("AWS_REGION", ""),
            ("AWS_DEFAULT_REGION", "eu-south-1"),
            ("AWS_SESSION_TOKEN", ""),
            KEYS[0],
            KEYS[1],
        ],
        &[],
    );
    assert_eq!(resolved.endpoint.as_deref(), Some("http://all:1"));
    assert_eq!(resolved.region, "eu-south-1");
    assert_eq!(source(&resolved), "keys id secret -");
}

#[test]
fn options_win_over_the_environment() {
    let options = S3Options {
        endpoint: Some("http://mine:1".to_owned()),
        region: Some("mine".to_owned()),
        access_key_id: Some("mine".to_owned()),
        secret_access_key: Some("mine".to_owned()),
        ..S3Options::default()
    };
    // A token of other keys must not be mixed in.
    let variables =
        [KEYS[0], KEYS[1], ("AWS_SESSION_TOKEN", "t"), ("AWS_ENDPOINT_URL", "http://a:1")];
    let resolved = resolve_in(&options, &variables, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(resolved.endpoint.as_deref(), Some("http://mine:1"));
    assert_eq!((resolved.region.as_str(), &*source(&resolved)), ("mine", "keys mine mine -"));
}

#[test]
fn sources_are_tried_in_the_order_of_the_aws_sdks() {
    let files = [(CREDENTIALS, "[default]\naws_access_key_id=p\naws_secret_access_key=q\n")];
    let mut variables = vec![
        KEYS[0],
        KEYS[1],
        ("HOME", "/home/w"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
        ("AWS_ROLE_ARN", "arn"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/get"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://pod"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/pod-token"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://imds"),
    ];
    for (expected, without) in [
        ("keys id secret -", 2),
        ("keys p q -", 1), // HOME leads to the profile.
        ("web /token arn", 2),
        ("container /get", 1),
        ("pod http://pod /pod-token", 2),
        ("instance http://imds", 1),
        ("instance -", 0),
    ] {
        assert_eq!(source(&resolved(&variables, &files)), expected);
        variables.drain(..without);
    }
}

#[test]
fn a_profile_is_read_from_both_files() {
    let files = [
        (CREDENTIALS, "[deep]\naws_access_key_id=a\naws_secret_access_key=b\n[default]\n"),
        (CONFIG, "[profile deep]\nregion=sea\nendpoint_url=http://deep:1\n[deep]\nregion=no\n"),
    ];
    let resolved = resolved(&[("HOME", "/home/w"), ("AWS_PROFILE", "deep")], &files);
    assert_eq!(source(&resolved), "keys a b -");
    assert_eq!(resolved.region, "sea");
    assert_eq!(resolved.endpoint.as_deref(), Some("http://deep:1"));
}

#[test]
fn files_may_be_elsewhere() {
    let variables =
        [("AWS_SHARED_CREDENTIALS_FILE", "/c"), ("AWS_CONFIG_FILE", "/f"), ("AWS_PROFILE", "x")];
    let files = [("/c", "[x]\naws_access_key_id=a\naws_secret_access_key=b"), ("/f", "")];
    assert_eq!(source(&resolved(&variables, &files)), "keys a b -");
}

#[test]
fn what_is_not_supported_refuses_and_says_what_to_do() {
    let home = ("HOME", "/home/w");
    for (variables, config, hint) in [
        (vec![KEYS[0]], "", "AWS_SECRET_ACCESS_KEY is not"),
        (vec![KEYS[1]], "", "AWS_ACCESS_KEY_ID is not"),
        (vec![("AWS_PROFILE", "none")], "", "neither in /home/w/.aws/credentials"),
        (vec![], "[default]\nlogin_session=s", "export-credentials --profile default"),
        (vec![("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")], "", "AWS_ROLE_ARN is not"),
        (vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", "u")], "", "TOKEN_FILE is not"),
        (vec![("AWS_EC2_METADATA_DISABLED", "true")], "", "no credentials"),
        (vec![("AWS_USE_FIPS_ENDPOINT", "true"), KEYS[0], KEYS[1]], "", "AWS_ENDPOINT_URL_S3"),
        (vec![("AWS_CA_BUNDLE", "/none.pem"), KEYS[0], KEYS[1]], "", "/none.pem cannot be read"),
    ] {
        let variables = [variables, vec![home]].concat();
        let refusal = refused(&variables, &[(CONFIG, config)]);
        assert!(refusal.contains(hint), "{variables:?}: {refusal}");
    }
    // The endpoint is then the operator's own choice.
    let chosen = [("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_ENDPOINT_URL", "https://fips")];
    assert_eq!(resolved(&chosen, &[]).endpoint.as_deref(), Some("https://fips"));
}

const FOREIGN: [(&str, &str); 3] = [
    ("sso_session", "[default]\nsso_session=s"),
    ("role_arn", "[default]\nrole_arn=r\nsource_profile=x"),
    ("credential_process", "[default]\ncredential_process=p"),
];

#[cfg(feature = "aws-sdk")]
#[test]
fn profiles_that_make_credentials_are_left_to_the_aws_sdk() {
    for (_, config) in FOREIGN {
        let resolved = resolved(&[("HOME", "/home/w")], &[(CONFIG, config)]);
        assert_eq!(source(&resolved), format!("profile default None Some({CONFIG:?})"));
    }
}

#[cfg(not(feature = "aws-sdk"))]
#[test]
fn profiles_that_make_credentials_need_the_aws_sdk() {
    for (setting, config) in FOREIGN {
        let refusal = refused(&[("HOME", "/home/w")], &[(CONFIG, config)]);
        assert!(refusal.contains(&format!("uses {setting}, which this build")), "{refusal}");
    }
}
