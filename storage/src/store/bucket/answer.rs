//! Sees a store's answer before the SDK folds it into text: its errors keep neither the status nor
//! the store's code in a type of ours to read. A refusal leaves here as a [`Refusal`] in the chain
//! of causes, whatever the SDK wraps around it.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpResponseBody, HttpService, ReqwestConnector,
    },
};

/// Of an error's body, this much is read: its code and its message come first.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// An answer to a bulk delete names each of a thousand keys; nothing sound is larger.
const DELETE_BODY_BYTES_MAX: usize = 4 << 20;

/// Stores answer errors with pages of XML, proxies with pages of HTML.
const MESSAGE_CHARS_MAX: usize = 300;

/// Our code for an answer with the whole object where a range was asked for.
pub(in crate::store) const RANGE_IGNORED: &str = "RangeIgnored";

/// A store said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {status} {code}: {message}")]
pub(in crate::store) struct Refusal {
    /// The HTTP status; for one key of a bulk delete, the status its code stands for.
    pub(in crate::store) status: u16,
    /// The store's code, such as `NoSuchKey`; empty when it gave none.
    pub(in crate::store) code: String,
    /// The store's words, shortened.
    pub(in crate::store) message: String,
    /// Whether a bulk delete did delete other keys.
    pub(in crate::store) partial: bool,
}

/// The innermost cause: the outer ones repeat it.
pub(in crate::store) fn innermost(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// Makes HTTP clients whose refusals are typed.
#[derive(Debug, Default)]
pub(in crate::store) struct TypedAnswers {
    inner: ReqwestConnector,
}

#[derive(Debug)]
struct TypedClient {
    inner: HttpClient,
}

impl HttpConnector for TypedAnswers {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = self.inner.connect(options)?;
        Ok(HttpClient::new(TypedClient { inner }))
    }
}

#[async_trait]
impl HttpService for TypedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_bulk_delete = request.uri().query() == Some("delete");
        let range = request.headers().get("range").cloned();
        let range = range.as_ref().and_then(|range| range.to_str().ok());
        let response = self.inner.execute(request).await?;
        let status = response.status();
        let part = response.headers().get("content-range").and_then(|part| part.to_str().ok());
        if range.zip(part).is_some_and(|(range, part)| is_past_end(range, part)) {
            return Err(refused(Refusal {
                status: 416,
                code: "InvalidRange".to_owned(),
                message: "the object is shorter than the range".to_owned(),
                partial: false,
            }));
        }
        if range.is_some() && status.as_u16() == 200 {
            // Before its body is read, which may be any size.
            return Err(refused(Refusal {
                status: 200,
                code: RANGE_IGNORED.to_owned(),
                message: "the store does not serve ranges".to_owned(),
                partial: false,
            }));
        }
        if status.is_success() {
            return if is_bulk_delete { judge_deletes(response).await } else { Ok(response) };
        }
        // Without its body, a refusal is still a refusal.
        let body = read(response.into_body(), ERROR_BODY_BYTES_MAX).await;
        let (Ok(body) | Err((body, _))) = body;
        let text = String::from_utf8_lossy(&body);
        Err(refused(Refusal {
            status: status.as_u16(),
            code: element(&text, "Code").unwrap_or_default().to_owned(),
            message: shortened(element(&text, "Message").unwrap_or(&text)),
            partial: false,
        }))
    }
}

/// Whether a part was answered of an object that ends before the range begins, as some stores do
/// instead of refusing.
fn is_past_end(range: &str, part: &str) -> bool {
    let start = range.strip_prefix("bytes=").and_then(|rest| rest.split('-').next());
    let size = part.rsplit('/').next();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    number(start).zip(number(size)).is_some_and(|(start, size)| size <= start)
}

/// Reads at most `bytes_max`; on an error, what came before it.
pub(in crate::store) async fn read(
    body: HttpResponseBody,
    bytes_max: usize,
) -> Result<Bytes, (Bytes, Option<HttpError>)> {
    let mut read = BytesMut::new();
    let mut pieces = body.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Err((read.freeze(), Some(error))),
        };
        let room = bytes_max - read.len();
        read.extend_from_slice(&piece[..piece.len().min(room)]);
        if room < piece.len() {
            return Err((read.freeze(), None));
        }
    }
    Ok(read.freeze())
}

