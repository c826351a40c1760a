//! Google's and Azure's stores, by their emulators. The clients run in a child: they read the
//! environment themselves.

use anyhow::ensure;
use aquifer_storage::store::{Store, StoreUrl, azure, conformance::check_store, gcs};
use aquifer_tests::process::{azurite, fake_gcs, free_address};
use bytes::Bytes;

use super::{child, pair, variable};

const TEST: &str = "emulators::in_a_child_a_store_is_opened";
/// Names the store to a child's test; unset, it has nothing to do.
const CHILD: &str = "STORES_CHILD_URL";

fn open(url: &str) -> anyhow::Result<Box<dyn Store>> {
    Ok(match StoreUrl::parse(url)? {
        StoreUrl::Gcs { bucket, prefix } => Box::new(gcs::open(&bucket, &prefix, &variable)?),
        StoreUrl::Azure { container, prefix } => {
            Box::new(azure::open(&container, &prefix, &variable)?)
        }
        other => anyhow::bail!("{other}"),
    })
}

#[tokio::test]
async fn in_a_child_a_store_is_opened() -> anyhow::Result<()> {
    let Some(url) = variable(CHILD) else { return Ok(()) };
    let store = open(&url)?;
    check_store(store.as_ref()).await;
    // Bulk deletes have bounds of their own, and lists have pages.
    let keys: Vec<String> = (0..600).map(|n| format!("many/{n:04}")).collect();
    for key in &keys {
        store.put(key, vec![Bytes::from_static(b"x")]).await?;
    }
    let listed = store.list("many", Some("many/0099"), 10_000).await?;
    ensure!(listed.len() == 500 && listed[0].key == "many/0100", "{} listed", listed.len());
    let missing = ["many/none".to_owned(), "none".to_owned()];
    store.delete_many(keys.iter().cloned().chain(missing).collect()).await?;
    ensure!(store.list("many", None, 10).await?.is_empty(), "all are deleted");
    // One megabyte in pieces, as an agent writes it.
    let piece = Bytes::from(vec![7; 64 * 1024]);
    store.put("large", vec![piece; 16]).await?;
    ensure!(store.get_range("large", 1_000_000..1_048_576).await?.len() == 48_576);
    store.delete_many(vec!["large".to_owned()]).await?;
    // A bucket that is not there is no missing object.
    let (scheme, _) = url.split_once("://").unwrap_or_default();
    let elsewhere = open(&format!("{scheme}://no-such-bucket/a"))?;
    let refused = elsewhere.put("a", vec![Bytes::new()]).await.expect_err("there is none");
    ensure!(!refused.reason.is_empty(), "{refused}");
    Ok(())
}

#[test]
fn googles_emulator_passes_the_suite() -> anyhow::Result<()> {
    let (_server, address) = fake_gcs()?;
    // With and without the scheme, as Google's own clients take it.
    for (url, host) in [
        ("gs://aquifer/well/one", format!("http://{address}")),
        ("gs://aquifer", address.to_string()),
    ] {
        child(TEST, &[pair(CHILD, url), pair("STORAGE_EMULATOR_HOST", &host)])?;
    }
    Ok(())
}

#[test]
fn azures_emulator_passes_the_suite() -> anyhow::Result<()> {
    let (_server, address) = azurite()?;
    let emulator = pair("AZURITE_BLOB_STORAGE_URL", &format!("http://{address}"));
    child(TEST, &[pair(CHILD, "az://aquifer/well/one"), emulator])
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_it_says_what_to_do() -> anyhow::Result<()> {
    let nobody = free_address()?;
    let unset = |_: &str| None;
    let error = azure::open("aquifer", "", &unset).expect_err("no account").to_string();
    ensure!(error.contains("AZURE_STORAGE_ACCOUNT"), "{error}");
    let missing = |name: &str| {
        (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| "/none/keys.json".to_owned())
    };
    let error = gcs::open("aquifer", "", &missing).expect_err("no such file").to_string();
    ensure!(error.contains("gs://aquifer"), "{error}");
    let identity = |name: &str| match name {
        "AZURE_STORAGE_ACCOUNT" => Some("water".to_owned()),
        "IDENTITY_ENDPOINT" => Some(format!("http://{nobody}/token")),
        _ => None,
    };
    let store = azure::open("aquifer", "", &identity)?;
    let error = store.put("a", vec![Bytes::new()]).await.expect_err("no identity");
    ensure!(error.reason.contains("AZURE_STORAGE_KEY"), "{error}");
    Ok(())
}
