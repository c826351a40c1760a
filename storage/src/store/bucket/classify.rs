//! What an SDK error says about the world. Unsure means `Indefinite` for a write.
//!
//! Reads types only, never the SDK's words: the causes that [`super::answer`] has types for, the
//! SDK's transport error and its variants.

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use super::{
    answer::{RANGE_IGNORED, Refusal},
    credentials::NoCredentials,
};
use crate::{
    error::{Outcome, StoreCondition, StoreError},
    store::key::Operation,
};

/// What a request would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Nothing.
    Read,
    /// An object, whatever stands there.
    Write,
    /// An object, if none stands there.
    Create,
}

/// What the store or the network said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer<'a> {
    /// The store refused.
    Refused(&'a Refusal),
    /// No connection came about, so nothing was sent.
    NotConnected,
    /// There was nothing to sign with, so nothing was sent.
    NoCredentials,
    /// Anything after that: time-out, reset, an answer that does not parse.
    Broken,
    /// Of one key of a bulk delete, which the SDK itself takes apart.
    Missing,
    /// The SDK refused before it sent anything.
    NotSent,
}

/// Classifies the failure of a request.
pub(super) fn store_error(operation: Operation<'_>, intent: Intent, error: &Error) -> StoreError {
    let (outcome, condition) = classify(intent, answer_of(error));
    operation.error(outcome, condition, reason(error))
}

fn classify(intent: Intent, answer: Answer<'_>) -> (Outcome, StoreCondition) {
    use Outcome::{Rejected, Unavailable};
    match answer {
        Answer::Refused(refusal) => {
            let (outcome, condition) = classify_refusal(intent, refusal);
            let outcome = if refusal.partial { unless_read(intent) } else { outcome };
            (outcome, condition)
        }
        Answer::NotConnected => (Unavailable, StoreCondition::NoAnswer),
        Answer::NoCredentials => (Unavailable, StoreCondition::Denied),
        Answer::Broken => (unless_read(intent), StoreCondition::NoAnswer),
        Answer::Missing => (Rejected, StoreCondition::NotFound),
        Answer::NotSent => (Rejected, StoreCondition::Other),
    }
}

/// The outcome of a request that the store may have carried out.
fn unless_read(intent: Intent) -> Outcome {
    if intent == Intent::Read { Outcome::Unavailable } else { Outcome::Indefinite }
}

fn classify_refusal(intent: Intent, refusal: &Refusal) -> (Outcome, StoreCondition) {
    use Outcome::{Corrupt, Rejected, Unavailable};
    match (refusal.status, refusal.code.as_str()) {
        (200, RANGE_IGNORED) => (Rejected, StoreCondition::Unsupported),
        // The body did not come through, or came through damaged: nothing was stored.
        (400, "RequestTimeout" | "IncompleteBody") => (Unavailable, StoreCondition::NoAnswer),
        (400, "BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch") => {
            (Unavailable, StoreCondition::Other)
        }
        (400, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") | (401 | 403, _) => {
            (Rejected, StoreCondition::Denied)
        }
        // Not a missing object: a reader who believed that would report a loss.
        (404, "NoSuchBucket") => (Rejected, StoreCondition::Other),
        (404, _) => (Rejected, StoreCondition::NotFound),
        (409 | 412 | 304, _) if intent == Intent::Create => {
            (Rejected, StoreCondition::AlreadyExists)
        }
        // Another request for the key was in the way.
        (409, _) => (Unavailable, StoreCondition::Busy),
        // The object is shorter than the caller knows it to be.
        (416, _) => (Corrupt, StoreCondition::Other),
        (408, _) => (unless_read(intent), StoreCondition::NoAnswer),
        (429, _) => (Unavailable, StoreCondition::Busy),
        // The request was not understood; other 5xx may come after the write.
        (501, _) => (Rejected, StoreCondition::Unsupported),
        (500.., _) => (unless_read(intent), StoreCondition::Busy),
        _ => (Rejected, StoreCondition::Other),
    }
}

fn answer_of(error: &Error) -> Answer<'_> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut transport = None;
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Answer::Refused(refusal);
        }
        if error.is::<NoCredentials>() {
            return Answer::NoCredentials;
        }
        if let Some(http) = error.downcast_ref::<HttpError>() {
            transport = Some(match http.kind() {
                HttpErrorKind::Connect => Answer::NotConnected,
                _ => Answer::Broken,
            });
        }
        cause = error.source();
    }
    transport.unwrap_or(match error {
        Error::InvalidPath { .. }
        | Error::NotImplemented { .. }
        | Error::NotSupported { .. }
        | Error::UnknownConfigurationKey { .. } => Answer::NotSent,
        Error::NotFound { .. } => Answer::Missing,
        _ => Answer::Broken,
    })
}

