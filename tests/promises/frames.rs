//! The frames of a journal, as a file has them: length and checksum, then a record.

/// The records of a journal, without its first one.
pub(crate) fn records(journal: &[u8]) -> Vec<String> {
    let mut records = Vec::new();
    let mut rest = &journal[frame_length(journal)..];
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(frame_length(rest));
        records.push(String::from_utf8(frame[8..].to_vec()).unwrap());
        rest = after;
    }
    records
}

/// How long the first frame is.
pub(crate) fn frame_length(frames: &[u8]) -> usize {
    8 + u32::from_le_bytes(frames[..4].try_into().unwrap()) as usize
}

/// A frame with this record, and the right checksum.
pub(crate) fn framed(record: &str) -> Vec<u8> {
    let length = u32::try_from(record.len()).unwrap().to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(record.as_bytes());
    [&length, &hasher.finalize().to_le_bytes(), record.as_bytes()].concat()
}
