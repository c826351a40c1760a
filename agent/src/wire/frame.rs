//! The first 8 bytes of a request: enough to refuse it, or to choose its memory, unread.

use super::{api_key::ApiKey, versions};

/// What is read before anything is budgeted: length, API key, version.
pub const PREFIX_BYTES: usize = 8;

/// The length field, which does not count itself.
pub const LENGTH_BYTES: usize = 4;

/// Key, version and correlation id: no request is shorter.
const REQUEST_BYTES_MIN: usize = 8;

const MIB: usize = 1024 * 1024;

/// The largest frame of each kind, without its length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Before authentication.
    pub unauthenticated_bytes: usize,
    /// Produce.
    pub produce_bytes: usize,
    /// Any other API; a few that grow with the cluster may have a multiple (see
    /// [`FrameLimits::of`]).
    pub other_bytes: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            unauthenticated_bytes: 64 * 1024,
            // Kafka's socket.request.max.bytes.
            produce_bytes: 100 * MIB,
            other_bytes: MIB,
        }
    }
}

impl FrameLimits {
    /// The limit for an API once the client is authenticated, or need not be.
    pub fn of(&self, key: ApiKey) -> usize {
        match key {
            ApiKey::Produce => self.produce_bytes,
            // A leader's assignment for every member of its group.
            ApiKey::SyncGroup => 16 * self.other_bytes,
            // Requests that may name every partition of a large cluster.
            ApiKey::Fetch | ApiKey::ShareFetch => 8 * self.other_bytes,
            ApiKey::ListOffsets
            | ApiKey::Metadata
            | ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::TxnOffsetCommit
            | ApiKey::OffsetForLeaderEpoch
            | ApiKey::JoinGroup
            | ApiKey::CreateTopics => 4 * self.other_bytes,
            _ => self.other_bytes,
        }
    }
}

/// Whose memory a frame is read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The reserve that Produce and Fetch never use.
    Control,
    /// Record batches on their way in.
    Produce,
    /// Fetch requests.
    Fetch,
}

/// How the version of a request is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It is decoded and answered.
    Served,
    /// An ApiVersions request of an unknown version: only its correlation id is read, and
    /// [`versions::unsupported_api_versions`] is the answer.
    UnknownApiVersions,
}

/// A frame that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePrefix {
    /// The API.
    pub key: ApiKey,
    /// Its version.
    pub version: i16,
    /// The bytes that follow the prefix, the correlation id first.
    pub rest_bytes: usize,
    /// Where they are read to.
    pub pool: Pool,
    /// What becomes of them.
    pub service: Service,
}

/// Why a connection is closed on the first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameRefused {
    /// The length is negative or below that of any request.
    #[error("frame length {length} is no request's")]
    BadLength {
        /// What the client sent.
        length: i32,
    },
    /// The frame is larger than its API may be.
    #[error("a frame of {bytes} bytes is above the limit of {limit} for {key:?}")]
    TooLarge {
        /// The API.
        key: ApiKey,
        /// The frame's length.
        bytes: usize,
        /// The most it may be.
        limit: usize,
    },
    /// The API or its version is not served.
    #[error("api key {key} version {version} is not served")]
    Unserved {
        /// The number of the API.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// The API needs authentication first.
    #[error("{key:?} before authentication")]
    Unauthenticated {
        /// The API.
        key: ApiKey,
    },
}

impl FramePrefix {
    /// The length of a frame by its first 4 bytes. A client that sends a bad one may never send
    /// the other 4.
    ///
    /// # Errors
    /// No request has this length.
    pub fn frame_bytes(length: [u8; LENGTH_BYTES]) -> Result<usize, FrameRefused> {
        let length = i32::from_be_bytes(length);
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes >= REQUEST_BYTES_MIN);
        bytes.ok_or(FrameRefused::BadLength { length })
    }

    /// Judges the first 8 bytes of a frame. A client that need not authenticate counts as
    /// authenticated.
    ///
    /// # Errors
    /// The frame may not be read: close the connection.
    pub fn parse(
        prefix: [u8; PREFIX_BYTES],
        limits: &FrameLimits,
        authenticated: bool,
    ) -> Result<Self, FrameRefused> {
        let [l0, l1, l2, l3, k0, k1, v0, v1] = prefix;
        let bytes = Self::frame_bytes([l0, l1, l2, l3])?;
        let (code, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
        let unserved = FrameRefused::Unserved { key: code, version };
        let key = ApiKey::from_code(code).ok_or(unserved)?;
        let service = match (key, versions::is_served(key, version)) {
            (_, true) => Service::Served,
            (ApiKey::ApiVersions, false) => Service::UnknownApiVersions,
            (_, false) => return Err(unserved),
        };
        let open = [ApiKey::ApiVersions, ApiKey::SaslHandshake, ApiKey::SaslAuthenticate];
        if !authenticated && !open.contains(&key) {
            return Err(FrameRefused::Unauthenticated { key });
        }
        let limit = match authenticated {
            false => limits.unauthenticated_bytes,
            true => limits.of(key),
        };
        if limit < bytes {
            return Err(FrameRefused::TooLarge { key, bytes, limit });
        }
        let pool = match key {
            ApiKey::Produce => Pool::Produce,
            ApiKey::Fetch => Pool::Fetch,
            _ => Pool::Control,
        };
        // Key and version are part of the length and of the prefix.
        Ok(Self { key, version, rest_bytes: bytes - (PREFIX_BYTES - LENGTH_BYTES), pool, service })
    }
}

#[cfg(test)]
mod tests;
