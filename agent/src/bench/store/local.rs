//! S3's operations on objects in memory.
//!
//! # Not here
//! Credentials, which are not looked at; checksums, which are not verified; multipart uploads,
//! metadata of objects, versions.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::request::Parts,
};

use super::{
    body::{AnswerBody, Closed, RequestBody},
    chunked::ChunkedDecoder,
    objects::{Condition, Content, Listing, Memory, Object, Objects, Slices, Stock},
    request::{Asked, Kind, Operation, Target, asked_range},
    xml::{self, ListRequest, NO_SUCH_KEY, S3Error},
};

/// The largest object that S3 takes in one PUT.
const OBJECT_BYTES_MAX: u64 = 5 << 30;

/// A thousand keys of full length, each character of which is escaped.
const DELETE_BODY_BYTES_MAX: usize = 8 << 20;

/// Entries of a page that asks for no number, and the most of any.
const LIST_KEYS_MAX: usize = 1000;

const BAD_CHUNKS: S3Error = S3Error {
    status: 400,
    code: "IncompleteBody",
    message: "The aws-chunked body does not read, or not to its end.",
};
const BAD_TOKEN: S3Error = S3Error {
    status: 400,
    code: "InvalidArgument",
    message: "continuation-token or max-keys is none of ours.",
};
const MALFORMED_XML: S3Error = S3Error {
    status: 400,
    code: "MalformedXML",
    message: "The XML is not well-formed, or names no key or too many.",
};
const TOO_LARGE: S3Error =
    S3Error { status: 400, code: "EntityTooLarge", message: "The object is larger than 5 GiB." };
const MEMORY_FULL: S3Error =
    S3Error { status: 500, code: "InternalError", message: "The objects take all of --memory." };

/// Why an operation has no good answer.
#[derive(Debug)]
enum Failed {
    Refused(S3Error),
    Closed,
}

impl From<S3Error> for Failed {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Closed> for Failed {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// A store in memory.
#[derive(Debug)]
pub struct LocalStore {
    objects: Objects,
    memory: Arc<Memory>,
}

impl LocalStore {
    /// An empty store with room for `bytes_max` of payload.
    pub fn new(bytes_max: u64) -> Self {
        Self { objects: Objects::default(), memory: Memory::new(bytes_max) }
    }

    /// What it holds.
    pub fn stock(&self) -> Stock {
        self.objects.stock()
    }

    /// Carries a request out. A PUT is stored when its body has come, before it is answered: as
    /// with S3, a client that stops waiting cannot conclude that nothing happened.
    ///
    /// # Errors
    /// The client left.
    pub async fn answer(
        &self,
        target: &Target,
        head: &Parts,
        body: &mut RequestBody,
    ) -> Result<Response<AnswerBody>, Closed> {
        let answered = match target.operation {
            Operation::PutObject => self.put(target, &head.headers, body).await,
            Operation::DeleteObjects => self.delete_many(target, body).await,
            _ => self.answer_without_body(target, &head.headers).map_err(Failed::Refused),
        };
        match answered {
            Err(Failed::Closed) => Err(Closed),
            answered => {
                body.drain().await?;
                Ok(match answered {
                    Ok(answer) => answer,
                    Err(Failed::Refused(error)) => refusal(error, head.uri.path()),
                    Err(Failed::Closed) => return Err(Closed),
                })
            }
        }
    }

    fn answer_without_body(
        &self,
        target: &Target,
        headers: &HeaderMap,
    ) -> Result<Response<AnswerBody>, S3Error> {
        match target.operation {
            Operation::GetObject => self.get(target, headers),
            Operation::HeadObject => self.head(target, headers),
            Operation::DeleteObject => {
                self.objects.delete(&target.bucket, std::slice::from_ref(&target.key));
                Ok(with_status(204, AnswerBody::empty()))
            }
            Operation::ListObjects => self.list(target),
            Operation::TouchBucket if target.kind == Kind::Delete => {
                Ok(with_status(204, AnswerBody::empty()))
            }
            Operation::TouchBucket => Ok(with_status(200, AnswerBody::empty())),
            Operation::BucketLocation => Ok(xml_answer(xml::location())),
            Operation::PutObject | Operation::DeleteObjects | Operation::Unsupported => {
                Err(S3Error::of_status(501))
            }
        }
    }

    async fn put(
        &self,
        target: &Target,
        headers: &HeaderMap,
        body: &mut RequestBody,
    ) -> Result<Response<AnswerBody>, Failed> {
        if headers.contains_key("x-amz-copy-source") {
            return Err(S3Error::of_status(501).into());
        }
        let announced = number(headers, "x-amz-decoded-content-length")
            .or_else(|| number(headers, header::CONTENT_LENGTH.as_str()));
        if let Some(bytes) = announced {
            if OBJECT_BYTES_MAX < bytes {
                return Err(TOO_LARGE.into());
            }
            if !self.memory.has_room(bytes) {
                return Err(MEMORY_FULL.into());
            }
        }
        let condition =
            match (text(headers, header::IF_NONE_MATCH), text(headers, header::IF_MATCH)) {
                (Some("*"), None) => Condition::Absent,
                (None, Some(etag)) => Condition::Matches(etag.to_owned()),
                (None, None) => Condition::Any,
                _ => return Err(S3Error::of_status(501).into()),
            };
        let content = self.receive(headers, body).await?;
        let place = (target.bucket.as_str(), target.key.as_str());
        let etag = self.objects.put(place, content, &condition, now_s())?;
        let mut answer = with_status(200, AnswerBody::empty());
        answer.headers_mut().insert(header::ETAG, ascii(&etag));
        Ok(answer)
    }

