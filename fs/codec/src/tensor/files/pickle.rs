//! Python's pickles (pickletools.py), as far as a reader of `data.pkl` needs them: which storages PyTorch wrote, of which numbers, how many,
//! and by which names and shapes tensors are found in them.
//!
//! Architecture Invariant: a pickle is data here. Nothing that it names is looked up, made or called; what it would build is
//! forgotten as soon as it is no name, number or tuple of those. Each of its bytes is gone through once, and takes at most a value.

use std::collections::HashMap;
use std::ops::Range;

use cairn_format::Element;

use super::{MOST_TENSORS, Stop, bytes_of};

/// Values that are kept on the stack, in tuples, and for later.
const MOST: usize = 1 << 20;
/// The longest name that a storage has in its archive: they are numbers.
const LONGEST_KEY: usize = 32;
/// The most dimensions.
const DIMENSIONS: usize = 16;

/// What a pickle says of tensors.
pub(super) struct Pickle {
    /// Bytes it takes.
    pub(super) len: usize,
    pub(super) storages: HashMap<Vec<u8>, Storage>,
}

/// Numbers in an entry of their own.
#[derive(Debug, PartialEq)]
pub(super) struct Storage {
    /// What PyTorch calls it.
    pub(super) dtype: &'static str,
    pub(super) element: Element,
    /// Bytes it takes.
    pub(super) len: u64,
    /// How many there are, or as which tensor they are seen where that is all of them.
    pub(super) shape: Vec<u64>,
    /// What the tensor is called, where it is in a dictionary.
    pub(super) name: Option<Range<usize>>,
}

/// What a pickle's machine holds.
#[derive(Clone, Copy)]
enum Value {
    Mark,
    /// A string, from here to there in the pickle.
    Text(u32, u32),
    /// The name of something in a module.
    Global(u32, u32),
    Number(u64),
    /// From here to there in the list of what tuples hold.
    Tuple(u32, u32),
    /// The storage with this number, and a tensor in it.
    Storage(u32),
    Tensor(u32),
    /// Anything else.
    Other,
}

/// Reads a pickle to its end.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, Stop> {
    let mut machine = Machine { bytes, ..Machine::default() };
    while machine.step()? {}
    let mut storages: Vec<Option<Storage>> = machine.storages.into_iter().map(Some).collect();
    let by_key = machine.numbers.into_iter().filter_map(|(key, n)| Some((key, storages[n as usize].take()?)));
    Ok(Pickle { len: machine.at, storages: by_key.collect() })
}

#[derive(Default)]
struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    stack: Vec<Value>,
    in_tuples: Vec<Value>,
    memo: Vec<Value>,
    storages: Vec<Storage>,
    /// Their numbers, by what they are called in the archive.
    numbers: HashMap<Vec<u8>, u32>,
}

