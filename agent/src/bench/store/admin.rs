//! Requests to the stub itself, under `/-/`, which is no bucket's name. They are not counted, and
//! no fault applies to them.

use hyper::{
    Response,
    header::{self, HeaderValue},
    http::request::Parts,
};
use serde_json::json;

use super::{
    body::{AnswerBody, Closed, RequestBody},
    fault::FaultRules,
    local::with_status,
    serve::{Backend, Stub},
};

/// A thousand rules fit many times.
const RULES_BYTES_MAX: usize = 4 << 20;

/// Whether a path is the stub's own.
pub fn is_about_the_stub(path: &str) -> bool {
    path.starts_with("/-/")
}

/// Answers a request to the stub.
///
/// # Errors
/// The client left.
pub async fn answer(
    stub: &Stub,
    head: &Parts,
    body: &mut RequestBody,
) -> Result<Response<AnswerBody>, Closed> {
    let Some(body) = body.collect(RULES_BYTES_MAX).await? else {
        return Ok(failed(413, "the body is longer than 4 MiB"));
    };
    Ok(match (head.method.as_str(), head.uri.path()) {
        ("PUT", "/-/faults") => match FaultRules::parse(&body, stub.seed) {
            Ok(rules) => {
                stub.faults.replace(rules);
                json_answer(200, stub.faults.to_json())
            }
            Err(refused) => failed(400, &refused.to_string()),
        },
        ("GET", "/-/faults") => json_answer(200, stub.faults.to_json()),
        ("GET", "/-/counters") => json_answer(200, json!(stub.counters.report()).to_string()),
        ("POST", "/-/counters/reset") => {
            stub.counters.reset();
            with_status(204, AnswerBody::empty())
        }
        ("GET", "/-/objects") => match &stub.backend {
            Backend::Local(store) => json_answer(200, json!(store.stock()).to_string()),
            Backend::Upstream(_) => failed(404, "the objects are behind --upstream"),
        },
        (_, "/-/faults" | "/-/counters" | "/-/counters/reset" | "/-/objects") => failed(
            405,
            "PUT or GET /-/faults, GET /-/counters, POST /-/counters/reset, GET /-/objects",
        ),
        _ => failed(404, "there are /-/faults, /-/counters, /-/counters/reset and /-/objects"),
    })
}

fn json_answer(status: u16, body: String) -> Response<AnswerBody> {
    let mut answer = with_status(status, AnswerBody::text(body));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

fn failed(status: u16, error: &str) -> Response<AnswerBody> {
    json_answer(status, json!({ "error": error }).to_string())
}
