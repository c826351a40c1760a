//! Messages as JSON to and from bytes, by the table of messages.
//!
//! Names are Kafka's. What a request does not name has its default; naming what no version has is
//! an error, naming what this version does not have is not: a step is played in many versions.
//! UUIDs are Kafka's 22 characters of base64; bytes are text where they are printable text, else
//! `{hex: ".."}`; records are batches ([`super::batch`]).

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    batch,
    schema::{Field, Message, Scalar, Type},
};

/// A body of `version`.
///
/// # Errors
/// A field that the message does not have, or a value that is none of its field.
pub fn encode(message: &Message, version: i16, body: &Value) -> anyhow::Result<Vec<u8>> {
    let mut out = Encoder { version, flexible: message.is_flexible(version), out: Vec::new() };
    out.fields(&message.fields, body).with_context(|| message.name.clone())?;
    Ok(out.out)
}

/// The body of an answer in `version`, every field of it.
///
/// # Errors
/// It is too short, or something follows it.
pub fn decode(message: &Message, version: i16, body: &[u8]) -> anyhow::Result<Value> {
    let mut from = Decoder { version, flexible: message.is_flexible(version), rest: body };
    let value = from.fields(&message.fields).with_context(|| message.name.clone())?;
    ensure!(from.rest.is_empty(), "{}: {} bytes are left", message.name, from.rest.len());
    Ok(value)
}