impl<'b> Machine<'b> {
    fn take(&mut self, len: u64) -> Result<&'b [u8], Stop> {
        let end = (self.at as u64).checked_add(len).ok_or(Stop::Malformed)?;
        let taken = usize::try_from(end).ok().and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(Stop::Wants(end))?;
        self.at += taken.len();
        Ok(taken)
    }

    /// A number of up to 8 bytes.
    fn number(&mut self, len: u64) -> Result<u64, Stop> {
        let bytes = self.take(len)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at;
        while self.take(1)? != b"\n" {}
        Ok(start..self.at - 1)
    }

    fn push(&mut self, value: Value) -> Result<(), Stop> {
        if self.stack.len() >= MOST {
            return Err(Stop::Malformed);
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Stop> {
        self.stack.pop().ok_or(Stop::Malformed)
    }

    /// Where the values above the last mark begin; the mark is gone.
    fn mark(&mut self) -> Result<usize, Stop> {
        let mark =
            self.stack.iter().rposition(|value| matches!(value, Value::Mark)).ok_or(Stop::Malformed)?;
        self.stack.remove(mark);
        Ok(mark)
    }

    fn text(&mut self, width: u64) -> Result<Value, Stop> {
        let len = self.number(width)?;
        self.take(len)?;
        Ok(Value::Text((self.at as u64 - len) as u32, self.at as u32))
    }

    /// Makes a tuple of what lies above.
    fn tuple(&mut self, from: usize) -> Result<(), Stop> {
        let first = self.in_tuples.len();
        if first + self.stack.len() - from > MOST {
            return Err(Stop::Malformed);
        }
        self.in_tuples.extend(self.stack.drain(from..));
        self.push(Value::Tuple(first as u32, self.in_tuples.len() as u32))
    }

    fn last(&self, count: usize) -> Result<usize, Stop> {
        self.stack.len().checked_sub(count).ok_or(Stop::Malformed)
    }

    fn remember(&mut self, number: u64) -> Result<(), Stop> {
        let value = *self.stack.last().ok_or(Stop::Malformed)?;
        let number = usize::try_from(number).ok().filter(|number| *number < MOST).ok_or(Stop::Malformed)?;
        if self.memo.len() <= number {
            self.memo.resize(number + 1, Value::Other);
        }
        self.memo[number] = value;
        Ok(())
    }

    /// Does what the next byte asks for; false at the end.
    fn step(&mut self) -> Result<bool, Stop> {
        let value = match self.number(1)? as u8 {
            b'.' => return Ok(false),
            // Which version follows, and how long a part of the pickle is.
            0x80 => return self.take(1).map(|_| true),
            0x95 => return self.take(8).map(|_| true),
            b'(' => Value::Mark,
            b')' => Value::Tuple(0, 0),
            // None, a new dictionary, list and set, true and false.
            b'N' | b'}' | b']' | 0x8f | 0x88 | 0x89 => Value::Other,
            b'K' => Value::Number(self.number(1)?),
            b'M' => Value::Number(self.number(2)?),
            b'J' => match self.number(4)? {
                negative if negative >> 31 == 1 => Value::Other,
                number => Value::Number(number),
            },
            0x8a => match self.number(1)? {
                len @ 0..=8 => Value::Number(self.number(len)?),
                len => self.take(len).map(|_| Value::Other)?,
            },
            b'G' => self.take(8).map(|_| Value::Other)?,
            // Text, then bytes.
            0x8c | b'U' => self.text(1)?,
            b'X' | b'T' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.text(1).map(|_| Value::Other)?,
            b'B' | 0x8b => self.text(4).map(|_| Value::Other)?,
            0x8e | 0x96 => self.text(8).map(|_| Value::Other)?,
            b'c' => {
                self.line()?;
                let name = self.line()?;
                Value::Global(name.start as u32, name.end as u32)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(from, to), _) => Value::Global(from, to),
                _ => Value::Other,
            },
            b'q' => return self.number(1).and_then(|number| self.remember(number)).map(|()| true),
            b'r' => return self.number(4).and_then(|number| self.remember(number)).map(|()| true),
            0x94 => return self.remember(self.memo.len() as u64).map(|()| true),
            b'h' => self.remembered(1)?,
            b'j' => self.remembered(4)?,
            b'2' => *self.stack.last().ok_or(Stop::Malformed)?,
            b't' => return self.mark().and_then(|from| self.tuple(from)).map(|()| true),
            few @ 0x85..=0x87 => {
                return self.last(usize::from(few - 0x84)).and_then(|from| self.tuple(from)).map(|()| true);
            }
            b'Q' => {
                let named = self.pop()?;
                self.storage(named)?
            }
            b'R' => {
                let (arguments, _) = (self.pop()?, self.pop()?);
                self.called(arguments)
            }
            0x81 => self.last(2).map(|from| self.stack.truncate(from)).map(|()| Value::Other)?,
            0x92 => self.last(3).map(|from| self.stack.truncate(from)).map(|()| Value::Other)?,
            // What is put into what lies below.
            b'b' | b'a' | b'0' => return self.pop().map(|_| true),
            b's' => {
                let from = self.last(2)?;
                return Ok(self.named(from));
            }
            b'u' => {
                let from = self.mark()?;
                return Ok(self.named(from));
            }
            b'e' | 0x90 | b'1' => {
                let from = self.mark()?;
                self.stack.truncate(from);
                return Ok(true);
            }
            b'l' | b'd' | 0x91 => {
                let from = self.mark()?;
                self.stack.truncate(from);
                Value::Other
            }
            _ => return Err(Stop::Malformed),
        };
        self.push(value).map(|()| true)
    }

    fn remembered(&mut self, width: u64) -> Result<Value, Stop> {
        let number = self.number(width)? as usize;
        self.memo.get(number).copied().ok_or(Stop::Malformed)
    }

    fn in_tuple(&self, value: Value) -> &[Value] {
        match value {
            Value::Tuple(from, to) => &self.in_tuples[from as usize..to as usize],
            _ => &[],
        }
    }

    fn bytes_of(&self, from: u32, to: u32) -> &'b [u8] {
        &self.bytes[from as usize..to as usize]
    }

    /// What PyTorch puts in the place of numbers: ("storage", their type, a key, a device, how many).
    fn storage(&mut self, named: Value) -> Result<Value, Stop> {
        let &[Value::Text(from, to), Value::Global(kind, kind_end), Value::Text(key, key_end), _, count, ..] =
            self.in_tuple(named)
        else {
            return Ok(Value::Other);
        };
        let key = self.bytes_of(key, key_end);
        let (Value::Number(count), b"storage") = (count, self.bytes_of(from, to)) else {
            return Ok(Value::Other);
        };
        if key.len() > LONGEST_KEY || self.storages.len() >= MOST_TENSORS {
            return Err(Stop::Malformed);
        }
        if let Some(number) = self.numbers.get(key) {
            return Ok(Value::Storage(*number));
        }
        let Some((dtype, element, width)) = element(self.bytes_of(kind, kind_end)) else {
            return Ok(Value::Other);
        };
        let len = bytes_of(&[count], width).ok_or(Stop::Malformed)?;
        let number = self.storages.len() as u32;
        self.storages.push(Storage { dtype, element, len, shape: vec![count], name: None });
        self.numbers.insert(key.to_vec(), number);
        Ok(Value::Storage(number))
    }

    /// What is made of a storage is a tensor, and what is made of that: a parameter. The third argument of the former is its shape.
    fn called(&mut self, arguments: Value) -> Value {
        match *self.in_tuple(arguments) {
            [Value::Storage(number), _, shape, ..] => {
                let shape =
                    self.in_tuple(shape).iter().take(DIMENSIONS + 1).map(|dimension| match dimension {
                        Value::Number(number) => Some(*number),
                        _ => None,
                    });
                let shape: Option<Vec<u64>> = shape.collect();
                let storage = &mut self.storages[number as usize];
                // A part of a storage is no tensor of its own: its bytes lie among others.
                let whole = shape.filter(|s| {
                    s.len() <= DIMENSIONS
                        && bytes_of(s, 1) == storage.shape.iter().try_fold(1, |n: u64, d| n.checked_mul(*d))
                });
                if let Some(shape) = whole {
                    storage.shape = shape;
                }
                Value::Tensor(number)
            }
            [Value::Tensor(number), ..] => Value::Tensor(number),
            _ => Value::Other,
        }
    }

    /// Puts pairs of names and what they are into a dictionary: tensors get theirs.
    fn named(&mut self, from: usize) -> bool {
        for pair in self.stack.split_off(from).chunks_exact(2) {
            if let [Value::Text(from, to), Value::Tensor(number)] = *pair {
                self.storages[number as usize].name.get_or_insert(from as usize..to as usize);
            }
        }
        true
    }
}

