//! The XML that S3 speaks, as far as this store needs it [pure].

use std::fmt::Write as _;

/// Keys that one bulk delete may name.
pub const DELETE_KEYS_MAX: usize = 1000;

const HEADER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const NAMESPACE: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

/// An error of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct S3Error {
    /// HTTP status.
    pub status: u16,
    /// The code, such as `NoSuchKey`.
    pub code: &'static str,
    /// For people.
    pub message: &'static str,
}

/// No object has the key.
pub const NO_SUCH_KEY: S3Error =
    S3Error { status: 404, code: "NoSuchKey", message: "The specified key does not exist." };

impl S3Error {
    /// The error that S3 most often sends with `status`.
    pub fn of_status(status: u16) -> Self {
        let (code, message) = match status {
            400 => ("InvalidRequest", "Injected."),
            403 => ("AccessDenied", "Access Denied"),
            404 => ("NoSuchBucket", "The specified bucket does not exist"),
            409 => ("OperationAborted", "A conflicting operation is in progress."),
            412 => ("PreconditionFailed", "A precondition did not hold."),
            416 => ("InvalidRange", "The requested range is not satisfiable"),
            429 => ("TooManyRequests", "Please reduce your request rate."),
            501 => ("NotImplemented", "This functionality is not implemented."),
            503 => ("SlowDown", "Please reduce your request rate."),
            504.. => ("ServiceUnavailable", "Injected."),
            500.. => ("InternalError", "We encountered an internal error. Please try again."),
            _ => ("InvalidRequest", "Injected."),
        };
        Self { status, code, message }
    }

    /// The body of the answer.
    pub fn body(&self, resource: &str) -> String {
        let Self { code, message, .. } = self;
        let resource = escaped(resource);
        format!(
            "{HEADER}<Error><Code>{code}</Code><Message>{message}</Message>\
             <Resource>{resource}</Resource><RequestId>0</RequestId></Error>"
        )
    }
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its size.
    pub object_bytes: u64,
    /// With its quotes.
    pub etag: String,
    /// Seconds since 1970.
    pub modified_s: u64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, in key order.
    pub entries: Vec<Entry>,
    /// What the delimiter folded, in key order.
    pub common_prefixes: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next_after: Option<String>,
}

/// What a page answers.
#[derive(Clone, Copy, Debug)]
pub struct ListRequest<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// Begin of the keys.
    pub prefix: &'a str,
    /// Entries at most.
    pub keys_max: usize,
    /// Folds keys at the first one behind the prefix; empty for none.
    pub delimiter: &'a str,
    /// Whether keys are percent-encoded in the answer.
    pub url_encoded: bool,
}

/// The body of an answer to ListObjectsV2.
pub fn list_result(request: ListRequest<'_>, page: &Page) -> String {
    let spelled = |key: &str| if request.url_encoded { url_encoded(key) } else { escaped(key) };
    let mut body = format!(
        "{HEADER}<ListBucketResult {NAMESPACE}><Name>{}</Name><Prefix>{}</Prefix>\
         <KeyCount>{}</KeyCount><MaxKeys>{}</MaxKeys><IsTruncated>{}</IsTruncated>",
        escaped(request.bucket),
        spelled(request.prefix),
        page.entries.len() + page.common_prefixes.len(),
        request.keys_max,
        page.next_after.is_some(),
    );
    if request.url_encoded {
        body.push_str("<EncodingType>url</EncodingType>");
    }
    if !request.delimiter.is_empty() {
        push(&mut body, format_args!("<Delimiter>{}</Delimiter>", spelled(request.delimiter)));
    }
    if let Some(after) = &page.next_after {
        let token = token_of(after);
        push(&mut body, format_args!("<NextContinuationToken>{token}</NextContinuationToken>"));
    }
    for Entry { key, object_bytes, etag, modified_s } in &page.entries {
        push(
            &mut body,
            format_args!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag>\
                 <Size>{object_bytes}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                spelled(key),
                iso_date(*modified_s),
                escaped(etag),
            ),
        );
    }
    for prefix in &page.common_prefixes {
        let prefix = spelled(prefix);
        push(&mut body, format_args!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"));
    }
    body.push_str("</ListBucketResult>");
    body
}

fn push(body: &mut String, piece: std::fmt::Arguments<'_>) {
    body.write_fmt(piece).expect("a string takes everything");
}

/// The body of an answer to a bulk delete that deleted all of `keys`.
pub fn delete_result(keys: &[String]) -> String {
    let mut body = format!("{HEADER}<DeleteResult {NAMESPACE}>");
    for key in keys {
        push(&mut body, format_args!("<Deleted><Key>{}</Key></Deleted>", escaped(key)));
    }
    body.push_str("</DeleteResult>");
    body
}

/// The body of an answer to GetBucketLocation.
pub fn location() -> String {
    format!("{HEADER}<LocationConstraint {NAMESPACE}></LocationConstraint>")
}

/// The keys that the body of a bulk delete names; `None` when it names none or too many, or does
/// not read.
pub fn keys_to_delete(body: &str) -> Option<Vec<String>> {
    let mut rest = body;
    let mut keys = Vec::new();
    while let Some((_, after)) = rest.split_once("<Object>") {
        let (object, behind) = after.split_once("</Object>")?;
        let (_, key) = object.split_once("<Key>")?;
        let (key, _) = key.split_once("</Key>")?;
        if keys.len() == DELETE_KEYS_MAX {
            return None;
        }
        keys.push(unescaped(key)?);
        rest = behind;
    }
    (!keys.is_empty()).then_some(keys)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => push(&mut escaped, format_args!("&#{};", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('&');
    let mut unescaped = pieces.next()?.to_owned();
    for piece in pieces {
        let (name, behind) = piece.split_once(';')?;
        unescaped.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        });
        unescaped.push_str(behind);
    }
    Some(unescaped)
}

fn url_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            byte => push(&mut encoded, format_args!("%{byte:02X}")),
        }
    }
    encoded
}

/// The token that continues a listing behind `key`.
fn token_of(key: &str) -> String {
    let mut token = String::with_capacity(2 * key.len());
    for byte in key.bytes() {
        push(&mut token, format_args!("{byte:02x}"));
    }
    token
}

/// The key behind which a listing with `token` continues; `None` when we never gave that token.
pub fn key_of_token(token: &str) -> Option<String> {
    let digits = token.as_bytes();
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    });
    String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()
}

/// A moment as listings spell it.
fn iso_date(since_1970_s: u64) -> String {
    let Civil { year, month, day, second_of_day, .. } = Civil::of(since_1970_s);
    let (hour, minute, second) = clock(second_of_day);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

/// A moment as headers spell it.
pub fn http_date(since_1970_s: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Civil { year, month, day, days, second_of_day } = Civil::of(since_1970_s);
    let (hour, minute, second) = clock(second_of_day);
    let (name, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

const fn clock(second_of_day: u64) -> (u64, u64, u64) {
    (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60)
}

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    days: u64,
    second_of_day: u64,
}

impl Civil {
    /// Counts years from March, so that the leap day is the last of its year.
    const fn of(since_1970_s: u64) -> Self {
        const DAYS_OF_400_YEARS: u64 = 146_097;
        let days = since_1970_s / 86_400;
        let since_0000_03_01 = days + 719_468;
        let era = since_0000_03_01 / DAYS_OF_400_YEARS;
        let day_of_era = since_0000_03_01 % DAYS_OF_400_YEARS;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
        Self { year, month, day, days, second_of_day: since_1970_s % 86_400 }
    }
}

#[cfg(test)]
mod tests;
