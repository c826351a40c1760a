//! The lineage in the headers of calls and replies: whom a call is meant for, and who answered.
//!
//! A restore begins the next lineage, and whatever an agent of the life before holds (a session,
//! offsets, objects under way) means nothing there. It is in the headers, and not in each message,
//! so that every call and reply has it, streams included.

use aquifer_storage::model::Lineage;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
    service::Interceptor,
};

/// `<number>-<16 hex digits of the nonce>`, as lineages are written everywhere.
const HEADER: &str = "aquifer-lineage";

/// The header is there, but is not a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header aquifer-lineage cannot be read")]
pub struct UnreadableLineage;

/// The lineage these headers name, if they do.
pub fn named_in(headers: &MetadataMap) -> Result<Option<Lineage>, UnreadableLineage> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|_| UnreadableLineage)?;
    parse(text).map(Some).ok_or(UnreadableLineage)
}

/// Names `lineage` in these headers.
pub fn name_in(headers: &mut MetadataMap, lineage: Lineage) {
    let value: MetadataValue<Ascii> =
        lineage.to_string().parse().expect("digits and a dash are a header's value");
    headers.insert(HEADER, value);
}

fn parse(text: &str) -> Option<Lineage> {
    let (number, nonce) = text.split_once('-')?;
    let hex = nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let lineage =
        Lineage { number: number.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? };
    (hex && digits).then_some(lineage)
}

/// Names the lineage, once known, in each call.
#[derive(Clone, Copy, Debug)]
pub struct NameLineage(pub(super) Option<Lineage>);

impl Interceptor for NameLineage {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(lineage) = self.0 {
            name_in(request.metadata_mut(), lineage);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_is_read_back_and_nothing_else_is_taken_for_one() {
        let mut headers = MetadataMap::new();
        assert_eq!(named_in(&headers), Ok(None));
        for lineage in [
            Lineage { number: 0, nonce: 0 },
            Lineage { number: u32::MAX, nonce: u64::MAX },
            Lineage { number: 3, nonce: 9 },
        ] {
            name_in(&mut headers, lineage);
            assert_eq!(named_in(&headers), Ok(Some(lineage)));
        }
        for wrong in [
            "",
            "-",
            "0",
            "0-1",
            "+0-0000000000000001",
            "0-+000000000000001",
            "4294967296-0000000000000001",
            "0-00000000000000001",
            "0-000000000000000g",
        ] {
            headers.insert(HEADER, wrong.parse().unwrap());
            assert_eq!(named_in(&headers), Err(UnreadableLineage), "{wrong:?}");
        }
    }
}