/// What a type of storage is called, as what its numbers are coded, and bytes of each.
fn element(kind: &[u8]) -> Option<(&'static str, Element, u64)> {
    Some(match kind {
        b"FloatStorage" => ("FloatStorage", Element::Single, 4),
        b"DoubleStorage" => ("DoubleStorage", Element::Double, 8),
        b"HalfStorage" => ("HalfStorage", Element::Half, 2),
        b"BFloat16Storage" => ("BFloat16Storage", Element::Bfloat, 2),
        b"LongStorage" => ("LongStorage", Element::Long, 8),
        b"IntStorage" => ("IntStorage", Element::Word, 4),
        b"QInt32Storage" => ("QInt32Storage", Element::Word, 4),
        b"ShortStorage" => ("ShortStorage", Element::Short, 2),
        b"CharStorage" => ("CharStorage", Element::Byte, 1),
        b"ByteStorage" => ("ByteStorage", Element::Byte, 1),
        b"BoolStorage" => ("BoolStorage", Element::Byte, 1),
        b"QInt8Storage" => ("QInt8Storage", Element::Byte, 1),
        b"QUInt8Storage" => ("QUInt8Storage", Element::Byte, 1),
        // Of any type: 8-bit floats come so.
        b"UntypedStorage" => ("UntypedStorage", Element::Byte, 1),
        b"ComplexFloatStorage" => ("ComplexFloatStorage", Element::Single, 8),
        b"ComplexDoubleStorage" => ("ComplexDoubleStorage", Element::Double, 16),
        _ => return None,
    })
}
