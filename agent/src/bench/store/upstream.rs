//! Forwards requests to a real store, head and bytes unchanged, so that signatures stay valid.

use std::{str::FromStr, sync::Mutex, sync::PoisonError};

use hyper::{
    Request, Response, Version,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderMap, HeaderName},
    http::request::Parts,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    body::{AnswerBody, Closed, RequestBody},
    local,
    xml::S3Error,
};

/// Headers that are about one connection and not about the request.
const OF_THE_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    // Set anew from the body's length.
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const NOT_REACHED: S3Error = S3Error {
    status: 503,
    code: "ServiceUnavailable",
    message: "No connection to the store behind --upstream.",
};

/// Where the real store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddress {
    host_port: String,
}

/// No address of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not http://HOST:PORT")]
pub struct UpstreamRefused {
    text: String,
}

impl FromStr for UpstreamAddress {
    type Err = UpstreamRefused;

    fn from_str(text: &str) -> Result<Self, UpstreamRefused> {
        let host_port = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let valid = |host_port: &&str| {
            let pair = host_port.rsplit_once(':');
            pair.is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
            })
        };
        let host_port = host_port.filter(valid).map(str::to_owned);
        host_port
            .map(|host_port| Self { host_port })
            .ok_or_else(|| UpstreamRefused { text: text.to_owned() })
    }
}

/// One client connection's way to the real store. Its requests come one after the other, so it
/// needs one connection there.
#[derive(Debug)]
pub struct Forwarder {
    address: UpstreamAddress,
    idle: Mutex<Option<SendRequest<RequestBody>>>,
}

impl Forwarder {
    /// Connects when the first request comes.
    pub fn new(address: UpstreamAddress) -> Self {
        Self { address, idle: Mutex::new(None) }
    }

    /// Forwards a request and gives the answer, whose body is still to come. A store that cannot
    /// be reached is answered for with 503.
    ///
    /// # Errors
    /// The connection broke after the request had begun to leave: it may have been carried out.
    pub async fn forward(
        &self,
        head: Parts,
        body: RequestBody,
    ) -> Result<Response<AnswerBody>, Closed> {
        let resource = head.uri.path().to_owned();
        let mut request = Request::from_parts(head, body);
        *request.version_mut() = Version::HTTP_11;
        remove_of_the_connection(request.headers_mut());
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.answered(sender, answer)),
                // Closed while idle: nothing was sent.
                Err(mut error) => request = error.take_message().ok_or(Closed)?,
            }
        }
        let Ok(mut sender) = self.connect().await else {
            request.body_mut().drain().await?;
            return Ok(local::refusal(NOT_REACHED, &resource));
        };
        let answer = sender.send_request(request).await.map_err(|error| {
            tracing::debug!(%error, resource, "the store behind --upstream gave no answer");
            Closed
        })?;
        Ok(self.answered(sender, answer))
    }

    fn answered(
        &self,
        sender: SendRequest<RequestBody>,
        answer: Response<hyper::body::Incoming>,
    ) -> Response<AnswerBody> {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let mut answer = answer.map(AnswerBody::upstream);
        remove_of_the_connection(answer.headers_mut());
        answer
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<RequestBody>> {
        let stream = TcpStream::connect(&self.address.host_port).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender, or when the store closes.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the store behind --upstream");
            }
        });
        Ok(sender)
    }
}

fn remove_of_the_connection(headers: &mut HeaderMap) {
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_scheme_host_and_port() {
        for text in ["http://127.0.0.1:9000", "http://minio:9000/", "http://[::1]:9000"] {
            assert!(text.parse::<UpstreamAddress>().is_ok(), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:9000",
            "https://a:1",
            "http://a",
            "http://:1",
            "http://a:x",
            "http://a/b:1",
        ] {
            assert!(text.parse::<UpstreamAddress>().is_err(), "{text}");
        }
    }
}
