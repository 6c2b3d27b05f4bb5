//! What is inside a backup: parts one after another, and a manifest at the end that lists them with
//! sizes and digests. Compressed, then sealed; written and read in one pass, in constant memory.
//!
//! ```text
//! name length (2) │ name │ piece length (4) │ piece │ … │ 0 (4)     one part; the last is the manifest
//! ```

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use seal::digest::Sha256;
use seal::{SealedReader, SealedWriter, StreamError};
use serde::{Deserialize, Serialize};
use std::io::{self, BufReader, BufWriter, Read, Write};

/// The layout described above. Another number is another program's.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const CONTEXT: &str = "backup";
const PIECE: usize = 64 * 1024;
/// A manifest is some hundred bytes a part; more than this is no manifest.
const MANIFEST_LIMIT: u64 = 16 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Sqlite,
    Postgres,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The program that wrote it.
    pub feiqian: String,
    pub schema: u32,
    pub engine: Engine,
    /// PostgreSQL's major version: only the same one can read the data.
    pub postgres_major: Option<u32>,
    /// Everything acknowledged before is in it.
    pub began_ms: i64,
    /// Nothing acknowledged after is in it; recovery to a point in time cannot end before.
    pub ended_ms: i64,
    pub parts: Vec<Part>,
    /// Files that an installation needs and this backup does not hold.
    pub not_included: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Stream(StreamError),
    #[error("it is of layout {0}, this program reads {FORMAT}; use the program that wrote it")]
    Layout(u32),
    #[error("its manifest is missing or cannot be read: {0}")]
    Manifest(String),
    #[error("its part {0} is missing")]
    Missing(String),
    #[error("its part {0} is not what the manifest says")]
    Differs(String),
    #[error("its part {0} is not in the manifest")]
    Unlisted(String),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> ArchiveError {
        match StreamError::of(&error) {
            Some(it) => ArchiveError::Stream(it.clone()),
            None => ArchiveError::Io(error),
        }
    }
}

/// Begins a compressed, sealed stream.
pub fn sealing<W: Write>(
    to: W,
    key: &[u8; 32],
    context: &str,
) -> io::Result<GzEncoder<SealedWriter<BufWriter<W>>>> {
    let sealed = SealedWriter::new(BufWriter::new(to), key, context)?;
    Ok(GzEncoder::new(sealed, Compression::fast()))
}

/// Ends it and hands back where it went.
pub fn sealed<W: Write>(stream: GzEncoder<SealedWriter<BufWriter<W>>>) -> io::Result<W> {
    let buffered = stream.finish()?.finish()?;
    buffered.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Opens what [`sealing`] began.
pub fn opening<R: Read>(
    from: R,
    key: &[u8; 32],
    context: &str,
) -> io::Result<GzDecoder<SealedReader<BufReader<R>>>> {
    Ok(GzDecoder::new(SealedReader::new(BufReader::new(from), key, context)?))
}

/// Reads what is left, so that a stream which was cut off or goes on is noticed. Compression ends by
/// itself and would not look.
pub fn opened<R: Read>(stream: GzDecoder<SealedReader<BufReader<R>>>) -> io::Result<()> {
    match io::copy(&mut stream.into_inner(), &mut io::sink())? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, StreamError::Longer)),
    }
}

pub struct ArchiveWriter<W: Write> {
    stream: GzEncoder<SealedWriter<BufWriter<W>>>,
    parts: Vec<Part>,
}

impl<W: Write> ArchiveWriter<W> {
    pub fn new(to: W, key: &[u8; 32]) -> io::Result<ArchiveWriter<W>> {
        Ok(ArchiveWriter { stream: sealing(to, key, CONTEXT)?, parts: Vec::new() })
    }

    /// Adds a part; `progress` hears how many bytes of it are done.
    pub fn add(
        &mut self,
        name: &str,
        from: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let length = u16::try_from(name.len()).map_err(io::Error::other)?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(name.as_bytes())?;
        let (mut piece, mut bytes, mut digest) = (vec![0; PIECE], 0, Sha256::default());
        loop {
            let read = match from.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let head = u32::try_from(read).expect("a piece is 64 KiB at most");
            self.stream.write_all(&head.to_be_bytes())?;
            if read == 0 {
                break;
            }
            self.stream.write_all(&piece[..read])?;
            digest.update(&piece[..read]);
            bytes += u64::from(head);
            progress(bytes);
        }
        self.parts.push(Part { name: name.into(), bytes, sha256: digest.finish_hex() });
        Ok(())
    }

    /// Writes the manifest, with the parts as they were added, and the end.
    pub fn finish(mut self, mut manifest: Manifest) -> io::Result<(W, Manifest)> {
        (manifest.format, manifest.parts) = (FORMAT, std::mem::take(&mut self.parts));
        let text = serde_json::to_vec_pretty(&manifest)?;
        self.add(MANIFEST, &mut text.as_slice(), &mut |_| {})?;
        Ok((sealed(self.stream)?, manifest))
    }
}

/// One part while it is read.
struct PartReader<'a> {
    stream: &'a mut dyn Read,
    left: usize,
    ended: bool,
    bytes: u64,
    digest: Sha256,
}

