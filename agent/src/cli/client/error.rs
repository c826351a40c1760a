//! What can go wrong between a client and a broker, and whether a change may have happened.
//!
//! Each message is whole: what is beneath an error is in it and not told again as its source.

use std::time::Duration;

use crate::wire::{
    ApiKey, ErrorCode,
    client::{ResponseRefused, VersionRefused, error_name},
};

/// A question that got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing was sent: no broker took the connection.
    #[error("cannot connect to {broker}: {reason}")]
    Unreachable {
        /// Who it was, as `host:port` or several of them.
        broker: String,
        /// Why, with what to look at.
        reason: String,
    },
    /// Something listens there that does not answer as a broker does.
    #[error("{broker} does not answer as a Kafka broker: {reason}")]
    NotKafka {
        /// Its address.
        broker: String,
        /// What it did instead.
        reason: String,
    },
    /// The request may have taken effect.
    #[error("{broker} did not answer {} within {within:?}", api.name())]
    Silent {
        /// Its address.
        broker: String,
        /// What it was asked.
        api: ApiKey,
        /// How long it had.
        within: Duration,
    },
    /// The request may have taken effect.
    #[error("{broker} broke the connection before it answered {}: {reason}", api.name())]
    Lost {
        /// Its address.
        broker: String,
        /// What it was asked.
        api: ApiKey,
        /// What the socket says.
        reason: std::io::Error,
    },
    /// The broker's versions do not fit; nothing was sent.
    #[error("{broker} cannot do this: {reason}")]
    Unsupported {
        /// Its address.
        broker: String,
        /// Its versions and ours.
        reason: VersionRefused,
    },
    /// An answer came and cannot be read.
    #[error("{broker}, {}: {reason}", api.name())]
    Malformed {
        /// Its address.
        broker: String,
        /// What it was asked.
        api: ApiKey,
        /// What is wrong with the answer.
        reason: ResponseRefused,
    },
    /// The broker's own answer is an error.
    #[error("{subject}: {}", told(*code, message.as_deref()))]
    Refused {
        /// What it is about, such as `topic orders`.
        subject: String,
        /// Kafka's code.
        code: i16,
        /// The broker's words, where it sent some.
        message: Option<String>,
    },
    /// The cluster has no such topic, partition or broker.
    #[error("{0}")]
    Missing(String),
}

/// Kafka's name of a code, and the broker's words about it.
fn told(code: i16, message: Option<&str>) -> String {
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{message} ({})", error_name(code)),
        None => error_name(code),
    }
}

impl ClientError {
    /// An error code about `subject`; nothing when it is 0.
    ///
    /// # Errors
    /// `code` is not 0.
    pub fn check(subject: impl FnOnce() -> String, code: i16) -> Result<(), Self> {
        Self::check_told(subject, code, None)
    }

    /// The same, with the broker's words.
    ///
    /// # Errors
    /// `code` is not 0.
    pub fn check_told(
        subject: impl FnOnce() -> String,
        code: i16,
        message: Option<&str>,
    ) -> Result<(), Self> {
        if code == 0 {
            return Ok(());
        }
        Err(Self::Refused { subject: subject(), code, message: message.map(str::to_owned) })
    }

    /// Whether asking the same again, perhaps of another broker, may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Lost { .. } | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => {
                ErrorCode::from_code(*code).is_some_and(ErrorCode::retriable)
            }
            Self::NotKafka { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Missing(_) => false,
        }
    }

    /// Whether a change that was asked for may have happened all the same.
    pub fn is_indefinite(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Lost { .. } | Self::Malformed { .. } => true,
            Self::Refused { code, .. } => {
                matches!(ErrorCode::from_code(*code), Some(ErrorCode::RequestTimedOut))
            }
            Self::Unreachable { .. }
            | Self::NotKafka { .. }
            | Self::Unsupported { .. }
            | Self::Missing(_) => false,
        }
    }

    /// The code of an answer that is an error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_never_told_as_what_did_not() {
        let lost = || ClientError::Lost {
            broker: "b:1".to_owned(),
            api: ApiKey::CreateTopics,
            reason: std::io::ErrorKind::ConnectionReset.into(),
        };
        let refused =
            |code: ErrorCode| ClientError::check(|| "topic t".to_owned(), code.code()).unwrap_err();
        assert!(lost().is_indefinite());
        assert!(refused(ErrorCode::RequestTimedOut).is_indefinite());
        assert!(!refused(ErrorCode::NotController).is_indefinite());
        let nobody = ClientError::Unreachable { broker: "b:1".to_owned(), reason: String::new() };
        assert!(!nobody.is_indefinite());
    }

    #[test]
    fn the_brokers_words_come_before_the_name_of_the_code() {
        let told = |message: Option<&str>| {
            ClientError::check_told(|| "topic t".to_owned(), 36, message).unwrap_err().to_string()
        };
        assert_eq!(
            told(Some("Topic 't' already exists.")),
            "topic t: Topic 't' already exists. \
            (TOPIC_ALREADY_EXISTS)"
        );
        assert_eq!(told(None), "topic t: TOPIC_ALREADY_EXISTS");
    }
}
