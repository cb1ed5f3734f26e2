//! Little-endian fields in the order they are written, each with its name.
//!
//! The names cost nothing when encoding; a tracing encoder records them with offset and size, which
//! is how a test holds the tables of `docs/FORMAT.md` to the code.

/// Why bytes from disk are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before the field does.
    #[error("{what} is too short: {field} wants {need} bytes, {have} are left")]
    Truncated {
        /// The type being decoded.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Bytes it takes.
        need: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// It does not begin as this type begins: something else lies here.
    #[error("this is not a {what}")]
    BadMagic {
        /// The type being decoded.
        what: &'static str,
    },
    /// The bytes are not those that were written here.
    #[error("the {what} does not match its checksum")]
    BadChecksum {
        /// The type being decoded.
        what: &'static str,
    },
    /// Written by a newer cairn.
    #[error("the {what} has format version {found}, this program knows versions up to {known}")]
    NewerVersion {
        /// The type being decoded.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The highest one known.
        known: u32,
    },
    /// Written by a cairn from before the first release.
    #[error(
        "the {what} has format version {found}, of a cairn before its first release, and this program reads version {known}: copy the files with that cairn into a volume made by this one"
    )]
    OlderVersion {
        /// The type being decoded.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The one known.
        known: u32,
    },
    /// A field has a value that it cannot have.
    #[error("{what} has an impossible {field}: {value}")]
    BadValue {
        /// The type being decoded.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// One field as it was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as in `docs/FORMAT.md`.
    pub name: &'static str,
    /// Bytes from the start of the type.
    pub offset: usize,
    /// Bytes it takes.
    pub size: usize,
}

/// Appends fields to a buffer.
#[derive(Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    trace: Option<Vec<Field>>,
}

impl Encoder {
    /// An empty one.
    pub fn new() -> Self {
        Encoder::default()
    }

    /// One that also records where each field went.
    pub fn tracing() -> Self {
        Encoder { bytes: Vec::new(), trace: Some(Vec::new()) }
    }

    /// Goes on after what is in `bytes` already.
    pub fn after(bytes: Vec<u8>) -> Self {
        Encoder { bytes, trace: None }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far.
    pub fn written(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The fields, if this is a tracing encoder.
    pub fn into_trace(self) -> Vec<Field> {
        self.trace.unwrap_or_default()
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, name: &'static str, value: &[u8]) {
        if let Some(trace) = &mut self.trace {
            trace.push(Field { name, offset: self.bytes.len(), size: value.len() });
        }
        self.bytes.extend_from_slice(value);
    }

    /// One byte.
    pub fn u8(&mut self, name: &'static str, value: u8) {
        self.bytes(name, &[value]);
    }

    /// Two bytes.
    pub fn u16(&mut self, name: &'static str, value: u16) {
        self.bytes(name, &value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, name: &'static str, value: u32) {
        self.bytes(name, &value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, name: &'static str, value: u64) {
        self.bytes(name, &value.to_le_bytes());
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, name: &'static str, value: i64) {
        self.bytes(name, &value.to_le_bytes());
    }

    /// Zeros up to `offset` from the start.
    pub fn zeros_to(&mut self, name: &'static str, offset: usize) {
        let missing = offset.saturating_sub(self.bytes.len());
        self.bytes(name, &vec![0; missing]);
    }

    /// Overwrites eight bytes written before.
    pub(crate) fn patch_u64(&mut self, offset: usize, value: u64) {
        self.bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// Takes fields off bytes that may be anything.
#[derive(Clone)]
pub struct Decoder<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Over the bytes of a `what` (named in errors).
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Decoder { what, bytes }
    }

    /// Bytes not taken yet.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, field: &'static str, n: usize) -> Result<&'a [u8], FormatError> {
        let Some((head, tail)) = self.bytes.split_at_checked(n) else {
            return Err(FormatError::Truncated {
                what: self.what,
                field,
                need: n as u64,
                have: self.bytes.len() as u64,
            });
        };
        self.bytes = tail;
        Ok(head)
    }

    /// The next `N` bytes, as an array.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(field, N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, FormatError> {
        Ok(i64::from_le_bytes(self.array(field)?))
    }

    /// A count of things that take at least `each` bytes: refused where that many cannot follow, so
    /// that it may be allocated for.
    pub fn count(&mut self, field: &'static str, each: usize) -> Result<usize, FormatError> {
        let count = self.u32(field)? as usize;
        let need = count as u64 * each as u64;
        if need > self.bytes.len() as u64 {
            return Err(FormatError::Truncated {
                what: self.what,
                field,
                need,
                have: self.bytes.len() as u64,
            });
        }
        Ok(count)
    }

    /// Bytes that must be `magic`.
    pub fn magic<const N: usize>(&mut self, magic: &[u8; N]) -> Result<(), FormatError> {
        match self.array::<N>("magic") {
            Ok(found) if found == *magic => Ok(()),
            _ => Err(FormatError::BadMagic { what: self.what }),
        }
    }

    /// A version that must be this program's.
    pub fn version(&mut self) -> Result<u32, FormatError> {
        match self.u32("version")? {
            crate::FORMAT_VERSION => Ok(crate::FORMAT_VERSION),
            0 => Err(self.bad("version", 0)),
            found if found < crate::FORMAT_VERSION => {
                Err(FormatError::OlderVersion { what: self.what, found, known: crate::FORMAT_VERSION })
            }
            found => Err(FormatError::NewerVersion { what: self.what, found, known: crate::FORMAT_VERSION }),
        }
    }

    /// That nothing is left over.
    pub fn end(&self) -> Result<(), FormatError> {
        match self.bytes.len() {
            0 => Ok(()),
            n => Err(self.bad("length (bytes left over)", n as u64)),
        }
    }

    /// The error of a field that cannot have this value.
    pub fn bad(&self, field: &'static str, value: u64) -> FormatError {
        FormatError::BadValue { what: self.what, field, value }
    }

    /// `value`, if it lies in `range`.
    pub fn within(
        &self,
        field: &'static str,
        value: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, FormatError> {
        if range.contains(&value) { Ok(value) } else { Err(self.bad(field, value)) }
    }
}