/// The innermost cause says most; the outer ones repeat the key.
fn reason(error: &Error) -> String {
    /// Some causes quote what they could not parse.
    const REASON_CHARS_MAX: usize = 400;
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let message = innermost.to_string();
    message.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Operation<'_> = Operation { name: "put", key: "a" };

    fn refusal(status: u16, code: &str) -> Refusal {
        Refusal { status, code: code.to_owned(), message: String::new(), partial: false }
    }

    fn refused(intent: Intent, status: u16, code: &str) -> (Outcome, StoreCondition) {
        classify(intent, Answer::Refused(&refusal(status, code)))
    }

    #[test]
    fn a_write_is_definite_only_when_the_store_refused_it() {
        use Outcome::{Indefinite, Rejected, Unavailable};
        for (status, code, outcome) in [
            (400, "EntityTooLarge", Rejected),
            (400, "RequestTimeout", Unavailable),
            (400, "XAmzContentChecksumMismatch", Unavailable),
            (401, "", Rejected),
            (403, "AccessDenied", Rejected),
            (404, "NoSuchBucket", Rejected),
            (408, "", Indefinite),
            (409, "OperationAborted", Unavailable),
            (429, "", Unavailable),
            (500, "InternalError", Indefinite),
            (501, "", Rejected),
            (503, "SlowDown", Indefinite),
        ] {
            assert_eq!(refused(Intent::Write, status, code).0, outcome, "{status} {code}");
        }
        assert_eq!(classify(Intent::Write, Answer::NotConnected).0, Unavailable);
        assert_eq!(classify(Intent::Write, Answer::NoCredentials).0, Unavailable);
        assert_eq!(classify(Intent::Write, Answer::Broken).0, Indefinite);
        let partial = Refusal { partial: true, ..refusal(403, "AccessDenied") };
        let (outcome, condition) = classify(Intent::Write, Answer::Refused(&partial));
        assert_eq!((outcome, condition), (Indefinite, StoreCondition::Denied));
    }

    #[test]
    fn only_a_conditional_put_finds_that_the_key_exists() {
        let exists = (Outcome::Rejected, StoreCondition::AlreadyExists);
        for status in [304, 409, 412] {
            assert_eq!(refused(Intent::Create, status, ""), exists);
            assert_ne!(refused(Intent::Write, status, "").1, StoreCondition::AlreadyExists);
        }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        for intent in [Intent::Read, Intent::Write, Intent::Create] {
            assert_eq!(refused(intent, 404, "NoSuchBucket").1, StoreCondition::Other);
            assert_eq!(refused(intent, 404, "NoSuchKey").1, StoreCondition::NotFound);
        }
    }

    #[test]
    fn a_read_is_never_indefinite() {
        for status in 300..600 {
            assert_ne!(refused(Intent::Read, status, "").0, Outcome::Indefinite, "{status}");
        }
        for answer in [Answer::NotConnected, Answer::NoCredentials, Answer::Broken, Answer::NotSent]
        {
            assert_ne!(classify(Intent::Read, answer).0, Outcome::Indefinite, "{answer:?}");
        }
    }

    #[test]
    fn a_refusal_is_found_below_whatever_wraps_it() {
        let http = HttpError::new(HttpErrorKind::Unknown, refusal(403, "AccessDenied"));
        let wrapped = Error::Generic { store: "S3", source: Box::new(http) };
        let wrapped = Error::NotFound { path: "a".to_owned(), source: Box::new(wrapped) };
        let error = store_error(KEY, Intent::Write, &wrapped);
        assert_eq!((error.outcome, error.condition), (Outcome::Rejected, StoreCondition::Denied));
        assert_eq!(error.reason, "status 403 AccessDenied: ");
    }

    #[test]
    fn a_key_that_a_bulk_delete_missed_is_not_found() {
        let missing = Error::NotFound { path: "a".to_owned(), source: "404".into() };
        let error = store_error(KEY, Intent::Write, &missing);
        assert_eq!((error.outcome, error.condition), (Outcome::Rejected, StoreCondition::NotFound));
    }

    #[test]
    fn what_nobody_typed_is_indefinite_for_a_write() {
        let unknown = Error::Generic { store: "S3", source: "surprise".into() };
        let error = store_error(KEY, Intent::Write, &unknown);
        assert_eq!(error.outcome, Outcome::Indefinite);
    }
}
