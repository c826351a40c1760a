//! What the walks over Produce and Fetch requests share.

use super::codec::{DecodeError, Element, Reader, Str, Uuid};

/// How a request names a topic: by name in older versions, by id in newer ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRef {
    /// Its name.
    Name(Str),
    /// Its id.
    Id(Uuid),
}

/// The first version of Produce and of Fetch that names topics by id.
const FIRST_BY_ID: i16 = 13;

impl TopicRef {
    /// A copy that does not keep the frame in memory.
    #[must_use]
    pub fn detached(&self) -> Self {
        match self {
            Self::Name(name) => Self::Name(name.detached()),
            Self::Id(id) => Self::Id(*id),
        }
    }

    fn read(r: &mut Reader, version: i16, flexible: bool) -> Result<Self, DecodeError> {
        if version >= FIRST_BY_ID {
            return Uuid::read(r, version, flexible).map(Self::Id);
        }
        // No budget is needed for a name that is no UTF-8: at most one is alive in a walk.
        Str::read(r, version, flexible).map(Self::Name)
    }
}

/// Reads one entry of a topic, up to and with its tagged fields.
pub(super) type ReadEntry<T> = fn(&mut Reader, i16) -> Result<T, DecodeError>;

/// Where the entries of an array of topics are, each of them an array itself.
#[derive(Clone, Debug)]
pub(super) struct Topics<T> {
    r: Reader,
    version: i16,
    flexible: bool,
    read: ReadEntry<T>,
    min_bytes: usize,
    topics_left: usize,
    entries_left: usize,
    /// The topic whose entries are being read, and how many came before it.
    current: Option<(TopicRef, usize)>,
}

impl<T: Clone> Topics<T> {
    /// Stands in front of the first topic of the array at `r`, of which an entry takes `min_bytes`
    /// or more. The entries are checked only by [`Topics::check`].
    pub(super) fn new(
        r: &Reader,
        version: i16,
        flexible: bool,
        (min_bytes, read): (usize, ReadEntry<T>),
    ) -> Result<Self, DecodeError> {
        let mut r = r.clone();
        // A topic has at least a name or an id, and the number of its entries.
        let topics_left = r.count(flexible, 2)?.ok_or(DecodeError::UnexpectedNull)?;
        let (entries_left, current) = (0, None);
        Ok(Self { r, version, flexible, read, min_bytes, topics_left, entries_left, current })
    }

    /// Walks a copy to the end: the number of entries, and a reader behind them.
    pub(super) fn check(&self) -> Result<(usize, Reader), DecodeError> {
        let mut walk = self.clone();
        let mut entries = 0;
        while walk.step()?.is_some() {
            entries += 1;
        }
        Ok((entries, walk.r))
    }

    /// The next entry with its topic and the topic's place in the request.
    pub(super) fn step(&mut self) -> Result<Option<(TopicRef, usize, T)>, DecodeError> {
        while self.entries_left == 0 {
            if self.topics_left == 0 {
                return Ok(None);
            }
            self.topics_left -= 1;
            let topic = TopicRef::read(&mut self.r, self.version, self.flexible)?;
            let index = self.current.as_ref().map_or(0, |(_, index)| index + 1);
            self.current = Some((topic, index));
            let count = self.r.count(self.flexible, self.min_bytes)?;
            self.entries_left = count.ok_or(DecodeError::UnexpectedNull)?;
            self.end_of_topic()?;
        }
        let entry = (self.read)(&mut self.r, self.version)?;
        let (topic, index) = self.current.clone().expect("an entry follows its topic");
        self.entries_left -= 1;
        self.end_of_topic()?;
        Ok(Some((topic, index, entry)))
    }

    fn end_of_topic(&mut self) -> Result<(), DecodeError> {
        if self.entries_left == 0 && self.flexible {
            self.r.skip_tags()?;
        }
        Ok(())
    }
}