impl Read for PartReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut head = [0; 4];
            self.stream.read_exact(&mut head)?;
            self.left = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
            self.ended = self.left == 0;
        }
        let most = into.len().min(self.left);
        let read = self.stream.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        self.digest.update(&into[..read]);
        self.bytes += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(read)
    }
}

/// Reads a whole backup. `take` gets every part but the manifest as it comes; nothing of it may be
/// believed before this returns.
pub fn read(
    from: impl Read,
    key: &[u8; 32],
    take: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>,
) -> Result<Manifest, ArchiveError> {
    let mut stream = opening(from, key, CONTEXT)?;
    let mut found = Vec::new();
    let manifest = loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut name = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut name)?;
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        let mut part = PartReader {
            stream: &mut stream,
            left: 0,
            ended: false,
            bytes: 0,
            digest: Sha256::default(),
        };
        if name == MANIFEST {
            let mut text = Vec::new();
            part.take(MANIFEST_LIMIT).read_to_end(&mut text)?;
            break text;
        }
        take(&name, &mut part)?;
        io::copy(&mut part, &mut io::sink())?;
        found.push(Part { name, bytes: part.bytes, sha256: part.digest.finish_hex() });
    };
    // To the end of the compressed text, whose checksum is read with it, then of the sealed one.
    if io::copy(&mut stream, &mut io::sink())? > 0 {
        return Err(ArchiveError::Manifest("something follows it".into()));
    }
    opened(stream)?;
    let manifest = parse(&manifest)?;
    compare(&manifest, &found)?;
    Ok(manifest)
}

fn parse(text: &[u8]) -> Result<Manifest, ArchiveError> {
    #[derive(Deserialize)]
    struct Layout {
        format: u32,
    }
    let unread = |error: serde_json::Error| ArchiveError::Manifest(error.to_string());
    match serde_json::from_slice::<Layout>(text).map_err(unread)?.format {
        FORMAT => serde_json::from_slice(text).map_err(unread),
        other => Err(ArchiveError::Layout(other)),
    }
}

fn compare(manifest: &Manifest, found: &[Part]) -> Result<(), ArchiveError> {
    for part in &manifest.parts {
        match found.iter().find(|it| it.name == part.name) {
            None => return Err(ArchiveError::Missing(part.name.clone())),
            Some(it) if it != part => return Err(ArchiveError::Differs(part.name.clone())),
            Some(_) => {}
        }
    }
    let listed = |it: &&Part| manifest.parts.contains(it);
    match found.iter().find(|it| !listed(it)) {
        Some(it) => Err(ArchiveError::Unlisted(it.name.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [3; 32];

    fn manifest() -> Manifest {
        Manifest {
            format: 0,
            feiqian: "0.0.0".into(),
            schema: 1,
            engine: Engine::Sqlite,
            postgres_major: None,
            began_ms: 1,
            ended_ms: 2,
            parts: vec![],
            not_included: vec![],
        }
    }

    fn written(change: impl FnOnce(&mut ArchiveWriter<Vec<u8>>)) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new(), &KEY).unwrap();
        writer.add("one", &mut [1; 200_000].as_slice(), &mut |_| {}).unwrap();
        writer.add("two", &mut b"".as_slice(), &mut |_| {}).unwrap();
        change(&mut writer);
        writer.finish(manifest()).unwrap().0
    }

    fn told(bytes: &[u8]) -> String {
        read(bytes, &KEY, &mut |_, _| Ok(())).unwrap_err().to_string()
    }

    #[test]
    fn parts_come_back_as_they_were_and_need_not_be_read() {
        let bytes = written(|_| {});
        let mut seen = Vec::new();
        let manifest = read(bytes.as_slice(), &KEY, &mut |name, part| {
            let mut text = Vec::new();
            part.read_to_end(&mut text)?;
            seen.push((name.to_owned(), text));
            Ok(())
        });
        assert_eq!(seen, [("one".into(), vec![1; 200_000]), ("two".into(), vec![])]);
        assert_eq!(manifest.unwrap().parts.len(), 2);
        assert!(read(bytes.as_slice(), &KEY, &mut |_, _| Ok(())).is_ok());
    }

    #[test]
    fn parts_and_manifest_must_agree() {
        let part = |name: &str| Part { name: name.into(), bytes: 0, sha256: String::new() };
        let check = |change: fn(&mut Vec<Part>, Part), words: &str| {
            let said = told(&written(|it| change(&mut it.parts, part("three"))));
            assert!(said.contains(words), "{said}");
        };
        check(|parts, more| parts.push(more), "part three is missing");
        check(|parts, _| drop(parts.pop()), "part two is not in the manifest");
        check(|parts, _| parts[0].sha256.push('0'), "part one is not what the manifest says");
        check(|parts, _| parts[0].bytes += 1, "part one is not what the manifest says");
    }

    #[test]
    fn cut_and_changed_backups_are_refused() {
        let bytes = written(|_| {});
        for cut in [0, 47, 48, 60, bytes.len() / 2, bytes.len() - 1] {
            assert!(read(&bytes[..cut], &KEY, &mut |_, _| Ok(())).is_err(), "{cut}");
        }
        assert!(told(&bytes[..bytes.len() - 1]).contains("cut off"));
        assert!(told(&[bytes.as_slice(), b"x"].concat()).contains("follows"));
    }
}