struct Encoder {
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

impl Encoder {
    fn fields(&mut self, fields: &[Field], given: &Value) -> anyhow::Result<()> {
        let given = given.as_object().with_context(|| format!("an object, not {given}"))?;
        for name in given.keys() {
            ensure!(fields.iter().any(|field| field.name == *name), "no field named {name}");
        }
        let there = fields.iter().filter(|field| field.versions.contains(self.version));
        let (plain, tagged): (Vec<_>, Vec<_>) = there.partition(|field| field.tag.is_none());
        for field in plain {
            self.field(field, given.get(&field.name)).with_context(|| field.name.clone())?;
        }
        if !self.flexible {
            return Ok(());
        }
        let tagged: Vec<_> =
            tagged.into_iter().filter(|field| given.contains_key(&field.name)).collect();
        self.uvarint(tagged.len() as u32);
        for field in tagged {
            self.uvarint(field.tag.expect("partitioned by having a tag"));
            let outer = std::mem::take(&mut self.out);
            self.field(field, given.get(&field.name))?;
            let value = std::mem::replace(&mut self.out, outer);
            self.uvarint(value.len() as u32);
            self.out.extend(value);
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, given: Option<&Value>) -> anyhow::Result<()> {
        let default = given.is_none().then(|| default_of(field));
        let value = given.or(default.as_ref()).unwrap_or(&Value::Null);
        let nullable = field.nullable.is_some_and(|versions| versions.contains(self.version));
        ensure!(!value.is_null() || nullable, "null, in a version that does not allow it");
        match &field.ty {
            Type::Struct(fields) if nullable => {
                self.out.push(if value.is_null() { 0xff } else { 1 });
                if value.is_null() { Ok(()) } else { self.fields(fields, value) }
            }
            Type::Struct(fields) => self.fields(fields, value),
            Type::Array(_) if value.is_null() => {
                self.length(None);
                Ok(())
            }
            Type::Array(element) => {
                let elements = value.as_array().with_context(|| format!("no array: {value}"))?;
                self.length(Some(elements.len()));
                elements.iter().try_for_each(|value| self.element(element, value))
            }
            Type::Scalar(scalar) => self.scalar(*scalar, value),
        }
    }

    fn element(&mut self, element: &Type, value: &Value) -> anyhow::Result<()> {
        match element {
            Type::Struct(fields) => self.fields(fields, value),
            Type::Scalar(scalar) => self.scalar(*scalar, value),
            Type::Array(_) => bail!("no array of arrays in the table"),
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) -> anyhow::Result<()> {
        match scalar {
            Scalar::Bool => self.out.push(value.as_bool().context("true or false")?.into()),
            Scalar::I8 => self.out.extend(i8::try_from(number(value)?)?.to_be_bytes()),
            Scalar::I16 => self.out.extend(i16::try_from(number(value)?)?.to_be_bytes()),
            Scalar::U16 => self.out.extend(u16::try_from(number(value)?)?.to_be_bytes()),
            Scalar::I32 => self.out.extend(i32::try_from(number(value)?)?.to_be_bytes()),
            Scalar::I64 => self.out.extend(number(value)?.to_be_bytes()),
            Scalar::F64 => self.out.extend(value.as_f64().context("a number")?.to_be_bytes()),
            Scalar::Uuid => self.out.extend(uuid(value)?),
            Scalar::Str => match value {
                Value::Null if self.flexible => self.uvarint(0),
                Value::Null => self.out.extend((-1i16).to_be_bytes()),
                value => {
                    let text = value.as_str().with_context(|| format!("no text: {value}"))?;
                    match self.flexible {
                        true => self.uvarint(text.len() as u32 + 1),
                        false => self.out.extend(i16::try_from(text.len())?.to_be_bytes()),
                    }
                    self.out.extend(text.bytes());
                }
            },
            Scalar::Bytes | Scalar::Records => {
                let bytes = match value {
                    Value::Null => None,
                    value if scalar == Scalar::Records => Some(batch::encode(value)?),
                    value => Some(bytes(value)?),
                };
                self.length(bytes.as_ref().map(Vec::len));
                self.out.extend(bytes.unwrap_or_default());
            }
        }
        Ok(())
    }

    fn length(&mut self, length: Option<usize>) {
        match (self.flexible, length) {
            (true, _) => self.uvarint(length.map_or(0, |length| length as u32 + 1)),
            (false, None) => self.out.extend((-1i32).to_be_bytes()),
            (false, Some(length)) => self.out.extend((length as u32).to_be_bytes()),
        }
    }

    fn uvarint(&mut self, value: u32) {
        self.out = crate::raw::Bytes(std::mem::take(&mut self.out)).uvarint(value).0;
    }
}

fn default_of(field: &Field) -> Value {
    match (&field.ty, field.default.as_deref()) {
        (_, Some("null")) => Value::Null,
        (Type::Struct(_), _) => Value::Object(Map::new()),
        (Type::Array(_), _) => Value::Array(Vec::new()),
        (Type::Scalar(Scalar::Str), text) => text.unwrap_or("").into(),
        (Type::Scalar(Scalar::Bytes | Scalar::Records), _) => "".into(),
        (Type::Scalar(Scalar::Uuid), _) => URL_SAFE_NO_PAD.encode([0; 16]).into(),
        (Type::Scalar(Scalar::Bool), text) => (text == Some("true")).into(),
        (Type::Scalar(Scalar::F64), _) => 0.0.into(),
        (Type::Scalar(_), number) => number.and_then(|n| n.parse::<i64>().ok()).unwrap_or(0).into(),
    }
}

/// A whole number; as text too, since not every reader of JSON keeps 64 bits.
pub(super) fn number(value: &Value) -> anyhow::Result<i64> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.or(value.as_i64()).with_context(|| format!("not a whole number: {value}"))
}

fn uuid(value: &Value) -> anyhow::Result<[u8; 16]> {
    let text = value.as_str().with_context(|| format!("not a uuid: {value}"))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).with_context(|| format!("not a uuid: {text}"))?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("not 16 bytes: {text}"))
}

/// Text, or `{hex: ".."}`.
pub(super) fn bytes(value: &Value) -> anyhow::Result<Vec<u8>> {
    match (value.as_str(), value.get("hex").and_then(Value::as_str)) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(hex)) => unhex(hex),
        _ => bail!("neither text nor {{hex: ..}}: {value}"),
    }
}

/// Bytes from hexadecimal digits; spaces are ignored.
pub(super) fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        ensure!(pair.len() == 2, "an odd number of digits");
        Ok(u8::from_str_radix(pair, 16)?)
    });
    pairs.collect()
}

