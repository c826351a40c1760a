//! Reads the table of messages: one line each,
//! `key q|r name versions first-flexible fields`, and a field is
//! `name:type@versions?nullable versions#tag/versions=default`.

/// A closed range of versions; `last` is `None` for "and all later ones".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub first: i16,
    pub last: Option<i16>,
}

impl Versions {
    pub const ALL: Self = Self { first: 0, last: None };

    fn parse(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().map_err(|_| format!("bad versions {text:?}"));
        if let Some(first) = text.strip_suffix('+') {
            return Ok(Self { first: number(first)?, last: None });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok(Self { first: number(first)?, last: Some(number(last)?) })
    }

    pub fn contains(self, version: i16) -> bool {
        self.first <= version && self.last.is_none_or(|last| version <= last)
    }
}

/// What a field holds, or what the elements of an array are.
#[derive(Clone, Debug)]
pub enum Type {
    Scalar(Scalar),
    Struct(Vec<Field>),
    Array(Box<Type>),
}

/// The types without inner structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Bool,
    I8,
    I16,
    U16,
    I32,
    I64,
    F64,
    Uuid,
    Str,
    Bytes,
    Records,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    pub versions: Versions,
    pub nullable: Option<Versions>,
    pub tag: Option<u32>,
    pub default: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub key: i16,
    pub is_request: bool,
    pub name: String,
    pub versions: Versions,
    pub first_flexible: Option<i16>,
    pub fields: Vec<Field>,
}

impl Message {
    pub fn last_version(&self) -> i16 {
        self.versions.last.expect("a message's versions are closed")
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        self.first_flexible.is_some_and(|first| first <= version)
    }
}

/// Every message of the table.
pub fn table(text: &str) -> Result<Vec<Message>, String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| message(line).map_err(|error| format!("{error} in {line}"))).collect()
}

fn message(line: &str) -> Result<Message, String> {
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or("a line has six columns");
    let key = word()?.parse().map_err(|_| "bad key")?;
    let is_request = word()? == "q";
    let suffix = if is_request { "Request" } else { "Response" };
    let name = format!("{}{suffix}", word()?);
    let versions = Versions::parse(word()?)?;
    let first_flexible = match word()? {
        "none" => None,
        flexible => Some(Versions::parse(flexible)?.first),
    };
    let mut parser = Parser { rest: words.next().unwrap_or("") };
    let fields = parser.fields()?;
    if !parser.rest.is_empty() || versions.last.is_none() {
        return Err(format!("unexpected {:?}", parser.rest));
    }
    Ok(Message { key, is_request, name, versions, first_flexible, fields })
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn take(&mut self, c: char) -> bool {
        self.rest.strip_prefix(c).map(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.take(c) { Ok(()) } else { Err(format!("expected {c:?} at {:?}", self.rest)) }
    }

    fn until(&mut self, stops: &[char]) -> &'a str {
        let end = self.rest.find(stops).unwrap_or(self.rest.len());
        let (head, rest) = self.rest.split_at(end);
        self.rest = rest;
        head
    }

    fn fields(&mut self) -> Result<Vec<Field>, String> {
        let mut fields = Vec::new();
        if self.rest.is_empty() {
            return Ok(fields);
        }
        loop {
            fields.push(self.field()?);
            if !self.take(';') {
                return Ok(fields);
            }
        }
    }

    fn field(&mut self) -> Result<Field, String> {
        const STOPS: &[char] = &['@', '?', '#', '/', '=', ';', '}', ']'];
        let name = self.until(&[':']).to_owned();
        self.expect(':')?;
        let ty = self.ty()?;
        let mut field =
            Field { name, ty, versions: Versions::ALL, nullable: None, tag: None, default: None };
        if self.take('@') {
            field.versions = Versions::parse(self.until(STOPS))?;
        }
        if self.take('?') {
            field.nullable = Some(Versions::parse(self.until(STOPS))?);
        }
        if self.take('#') {
            field.tag = Some(self.until(STOPS).parse().map_err(|_| "bad tag")?);
            self.expect('/')?;
            if Versions::parse(self.until(STOPS))? != field.versions {
                return Err(format!("{} is tagged in some of its versions only", field.name));
            }
        }
        if self.take('=') {
            field.default = Some(self.until(STOPS).to_owned());
        }
        Ok(field)
    }

    fn ty(&mut self) -> Result<Type, String> {
        if self.take('[') {
            let element = self.ty()?;
            self.expect(']')?;
            return Ok(Type::Array(Box::new(element)));
        }
        if self.take('{') {
            let fields = self.fields()?;
            self.expect('}')?;
            return Ok(Type::Struct(fields));
        }
        Ok(Type::Scalar(match self.until(&['@', '?', '#', '=', ';', '}', ']']) {
            "bool" => Scalar::Bool,
            "i8" => Scalar::I8,
            "i16" => Scalar::I16,
            "u16" => Scalar::U16,
            "i32" => Scalar::I32,
            "i64" => Scalar::I64,
            "f64" => Scalar::F64,
            "uuid" => Scalar::Uuid,
            "str" => Scalar::Str,
            "bytes" => Scalar::Bytes,
            "recs" => Scalar::Records,
            other => return Err(format!("unknown type {other:?}")),
        }))
    }
}
