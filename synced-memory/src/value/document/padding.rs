//! Edits that keep the length of what they change. What a backend stores can be written in the
//! middle as long as nothing behind it moves: so what becomes shorter is filled up with spaces,
//! which mean nothing between the entries of JSON, and what grows again takes them back.
//!
//! No space stands beside a bracket of the root: what is appended must find the end of the last
//! entry there.

use std::ops::Range;

use bytes::Bytes;

use super::Document;
use super::edit::{ByteEdit, Touched, splice};
use super::outline::{Fragment, Outline, RootKind};
use crate::value::mutation::is_space;

/// How many spaces there are in one place at most, in bytes: a look at the entry passes them.
const LONGEST: usize = 1 << 20;

/// So many equal bytes in a row are not sent.
const EQUAL: usize = 32;

impl Document {
    /// Edits that make the same of the value as these, and keep its length where they can. `None`
    /// if more than a quarter of it would be spaces: then it is better stored as a whole.
    pub(crate) fn padded(&self, edits: Vec<ByteEdit>) -> Option<Vec<ByteEdit>> {
        let outline = self.parsed();
        let has_entries = matches!(outline.kind, RootKind::List | RootKind::Object);
        let is_inside = |edit: &ByteEdit| {
            let end = outline.head.len() + outline.body.bytes();
            edit.start >= outline.head.len() && edit.end() <= end
        };
        if !has_entries || outline.has_empty_space() || !edits.iter().all(is_inside) {
            return Some(edits);
        }
        let mut padded = Vec::with_capacity(edits.len());
        let mut spaces = outline.padding;
        // What is before this entry belongs to what was changed before.
        let mut free_from = 0;
        for touched in outline.touched(&edits) {
            if let Some(unit) = outline.kept_in_length(&touched, free_from) {
                if unit.added > LONGEST {
                    return None;
                }
                spaces = spaces + unit.added - unit.before;
                free_from = unit.end;
                padded.extend(unit.edits);
            } else {
                free_from = touched.entries.end;
                padded.extend(touched.edits.into_iter().cloned());
            }
        }
        (spaces <= self.len() / 4).then_some(padded)
    }

    /// How many spaces there are between the entries of the root that need not be there.
    pub(crate) fn padding(&self) -> usize {
        match self.outline() {
            Some(outline) => outline.padding,
            None => 0,
        }
    }

    /// The value without these, as JSON.
    pub(crate) fn compacted(&self) -> String {
        let outline = self.parsed();
        if !matches!(outline.kind, RootKind::List | RootKind::Object) {
            return self.value().as_str().to_owned();
        }
        let [open, close] = outline.kind.brackets().map(char::from);
        let mut value = String::from(open);
        let chunks = outline.body.all_pieces().map(|piece| &piece.chunk);
        let entries = chunks.flat_map(|chunk| (0..chunk.count()).map(|at| chunk.entry_bytes(at)));
        for entry in entries {
            let entry = str::from_utf8(entry).unwrap_or_default();
            value.push_str(entry.trim_matches(is_space));
        }
        value.push(close);
        value
    }
}

/// Entries that keep their length together.
struct Unit {
    edits: Vec<ByteEdit>,
    /// Behind the last of them.
    end: usize,
    /// How many spaces there were in it, and are now.
    before: usize,
    added: usize,
}