    async fn receive(
        &self,
        headers: &HeaderMap,
        body: &mut RequestBody,
    ) -> Result<Content, Failed> {
        let streaming = text(headers, HeaderName::from_static("x-amz-content-sha256"))
            .is_some_and(|hash| hash.starts_with("STREAMING-"));
        let encoded = text(headers, header::CONTENT_ENCODING)
            .is_some_and(|encodings| encodings.contains("aws-chunked"));
        let mut chunks = (streaming || encoded).then(ChunkedDecoder::start);
        let mut content = Content::empty(&self.memory);
        while let Some(piece) = body.next().await? {
            let mut pushed = Ok(());
            match &mut chunks {
                None => pushed = content.push(piece),
                Some(chunks) => chunks
                    .feed(piece, |slice| pushed = pushed.and_then(|()| content.push(slice)))
                    .map_err(|_| BAD_CHUNKS)?,
            }
            pushed.map_err(|_| MEMORY_FULL)?;
            if OBJECT_BYTES_MAX < content.bytes() {
                return Err(TOO_LARGE.into());
            }
        }
        if let Some(chunks) = chunks {
            let announced = number(headers, "x-amz-decoded-content-length");
            let complete = announced.is_none_or(|bytes| bytes == content.bytes());
            if !chunks.may_end() || !complete {
                return Err(BAD_CHUNKS.into());
            }
        }
        Ok(content)
    }

    async fn delete_many(
        &self,
        target: &Target,
        body: &mut RequestBody,
    ) -> Result<Response<AnswerBody>, Failed> {
        let collected = body.collect(DELETE_BODY_BYTES_MAX).await?.ok_or(MALFORMED_XML)?;
        let text = std::str::from_utf8(&collected).map_err(|_| MALFORMED_XML)?;
        let keys = xml::keys_to_delete(text).ok_or(MALFORMED_XML)?;
        self.objects.delete(&target.bucket, &keys);
        Ok(xml_answer(xml::delete_result(&keys)))
    }

    fn find(&self, target: &Target, headers: &HeaderMap) -> Result<Arc<Object>, S3Error> {
        let object = self.objects.at(&target.bucket, &target.key).ok_or(NO_SUCH_KEY)?;
        let is_it = |etags: &str| etags == "*" || etags.split(',').any(|e| e.trim() == object.etag);
        if text(headers, header::IF_MATCH).is_some_and(|etags| !is_it(etags)) {
            return Err(S3Error::of_status(412));
        }
        if text(headers, header::IF_NONE_MATCH).is_some_and(is_it) {
            return Err(S3Error { status: 304, code: "NotModified", message: "" });
        }
        Ok(object)
    }

    fn get(&self, target: &Target, headers: &HeaderMap) -> Result<Response<AnswerBody>, S3Error> {
        let object = self.find(target, headers)?;
        let bytes = object.bytes();
        let (status, range) = match asked_range(text(headers, header::RANGE), bytes) {
            Asked::Whole => (200, 0..bytes),
            Asked::Part(range) => (206, range),
            Asked::Unsatisfiable => return Err(S3Error::of_status(416)),
        };
        let content_range = format!("bytes {}-{}/{bytes}", range.start, range.end.max(1) - 1);
        let slices = Slices::of(Arc::clone(&object), range);
        let mut answer = with_status(status, AnswerBody::object(slices));
        describe(&mut answer, &object);
        if status == 206 {
            answer.headers_mut().insert(header::CONTENT_RANGE, ascii(&content_range));
        }
        Ok(answer)
    }

    fn head(&self, target: &Target, headers: &HeaderMap) -> Result<Response<AnswerBody>, S3Error> {
        let object = self.find(target, headers)?;
        let mut answer = with_status(200, AnswerBody::empty());
        describe(&mut answer, &object);
        answer.headers_mut().insert(header::CONTENT_LENGTH, object.bytes().into());
        Ok(answer)
    }

    fn list(&self, target: &Target) -> Result<Response<AnswerBody>, S3Error> {
        let keys_max = match target.parameter("max-keys") {
            None => LIST_KEYS_MAX,
            Some(number) => number.parse::<usize>().map_err(|_| BAD_TOKEN)?.min(LIST_KEYS_MAX),
        };
        let continued = match target.parameter("continuation-token") {
            None => None,
            Some(token) => Some(xml::key_of_token(token).ok_or(BAD_TOKEN)?),
        };
        let after = continued.as_deref().or_else(|| target.parameter("start-after"));
        let delimiter = target.parameter("delimiter").unwrap_or_default();
        let prefix = target.key.as_str();
        let listing = Listing { prefix, after, delimiter, keys_max };
        let page = self.objects.list(&target.bucket, listing);
        let request = ListRequest {
            bucket: &target.bucket,
            prefix,
            keys_max,
            delimiter,
            url_encoded: target.parameter("encoding-type") == Some("url"),
        };
        Ok(xml_answer(xml::list_result(request, &page)))
    }
}

/// An error as S3 answers it.
pub fn refusal(error: S3Error, resource: &str) -> Response<AnswerBody> {
    let body = match error.status {
        304 => AnswerBody::empty(),
        _ => AnswerBody::text(error.body(resource)),
    };
    let mut answer = with_status(error.status, body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

/// An answer with nothing but a status and a body.
pub fn with_status(status: u16, body: AnswerBody) -> Response<AnswerBody> {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).expect("statuses have three digits");
    answer
}

fn xml_answer(body: String) -> Response<AnswerBody> {
    let mut answer = with_status(200, AnswerBody::text(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

fn describe(answer: &mut Response<AnswerBody>, object: &Object) {
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, ascii(&object.etag));
    headers.insert(header::LAST_MODIFIED, ascii(&xml::http_date(object.modified_s)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let octets = HeaderValue::from_static("binary/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
}

fn ascii(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("dates, numbers and our ETags are ASCII")
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
