//! Checksums around every value, so that no engine's damage is taken for the namespace.

use std::ops::ControlFlow;

use cairn_format::{CheckpointRef, bound_sum};

use super::{Change, Engine, EngineError};

const SUM_LEN: usize = 8;

/// An engine whose values carry a checksum over key and value in front, eight bytes, little-endian.
/// The key is part of it so that a value cannot pass for another key's.
#[derive(Debug)]
pub struct Checked<E> {
    inner: E,
}

impl<E: Engine> Checked<E> {
    /// Wraps an engine that is empty or was filled through this wrapper.
    pub fn new(inner: E) -> Self {
        Checked { inner }
    }

    /// The engine that holds the values, checksums included.
    pub fn inner(&self) -> &E {
        &self.inner
    }
}

impl<E: Engine> Engine for Checked<E> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(mut stored) = self.inner.get(key)? else { return Ok(None) };
        verified(key, &stored)?;
        stored.drain(..SUM_LEN);
        Ok(Some(stored))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let mut damage = Ok(());
        self.inner.scan(from, to, &mut |key, stored| match verified(key, stored) {
            Ok(value) => each(key, value),
            Err(e) => {
                damage = Err(e);
                ControlFlow::Break(())
            }
        })?;
        damage
    }

    fn apply(&self, changes: &mut dyn Iterator<Item = Change>, at: CheckpointRef) -> Result<(), EngineError> {
        let mut summed = changes.map(|(key, value)| {
            let stored = value.map(|value| {
                let mut stored = Vec::with_capacity(SUM_LEN + value.len());
                stored.extend_from_slice(&bound_sum(&key, &value).to_le_bytes());
                stored.extend_from_slice(&value);
                stored
            });
            (key, stored)
        });
        self.inner.apply(&mut summed, at)
    }

    fn position(&self) -> Result<Option<CheckpointRef>, EngineError> {
        self.inner.position()
    }

    fn close(&self) {
        self.inner.close();
    }
}

/// The value behind a checksum that matches.
fn verified<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], EngineError> {
    match stored.split_first_chunk::<SUM_LEN>() {
        Some((sum, value)) if u64::from_le_bytes(*sum) == bound_sum(key, value) => Ok(value),
        _ => Err(EngineError::Damaged {
            key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
            len: stored.len().saturating_sub(SUM_LEN),
        }),
    }
}