impl Outline {
    /// The edits of some entries, so that their length stays. `None` if that cannot be, or they
    /// keep it anyway, or nothing becomes shorter. No entry before `free_from` may be touched.
    fn kept_in_length(&self, touched: &Touched<'_>, free_from: usize) -> Option<Unit> {
        let count = self.body.count();
        let Range {
            start: mut first,
            end,
        } = touched.entries;
        let mut text = self.text_of(first, end);
        let before = text.len();
        let edits: Vec<ByteEdit> = touched.edits.iter().copied().cloned().collect();
        let mut made = Vec::with_capacity(before);
        splice(&text, self.entry_start(first), &edits, &mut made);
        if made.len() == before {
            return None;
        }

        let is_blank = |text: &[u8]| text.iter().all(|byte| is_space(char::from(*byte)));
        if end == count {
            if is_blank(&made) {
                // The entry before it becomes the last one.
                first = first.checked_sub(1).filter(|first| *first >= free_from)?;
                let last = self.text_of(first, touched.entries.start);
                made.clone_from(&last);
                text = [last, text].concat();
            }
        } else if first == 0 && is_blank(&made) {
            return None;
        }
        let trimmed = made.trim_ascii_end().len();
        let room = text.len().checked_sub(trimmed)?;
        if end < count {
            made.truncate(trimmed);
            made.resize(text.len(), b' ');
        } else {
            let entries = Fragment::parse(self.kind, made[..trimmed].to_vec(), first == 0)?;
            let at = *entries.starts.last()?;
            if at == 0 && first == 0 {
                return None;
            }
            let last = made[at..trimmed].to_vec();
            made.truncate(at);
            made.resize(at + room, b' ');
            made.extend_from_slice(&last);
        }
        let before = self.spaces_in(first..end);
        Some(Unit {
            edits: differences(self.entry_start(first), &text, &made),
            end,
            before,
            added: room,
        })
    }

    /// How many spaces are behind an entry.
    fn spaces_of(&self, at: usize) -> usize {
        self.body.find(at).map_or(0, |(place, at)| {
            trailing_spaces(self.body.chunk(place).entry_bytes(at))
        })
    }

    /// How many spaces are behind these entries.
    pub(super) fn spaces_in(&self, entries: Range<usize>) -> usize {
        entries.map(|at| self.spaces_of(at)).sum()
    }

    /// The entries from one up to another one, with all that is around them.
    pub(super) fn text_of(&self, first: usize, end: usize) -> Vec<u8> {
        self.bytes_in(self.entry_start(first)..self.entry_start(end))
    }
}

impl Fragment {
    /// How many spaces are behind its entries.
    pub(super) fn spaces(&self) -> usize {
        let ends = self.starts.iter().skip(1).copied();
        let ends = ends.chain([self.text.len()]);
        let entries = self.starts.iter().zip(ends);
        entries
            .map(|(start, end)| trailing_spaces(&self.text[*start..end]))
            .sum()
    }
}

fn trailing_spaces(entry: &[u8]) -> usize {
    let spaces = entry.iter().rev();
    spaces
        .take_while(|byte| is_space(char::from(**byte)))
        .count()
}