/// The counterpart of [`bytes`].
pub(super) fn shown(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.into(),
        _ => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": digits })
        }
    }
}

struct Decoder<'a> {
    version: i16,
    flexible: bool,
    rest: &'a [u8],
}

impl Decoder<'_> {
    fn take(&mut self, count: usize) -> anyhow::Result<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).context("cut off")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    fn uvarint(&mut self) -> anyhow::Result<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a varint without end")
    }

    fn length(&mut self) -> anyhow::Result<Option<usize>> {
        Ok(match self.flexible {
            true => self.uvarint()?.checked_sub(1).map(|length| length as usize),
            false => usize::try_from(i32::from_be_bytes(self.array()?)).ok(),
        })
    }

    fn fields(&mut self, fields: &[Field]) -> anyhow::Result<Value> {
        let mut object = Map::new();
        let version = self.version;
        let there = fields.iter().filter(|field| field.versions.contains(version));
        let (plain, tagged): (Vec<_>, Vec<_>) = there.partition(|field| field.tag.is_none());
        for field in plain {
            let value = self.field(field).with_context(|| field.name.clone())?;
            object.insert(field.name.clone(), value);
        }
        if !self.flexible {
            return Ok(Value::Object(object));
        }
        for _ in 0..self.uvarint()? {
            let (tag, length) = (self.uvarint()?, self.uvarint()? as usize);
            let field = tagged.iter().find(|field| field.tag == Some(tag));
            let bytes = self.take(length)?.to_vec();
            let Some(field) = field else {
                object.insert(format!("unknown tag {tag}"), shown(&bytes));
                continue;
            };
            let mut inner = Decoder { rest: &bytes, ..*self };
            object.insert(field.name.clone(), inner.field(field)?);
            ensure!(inner.rest.is_empty(), "tag {tag} is longer than its field");
        }
        Ok(Value::Object(object))
    }

    fn field(&mut self, field: &Field) -> anyhow::Result<Value> {
        let nullable = field.nullable.is_some_and(|versions| versions.contains(self.version));
        match &field.ty {
            Type::Struct(fields) => {
                if nullable && i8::from_be_bytes(self.array()?) < 0 {
                    return Ok(Value::Null);
                }
                self.fields(fields)
            }
            Type::Array(element) => {
                let Some(count) = self.length()? else { return Ok(Value::Null) };
                let elements = (0..count).map(|_| match &**element {
                    Type::Struct(fields) => self.fields(fields),
                    Type::Scalar(scalar) => self.scalar(*scalar),
                    Type::Array(_) => bail!("no array of arrays in the table"),
                });
                elements.collect()
            }
            Type::Scalar(scalar) => self.scalar(*scalar),
        }
    }

    fn scalar(&mut self, scalar: Scalar) -> anyhow::Result<Value> {
        Ok(match scalar {
            Scalar::Bool => (self.array::<1>()? != [0]).into(),
            Scalar::I8 => i8::from_be_bytes(self.array()?).into(),
            Scalar::I16 => i16::from_be_bytes(self.array()?).into(),
            Scalar::U16 => u16::from_be_bytes(self.array()?).into(),
            Scalar::I32 => i32::from_be_bytes(self.array()?).into(),
            Scalar::I64 => i64::from_be_bytes(self.array()?).into(),
            Scalar::F64 => f64::from_be_bytes(self.array()?).into(),
            Scalar::Uuid => URL_SAFE_NO_PAD.encode(self.array::<16>()?).into(),
            Scalar::Str => {
                let length = match self.flexible {
                    true => self.length()?,
                    false => usize::try_from(i16::from_be_bytes(self.array()?)).ok(),
                };
                let Some(length) = length else { return Ok(Value::Null) };
                std::str::from_utf8(self.take(length)?)?.into()
            }
            Scalar::Bytes | Scalar::Records => {
                let Some(length) = self.length()? else { return Ok(Value::Null) };
                let bytes = self.take(length)?;
                if scalar == Scalar::Records { batch::decode(bytes) } else { shown(bytes) }
            }
        })
    }
}
