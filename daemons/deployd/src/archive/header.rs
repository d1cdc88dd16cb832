//! Reads the members of a tar archive: ustar, GNU and pax names, everything else refused.
//!
//! The headers that carry long names are read here and not by the `tar` crate, which would put as
//! much of them into memory as they claim to hold.

use super::ArchiveError;
use std::io::Read;

/// Longest name and longest set of pax records in bytes. Linux takes paths of 4,096 bytes.
const MAX_EXTENSION: u64 = 64 * 1024;

/// What a member is.
pub(super) enum Kind {
    File,
    Directory,
    /// With its target as written.
    Symlink(Vec<u8>),
    /// With the name of the member that it is another name of.
    HardLink(Vec<u8>),
}

/// A member of the archive.
pub(super) struct Member<R> {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) content: R,
}

/// The members of an archive, in order.
pub(super) struct Members<'a, R: Read> {
    entries: tar::Entries<'a, R>,
    seen_any: bool,
}

/// What extension headers say about the member that follows.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a, R: Read> Members<'a, R> {
    pub(super) fn new(archive: &'a mut tar::Archive<R>) -> Result<Self, ArchiveError> {
        let entries = archive.entries().map_err(ArchiveError::io)?.raw(true);
        Ok(Self {
            entries,
            seen_any: false,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Member<impl Read + use<'a, R>>>, ArchiveError> {
        let mut extension = Extension::default();
        // At most one of each kind belongs to a member; a chain of them is no archive.
        for _ in 0..8 {
            let Some(entry) = self.entries.next() else {
                return Ok(None);
            };
            let mut entry = entry.map_err(|error| self.broken(&error))?;
            self.seen_any = true;
            let header = entry.header().clone();
            match header.entry_type().as_byte() {
                b'L' => extension.name = Some(until_nul(read_extension(&mut entry)?)),
                b'K' => extension.link = Some(until_nul(read_extension(&mut entry)?)),
                b'x' => read_pax(&read_extension(&mut entry)?, &mut extension, false)?,
                b'g' => read_pax(
                    &read_extension(&mut entry)?,
                    &mut Extension::default(),
                    true,
                )?,
                _ => return member(entry, &header, extension).map(Some),
            }
        }
        Err(ArchiveError::Broken(
            "it has headers that belong to no entry".to_owned(),
        ))
    }

    fn broken(&self, error: &std::io::Error) -> ArchiveError {
        ArchiveError::Broken(if self.seen_any {
            error.to_string()
        } else {
            "it is no tar archive".to_owned()
        })
    }
}

fn member<'a, R: Read>(
    content: tar::Entry<'a, R>,
    header: &tar::Header,
    extension: Extension,
) -> Result<Member<tar::Entry<'a, R>>, ArchiveError> {
    let name = extension
        .name
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let refuse = |why: &str| Err(ArchiveError::entry(&name, why));
    let size = content.size();
    if extension.size.is_some_and(|stated| stated != size) {
        return refuse("has two different sizes");
    }
    let link = || {
        let link = extension
            .link
            .clone()
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        link.filter(|link| !link.is_empty())
            .ok_or_else(|| ArchiveError::entry(&name, "is a link without a target"))
    };
    let kind = match header.entry_type().as_byte() {
        // Archives older than ustar mark directories by their name.
        b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'5' => Kind::Directory,
        b'2' => Kind::Symlink(link()?),
        b'1' => Kind::HardLink(link()?),
        b'3' | b'4' => return refuse("is a device"),
        b'6' => return refuse("is a named pipe"),
        b'S' => return refuse("is a sparse file; make the archive without --sparse"),
        _ => return refuse("is of an unknown kind"),
    };
    if size > 0 && !matches!(kind, Kind::File) {
        return refuse("is no file and has content");
    }
    Ok(Member {
        mode: header.mode().unwrap_or(0o644),
        name,
        kind,
        size,
        content,
    })
}

fn read_extension(entry: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry
        .take(MAX_EXTENSION + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ArchiveError::Broken(error.to_string()))?;
    if bytes.len() as u64 > MAX_EXTENSION {
        return Err(ArchiveError::Broken(format!(
            "it has an extended header of more than {MAX_EXTENSION} bytes"
        )));
    }
    Ok(bytes)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn read_pax(bytes: &[u8], into: &mut Extension, is_global: bool) -> Result<(), ArchiveError> {
    let broken = |why: &str| ArchiveError::Broken(format!("its pax header {why}"));
    for record in tar::PaxExtensions::new(bytes) {
        let record = record.map_err(|_| broken("cannot be read"))?;
        let value = record.value_bytes();
        let key = record.key_bytes();
        if is_global && matches!(key, b"path" | b"linkpath" | b"size") {
            return Err(broken("names every entry the same"));
        }
        match key {
            b"path" | b"linkpath" if value.contains(&0) => {
                return Err(broken("has a name with a NUL byte"));
            }
            b"path" => into.name = Some(value.to_vec()),
            b"linkpath" => into.link = Some(value.to_vec()),
            b"size" => {
                let text = std::str::from_utf8(value).ok();
                let size = text.and_then(|text| text.parse().ok());
                into.size = Some(size.ok_or_else(|| broken("has a size that is no number"))?);
            }
            _ if key.starts_with(b"GNU.sparse") => {
                return Err(broken(
                    "describes a sparse file; make the archive without --sparse",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
