//! Requests as the broker's own structs, for APIs whose answers have many fields. What is wrong on
//! the wire is written by [`crate::raw`].

use anyhow::{Context, ensure};
use aquifer_agent::wire::{
    codec::{Reader, Writer},
    header::{is_flexible, response_header_is_flexible},
    messages::Message,
};

use crate::raw::{Connection, Request};

/// Sends a request in `version` and reads its answer.
///
/// # Errors
/// No answer, or one that does not parse to its end.
pub fn call<Q: Message, R: Message>(
    connection: &mut Connection,
    version: i16,
    request: &Q,
) -> anyhow::Result<R> {
    ensure!(Q::KEY == R::KEY, "{:?} is no answer to {:?}", R::KEY, Q::KEY);
    let mut body = Writer::default();
    request.encode_body(version, &mut body);
    let answer = connection.call(&Request {
        key: Q::KEY.code(),
        version,
        flexible: is_flexible(Q::KEY, version),
        body: body.into_bytes().to_vec(),
    })?;
    let mut reader = Reader::new(answer.into());
    if response_header_is_flexible(R::KEY, version) {
        reader.skip_tags().context("the tags of the header")?;
    }
    let answer = R::decode_body(&mut reader, version).context("the answer")?;
    ensure!(reader.remaining() == 0, "{} bytes behind the answer", reader.remaining());
    Ok(answer)
}