/// A bulk delete answers 200 and says in its body what failed.
async fn judge_deletes(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let body = match read(body, DELETE_BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err((_, Some(error))) => return Err(error),
        Err((_, None)) => {
            let error = std::io::Error::other("the answer to a bulk delete has no end");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
    };
    let text = String::from_utf8_lossy(&body);
    match failed_delete(&text) {
        Some(refusal) => Err(refused(refusal)),
        None if text.contains("<DeleteResult") => {
            // The SDK only counts failures, and panics at one for a key it did not ask about.
            let none = "<DeleteResult><Deleted><Key>all</Key></Deleted></DeleteResult>";
            Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(none.to_owned())))
        }
        None => {
            let error = std::io::Error::other("the answer to a bulk delete is none");
            Err(HttpError::new(HttpErrorKind::Decode, error))
        }
    }
}

/// The first key that could not be deleted. A missing one counts as deleted.
fn failed_delete(text: &str) -> Option<Refusal> {
    let mut errors = text.split("<Error>").skip(1).map(|rest| {
        let error = rest.split("</Error>").next().unwrap_or(rest);
        (element(error, "Code").unwrap_or_default(), element(error, "Message").unwrap_or(error))
    });
    let (code, message) = errors.find(|(code, _)| *code != "NoSuchKey")?;
    Some(Refusal {
        status: status_of(code),
        code: code.to_owned(),
        message: shortened(message),
        partial: text.contains("<Deleted>"),
    })
}

/// The status that S3 would send with `code` if it were alone.
fn status_of(code: &str) -> u16 {
    match code {
        "AccessDenied" => 403,
        "NoSuchBucket" => 404,
        "NotImplemented" => 501,
        "SlowDown" | "ServiceUnavailable" => 503,
        _ => 500, // Unsure, so it may have happened.
    }
}

fn refused(refusal: Refusal) -> HttpError {
    // The kind is for the SDK's retries, of which there are none.
    HttpError::new(HttpErrorKind::Unknown, refusal)
}

/// The text of the first element called `name`, unless it is nested or cut.
pub(in crate::store) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once('<')?;
    Some(inner)
}

pub(in crate::store) fn shortened(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(MESSAGE_CHARS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_real_failure_of_a_bulk_delete_is_told() {
        let deleted = "<Deleted><Key>a</Key></Deleted>";
        let missing = "<Error><Key>b</Key><Code>NoSuchKey</Code><Message>m</Message></Error>";
        let denied = "<Error><Key>c</Key><Code>AccessDenied</Code><Message>no</Message></Error>";
        assert_eq!(failed_delete(&format!("<DeleteResult>{deleted}{missing}")), None);
        let refusal = failed_delete(&format!("{missing}{denied}")).unwrap();
        assert_eq!((refusal.status, refusal.partial), (403, false));
        assert_eq!(refusal.to_string(), "status 403 AccessDenied: no");
        assert!(failed_delete(&format!("{deleted}{denied}")).unwrap().partial);
        assert_eq!(failed_delete("<Error>").unwrap().status, 500, "unsure is indefinite");
    }

    #[test]
    fn a_part_behind_the_end_is_noticed() {
        assert!(is_past_end("bytes=10-10", "bytes 10-9/10"));
        assert!(is_past_end("bytes=100-", "bytes 0-9/10"));
        assert!(!is_past_end("bytes=9-11", "bytes 9-9/10"));
        assert!(!is_past_end("bytes=9-11", "bytes 9-9/*"));
        assert!(!is_past_end("bytes=-5", "bytes 5-9/10"));
    }

    #[test]
    fn hostile_answers_give_short_printable_text() {
        assert_eq!(element("<Code>A</Code>", "Code"), Some("A"));
        assert_eq!(element("<Code>A", "Code"), None);
        assert_eq!(element("</Code><Code>", "Code"), None);
        assert_eq!(shortened(&"\u{1b}ä".repeat(1000)).chars().count(), MESSAGE_CHARS_MAX);
        assert!(!shortened("a\n\u{7}b").contains(char::is_control));
    }
}