/// What makes one text of another one with the same length, which begins at `offset`.
fn differences(offset: usize, old: &[u8], new: &[u8]) -> Vec<ByteEdit> {
    let mut edits: Vec<Range<usize>> = Vec::new();
    for at in (0..old.len()).filter(|at| old[*at] != new[*at]) {
        match edits.last_mut() {
            Some(last) if at - last.end < EQUAL => last.end = at + 1,
            _ => edits.push(at..at + 1),
        }
    }
    let edits = edits.into_iter().map(|range| ByteEdit {
        start: offset + range.start,
        old_len: range.len(),
        new: Bytes::copy_from_slice(&new[range]),
    });
    edits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Stamp;
    use crate::value::document::length_after;

    fn document(value: &str) -> Document {
        let text = format!(r#"{{"value": {value},"last_modified": 5}}"#);
        Document::of(text.into())
    }

    fn made(document: &Document, edits: &[ByteEdit]) -> Document {
        let length = length_after(document.len(), edits).unwrap();
        document.edited(edits, Stamp::new(5), length).unwrap()
    }

    /// What a replacement of some bytes of the value becomes.
    fn padded(value: &str, old: &str, new: &str) -> Option<String> {
        let document = document(value);
        let start = value.find(old).unwrap() + r#"{"value": "#.len();
        let edit = ByteEdit {
            start,
            old_len: old.len(),
            new: new.to_owned().into(),
        };
        let edits = document.padded(vec![edit])?;
        Some(made(&document, &edits).value().as_str().to_owned())
    }

    /// The entries are among others, so that the spaces are less than a quarter.
    #[test]
    fn what_becomes_shorter_keeps_its_length_and_what_grows_takes_it_back() {
        let others = vec!["1"; 40].join(",");
        for (value, old, new, expected) in [
            // The first entry, one in the middle, and the last one.
            (r#"["aaaa",2,OTHERS]"#, "aaaa", "x", r#"["x"   ,2,OTHERS]"#),
            (r#"[2,"aaaa",OTHERS]"#, "aaaa", "", r#"[2,""    ,OTHERS]"#),
            (r#"[OTHERS,"aaaa"]"#, "aaaa", "xx", r#"[OTHERS  ,"xx"]"#),
            // An entry less.
            (
                r#"["aaaa",22,OTHERS]"#,
                r#""aaaa","#,
                "",
                "[22       ,OTHERS]",
            ),
            (
                r#"[22,"aaaa",OTHERS]"#,
                r#","aaaa""#,
                "",
                "[22       ,OTHERS]",
            ),
            (
                r#"[OTHERS,22,"aaaa"]"#,
                r#","aaaa""#,
                "",
                "[OTHERS       ,22]",
            ),
            // Beside what is blank already.
            ("[22   ,33,OTHERS]", "22   ,", "", "[33      ,OTHERS]"),
            ("[OTHERS   ,22,33]", ",33", "", "[OTHERS      ,22]"),
            ("[22   ,33,OTHERS]", "22", "4444", "[4444 ,33,OTHERS]"),
            ("[22   ,33,OTHERS]", "22", "444444", "[444444   ,33,OTHERS]"),
            // Somewhere in an entry.
            (
                r#"{"k": {"l": [1, 22]},"m": [OTHERS]}"#,
                "22",
                "2",
                r#"{"k": {"l": [1, 2]} ,"m": [OTHERS]}"#,
            ),
            // There is no other entry.
            (r#"["aaaaOTHERS"]"#, "aaaa", "a", r#"["aOTHERS"]"#),
            (r#"["aaaa"]"#, r#""aaaa""#, "", "[]"),
        ] {
            let [value, expected] = [value, expected].map(|text| text.replace("OTHERS", &others));
            assert_eq!(
                padded(&value, old, new),
                Some(expected),
                "{value}: {old} to {new}"
            );
        }
        // More than a quarter.
        assert_eq!(
            padded(&format!("[{},1]", "2".repeat(99)), &"2".repeat(98), ""),
            None
        );
    }

    #[test]
    fn a_long_list_that_is_emptied_from_either_end_is_changed_in_few_bytes() {
        for is_front in [true, false] {
            let items: Vec<_> = (10_000..30_000).map(|n| n.to_string()).collect();
            let mut list = document(&format!("[{}]", items.join(",")));
            let mut left = items.len();
            while let Some(edits) = {
                let at = if is_front { 0 } else { left - 1 };
                let range = list.entry_range(at).unwrap();
                let next = list.entry_range(if is_front { 1 } else { at - 1 }).unwrap();
                let removed = if is_front {
                    range.start..next.start
                } else {
                    next.end..range.end
                };
                list.padded(vec![ByteEdit {
                    start: removed.start,
                    old_len: removed.len(),
                    new: Bytes::new(),
                }])
            } {
                let sent: usize = edits.iter().map(|edit| edit.new.len()).sum();
                assert!(sent < 2 * EQUAL, "{edits:?}");
                let length = list.len();
                list = made(&list, &edits);
                assert_eq!(list.len(), length);
                left -= 1;
            }
            assert!(
                left < 16_000 && list.padding() > list.len() / 4 - 20,
                "{left}"
            );
        }
    }
}
