//! What an SDK error says about the world. Unsure means `Indefinite` for a write.

use std::error::Error as _;

use object_store::{
    Error,
    client::{HttpError, HttpErrorKind},
};

use crate::{
    error::{Outcome, StoreCondition, StoreError},
    store::key::Operation,
};

/// How the SDK's message for an HTTP status begins. Its type is private.
const STATUS_MESSAGE: &str = "Server returned non-2xx status code: ";

/// What the store or the network said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An HTTP status other than success.
    Status(u16),
    /// No connection came about, so nothing was sent.
    NotConnected,
    /// Anything after that: time-out, reset, an answer that does not parse.
    Broken,
    /// The SDK refused before it sent anything.
    NotSent,
}

/// Classifies an error of a PUT or DELETE.
pub(super) fn write_error(operation: Operation<'_>, error: &Error) -> StoreError {
    let (outcome, condition) = classify_write(answer_of(error));
    operation.error(outcome, condition, reason(error))
}

/// Classifies an error of a GET or LIST: nothing changes, so nothing is indefinite.
pub(super) fn read_error(operation: Operation<'_>, error: &Error) -> StoreError {
    let (outcome, condition) = classify_read(answer_of(error));
    operation.error(outcome, condition, reason(error))
}

fn classify_write(answer: Answer) -> (Outcome, StoreCondition) {
    match answer {
        // 501 says that the request was not understood; other 5xx may come after the write.
        Answer::Status(501) => (Outcome::Rejected, StoreCondition::Unsupported),
        Answer::Status(500..) => (Outcome::Indefinite, StoreCondition::Busy),
        Answer::Status(408) | Answer::Broken => (Outcome::Indefinite, StoreCondition::NoAnswer),
        other => classify_read(other),
    }
}

fn classify_read(answer: Answer) -> (Outcome, StoreCondition) {
    match answer {
        Answer::Status(401 | 403) => (Outcome::Rejected, StoreCondition::Denied),
        Answer::Status(404) => (Outcome::Rejected, StoreCondition::NotFound),
        Answer::Status(409 | 412 | 304) => (Outcome::Rejected, StoreCondition::AlreadyExists),
        // The object is shorter than the caller knows it to be.
        Answer::Status(416) => (Outcome::Corrupt, StoreCondition::Other),
        Answer::Status(501) => (Outcome::Rejected, StoreCondition::Unsupported),
        Answer::Status(429 | 500..) => (Outcome::Unavailable, StoreCondition::Busy),
        Answer::Status(408) | Answer::NotConnected | Answer::Broken => {
            (Outcome::Unavailable, StoreCondition::NoAnswer)
        }
        Answer::Status(_) | Answer::NotSent => (Outcome::Rejected, StoreCondition::Other),
    }
}

fn answer_of(error: &Error) -> Answer {
    if let Some(answer) = answer_in_chain(error) {
        return answer;
    }
    match error {
        Error::NotFound { .. } => Answer::Status(404),
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Answer::Status(412),
        Error::PermissionDenied { .. } => Answer::Status(403),
        Error::Unauthenticated { .. } => Answer::Status(401),
        Error::NotImplemented { .. } | Error::NotSupported { .. } => Answer::Status(501),
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => Answer::NotSent,
        _ => Answer::Broken,
    }
}

/// The status or transport error that the SDK wrapped.
fn answer_in_chain(error: &Error) -> Option<Answer> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(match http.kind() {
                HttpErrorKind::Connect => Answer::NotConnected,
                _ => Answer::Broken,
            });
        }
        let message = error.to_string();
        if let Some(rest) = message.strip_prefix(STATUS_MESSAGE) {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
            return digits.and_then(|digits| digits.parse().ok()).map(Answer::Status);
        }
        cause = error.source();
    }
    None
}

/// The innermost cause says most; the outer ones repeat the key.
fn reason(error: &Error) -> String {
    /// Stores answer errors with pages of XML.
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

    #[test]
    fn a_write_is_definite_only_when_the_store_refused_it() {
        use Outcome::{Indefinite, Rejected, Unavailable};
        for (answer, outcome) in [
            (Answer::Status(401), Rejected),
            (Answer::Status(403), Rejected),
            (Answer::Status(404), Rejected),
            (Answer::Status(409), Rejected),
            (Answer::Status(412), Rejected),
            (Answer::Status(429), Unavailable),
            (Answer::Status(408), Indefinite),
            (Answer::Status(500), Indefinite),
            (Answer::Status(501), Rejected),
            (Answer::Status(503), Indefinite),
            (Answer::NotConnected, Unavailable),
            (Answer::Broken, Indefinite),
        ] {
            assert_eq!(classify_write(answer).0, outcome, "{answer:?}");
        }
    }

    #[test]
    fn a_read_is_never_indefinite() {
        let statuses = (300..600).map(Answer::Status);
        for answer in statuses.chain([Answer::NotConnected, Answer::Broken, Answer::NotSent]) {
            assert_ne!(classify_read(answer).0, Outcome::Indefinite, "{answer:?}");
        }
    }
}
