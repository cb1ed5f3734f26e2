//! Packs of which one copy of the footer is damaged, or what leads to it: written again from the other. Each lies where the
//! writer puts it: the first copy right behind the last frame, the second and the trailer right behind that.

use std::sync::Arc;

use cairn_format::{Footer, PACK_HEADER_LEN, PackHeader, PackId, TRAILER_LEN, Trailer};
use cairn_store::disk::{Access, DiskFile};
use cairn_store::{PackReader, pack_path};

use super::undo::Side;
use super::{Outcome, Site};
use crate::CheckError;
use crate::examine::Examined;
use crate::report::Done;

pub(super) fn run(site: &mut Site<'_>, found: &mut Examined) -> Result<Outcome, CheckError> {
    let mut outcome = Outcome::AsFound;
    for finding in found.findings.list.iter_mut().filter(|f| f.kind == "footer-copy") {
        let Some(pack) = finding.pack.as_deref().and_then(PackId::parse) else { continue };
        if mend(site, pack)? {
            finding.done(Done::Rewritten);
            site.packs.remove(&pack);
            outcome = Outcome::Changed;
        }
    }
    Ok(outcome)
}

/// Writes what is damaged of a pack's description; whether all of it can be read then.
fn mend(site: &mut Site<'_>, pack: PackId) -> Result<bool, CheckError> {
    let path = pack_path(&pack);
    let io = || CheckError::io(format!("store/{path}"));
    let store = site.store.clone();
    let Ok(reader) = PackReader::open(&*store, pack) else { return Ok(false) };
    let (by_header, by_trailer) = (reader.footer_by_header(), reader.footer_by_trailer());
    let footer = match (by_header, by_trailer) {
        (Ok(footer), Err(_)) | (Err(_), Ok(footer)) => footer,
        _ => return Ok(false),
    };
    let bytes = footer.encode();
    let first = footer.frames.last().map_or(PACK_HEADER_LEN as u64, |f| f.offset + u64::from(f.len));
    let len = bytes.len() as u64;
    let second = first + len;
    let header = PackHeader {
        pack,
        store: footer.store,
        volume: footer.volume,
        kind: footer.kind,
        footer_offset: first,
        footer_len: len as u32,
    };
    let trailer = Trailer { footer_offset: second, footer_len: len as u32 };
    let file = store.open(&path, Access::Write).map_err(io())?;
    let parts = [
        (0, header.encode()),
        (first, bytes.clone()),
        (second, bytes),
        (second + len, trailer.encode(&pack)),
    ];
    for (at, whole) in parts {
        if !holds(&file, at, &whole) {
            site.undo.copy_part(Side::Store, &path, at, whole.len() as u64)?;
            file.write_at(&whole, at).map_err(io())?;
        }
    }
    file.sync().map_err(io())?;
    let end = second + len + TRAILER_LEN as u64;
    if file.len().map_err(io())? > end {
        file.set_len(end).and_then(|()| file.sync()).map_err(io())?;
    }
    Ok(is_whole(&reader, &footer))
}

fn holds(file: &Arc<dyn DiskFile>, at: u64, bytes: &[u8]) -> bool {
    let mut there = vec![0; bytes.len()];
    file.read_exact_at(&mut there, at).is_ok() && there == bytes
}

fn is_whole(reader: &PackReader, footer: &Footer) -> bool {
    let same = |read: Result<Footer, _>| read.is_ok_and(|read: Footer| read == *footer);
    same(reader.footer_by_header()) && same(reader.footer_by_trailer())
}
