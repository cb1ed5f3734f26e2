//! Mapped files.

#![expect(unsafe_code, reason = "mapping a file into memory is; nothing here cuts a file that is mapped")]

use std::fs::{self, File};
use std::ptr;
use std::slice;

use cairn_tests::dice::noise;
use cairn_tests::mounted::Mounted;
use rustix::fs::copy_file_range;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

const LENGTH: usize = 1 << 20;

/// Calls `f` with the first `len` bytes of `file`, mapped shared; the file is at least as long.
pub(crate) fn with_mapped<T>(
    file: &File,
    len: usize,
    protection: ProtFlags,
    f: impl FnOnce(&mut [u8]) -> T,
) -> T {
    // SAFETY: a new mapping at an address of the kernel's choice; it lies within the file, which stays as long as it
    // is mapped, and is unmapped only after `f` is done with it. `f` writes only where `protection` allows it.
    unsafe {
        let start = mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0).expect("maps");
        let result = f(slice::from_raw_parts_mut(start.cast(), len));
        if protection.contains(ProtFlags::WRITE) {
            msync(start, len, MsyncFlags::SYNC).expect("synced");
        }
        munmap(start, len).expect("mapped");
        result
    }
}

/// A file of one tensor, of numbers between a half and one.
pub(crate) fn tensor_file(name: &str, elements: usize) -> Vec<u8> {
    let header = format!(
        "{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{elements}],\"data_offsets\":[0,{}]}}}}",
        elements * 4
    );
    let numbers = noise(7, elements * 4).into_iter().enumerate().map(|(at, byte)| match at % 4 {
        3 => 0x3f,
        _ => byte,
    });
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(numbers).collect()
}

#[test]
fn a_mapped_tensor_is_read_here_and_there_and_from_one_end_to_the_other() {
    let m = Mounted::new();
    let bytes = tensor_file("t", 5 << 18);
    fs::write(m.path("f"), &bytes).expect("written");
    m.sync();
    m.remount();
    let file = File::open(m.path("f")).expect("there");
    with_mapped(&file, bytes.len(), ProtFlags::READ, |mapped| {
        for n in 0..2000 {
            let at = n * 7_654_321 % bytes.len();
            assert_eq!(mapped[at], bytes[at], "at {at}");
        }
    });
    drop(file);
    m.remount();
    let file = File::open(m.path("f")).expect("there");
    with_mapped(&file, bytes.len(), ProtFlags::READ, |mapped| assert!(*mapped == bytes[..]));
    drop(file);
    m.finish();
}

#[test]
fn mapped_files_are_read_and_written() {
    let m = Mounted::new();
    let mut bytes = noise(1, LENGTH);
    fs::write(m.path("f"), &bytes).expect("written");
    let file = File::options().read(true).write(true).open(m.path("f")).expect("there");
    with_mapped(&file, LENGTH, ProtFlags::READ, |mapped| assert!(*mapped == bytes[..]));
    m.sync();
    with_mapped(&file, LENGTH, ProtFlags::READ | ProtFlags::WRITE, |mapped| {
        assert!(*mapped == bytes[..]);
        for at in (0..LENGTH).step_by(9973) {
            mapped[at] = !mapped[at];
            bytes[at] = !bytes[at];
        }
    });
    drop(file);
    assert!(fs::read(m.path("f")).expect("there") == bytes);
    m.remount();
    assert!(fs::read(m.path("f")).expect("there") == bytes, "mounted again");
    let file = File::open(m.path("f")).expect("there");
    with_mapped(&file, LENGTH, ProtFlags::READ, |mapped| assert!(*mapped == bytes[..]));
    drop(file);
    m.finish();
}

/// Not the signal that a page without bytes is.
#[test]
fn a_mapped_file_that_has_rotted_reads_right() {
    let m = Mounted::new();
    let bytes = noise(4, LENGTH);
    fs::write(m.path("f"), &bytes).expect("written");
    m.sync();
    m.remount();
    super::heal::flip(&super::heal::pack(m.dir()), 300_000, 60_000);
    let file = File::open(m.path("f")).expect("there");
    with_mapped(&file, LENGTH, ProtFlags::READ, |mapped| assert!(*mapped == bytes[..]));
    drop(file);
    m.finish();
}

#[test]
fn a_copy_has_what_was_stored_through_a_mapping() {
    let m = Mounted::new();
    let mut bytes = noise(2, LENGTH);
    fs::write(m.path("f"), &bytes).expect("written");
    m.sync();
    let source = File::options().read(true).write(true).open(m.path("f")).expect("there");
    let to = File::create_new(m.path("copy")).expect("new");
    with_mapped(&source, LENGTH, ProtFlags::READ | ProtFlags::WRITE, |mapped| {
        for at in (0..LENGTH).step_by(5003) {
            mapped[at] = !mapped[at];
            bytes[at] = !bytes[at];
        }
        // Nothing was synced: the kernel has to write the pages back first.
        let copied = copy_file_range(&source, Some(&mut 0), &to, Some(&mut 0), LENGTH);
        assert_eq!(copied, Ok(LENGTH));
        // What is stored from now on is the source's alone.
        mapped[0] = !mapped[0];
    });
    drop((source, to));
    assert!(fs::read(m.path("copy")).expect("there") == bytes);
    bytes[0] = !bytes[0];
    assert!(fs::read(m.path("f")).expect("there") == bytes);
    m.finish();
}
