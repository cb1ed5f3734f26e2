//! Tensors that somebody else codes, in batches: files read back, and take what they take, whatever becomes of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_codec::tensor::{Batches, Encoder, Kernel, Run};
use cairn_tests::world::{World, small};
use cairn_volume::{Caller, MakeOptions, OpenOptions};

use super::tensors::{safetensors, weights};

const MIB: usize = 1 << 20;

/// Codes so many batches, and then is gone, like a device.
struct Device {
    left: AtomicUsize,
    coded: AtomicUsize,
    /// What it does to what it gives.
    spoil: fn(&mut Vec<Option<Vec<u8>>>),
}

impl Device {
    fn new(batches: usize, spoil: fn(&mut Vec<Option<Vec<u8>>>)) -> Arc<Device> {
        Arc::new(Device { left: AtomicUsize::new(batches), coded: AtomicUsize::new(0), spoil })
    }
}

impl Batches for Device {
    fn batch(&self) -> usize {
        if self.left.load(Ordering::SeqCst) > 0 { 4 * MIB } else { 0 }
    }

    fn fewest(&self) -> usize {
        1
    }

    fn encode(&self, runs: &[Run<'_>]) -> Option<Vec<Option<Vec<u8>>>> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.ok()?;
        let mut encoder = Encoder::new(Kernel::best());
        let coded = runs.iter().map(|run| encoder.encode(run.plain, run.element, &run.chunk, run.base));
        let mut coded = coded.collect();
        self.coded.fetch_add(runs.len(), Ordering::SeqCst);
        (self.spoil)(&mut coded);
        Some(coded)
    }
}

/// Bytes that files of tensors take, one folded after the other; they are read back on the way.
fn stored(files: &[Vec<u8>], batches: Option<Arc<Device>>) -> u64 {
    let world = World::make(&MakeOptions { journal_size: 64 << 20, pack_size: 32 << 20, ..small() });
    let batches = batches.map(|device| device as Arc<dyn Batches>);
    let options = OpenOptions { batches, collect: false, ..OpenOptions::default() };
    let volume = world.open_with(options).expect("mount");
    let write = |(number, file): (usize, &Vec<u8>)| {
        let name = format!("model {number}");
        let ino = volume.create(1, name.as_bytes(), 0o644, 0, &Caller::default()).expect("create").ino;
        volume.release(ino);
        for (n, part) in file.chunks(MIB).enumerate() {
            volume.write(ino, (n * MIB) as u64, part, false).expect("write");
        }
        volume.sync().expect("sync");
        ino
    };
    let inos: Vec<u64> = files.iter().enumerate().map(write).collect();
    for (ino, file) in inos.into_iter().zip(files) {
        for (n, part) in file.chunks(64 << 10).enumerate() {
            let read = volume.read(ino, (n << 16) as u64, part.len() as u32).expect("read");
            assert!(read == part, "other bytes from {} on", n << 16);
        }
    }
    let stored = volume.usage().stored;
    volume.close().expect("closed");
    stored
}

/// Nineteen runs, and as many that are near to them.
fn files() -> [Vec<u8>; 2] {
    let tensors = [("a", false, weights(1, 8 * MIB, false)), ("b", true, weights(2, 3 * MIB, true))];
    let mut tuned = tensors.clone();
    for (_, wide, bytes) in &mut tuned {
        // The lowest bit of every third number.
        bytes.iter_mut().step_by(if *wide { 12 } else { 6 }).for_each(|byte| *byte ^= 1);
    }
    [safetensors("", &tensors), safetensors("", &tuned)]
}

#[test]
fn what_is_coded_in_batches_takes_what_it_takes_otherwise() {
    let files = files();
    let device = Device::new(usize::MAX, |_| ());
    let alone = stored(&files, None);
    assert!(alone < stored(&files[..1], None) * 3 / 2, "differences are stored as that");
    assert_eq!(stored(&files, Some(device.clone())), alone);
    assert_eq!(device.coded.load(Ordering::SeqCst), 38);
    // One that goes while it is used.
    let device = Device::new(1, |_| ());
    assert_eq!(stored(&files, Some(device.clone())), alone);
    assert!(device.coded.load(Ordering::SeqCst) < 38);
}

#[test]
fn what_a_device_gives_is_decoded_before_it_is_kept() {
    let files = files();
    let wrong = |coded: &mut Vec<Option<Vec<u8>>>| {
        coded.iter_mut().flatten().for_each(|bytes| *bytes.last_mut().expect("some") ^= 1);
    };
    let other = |coded: &mut Vec<Option<Vec<u8>>>| coded.reverse();
    let fewer = |coded: &mut Vec<Option<Vec<u8>>>| coded.clear();
    for spoil in [wrong, other, fewer] {
        let device = Device::new(usize::MAX, spoil);
        // `stored` reads all of it back.
        assert!(stored(&files, Some(device.clone())) > 0);
        assert_eq!(device.coded.load(Ordering::SeqCst), 38);
    }
}
