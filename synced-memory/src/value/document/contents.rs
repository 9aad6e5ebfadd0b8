//! How an element of a long list is named, without a look at the text of all of them.
//!
//! The name says how many equal elements there are. So each chunk keeps the contents of its
//! elements once they were asked for.

use super::Document;
use super::chunks::{ChunkList, sizes};
use super::outline::RootKind;
use crate::value::envelope::Text;
use crate::value::mutation::{Content, Element};

impl Document {
    /// An element of the root list, as a mutation names it, and its text. `None` if the list is
    /// short: then all of it is looked at.
    pub(crate) fn named_element(&self, index: usize) -> Option<(Element, Text)> {
        if self.len() < sizes().chunk {
            return None;
        }
        let outline = self.parsed();
        if outline.kind != RootKind::List {
            return None;
        }
        let body = &outline.body;
        let content = body.content(index)?;
        let previous = index.checked_sub(1).and_then(|at| body.content(at));
        let beside = [previous, body.content(index + 1)];
        let equal = body.equal_elements(content, index);
        let element = Element::in_long_list((index, body.count()), content, equal, beside)?;
        Some((element, outline.value_at(index)?))
    }
}

impl ChunkList {
    /// The content of an element.
    fn content(&self, index: usize) -> Option<Content> {
        let (place, at) = self.find(index)?;
        self.chunk(place).contents().get(at).copied()
    }

    /// How many elements with this content are before an index, and how many there are.
    pub(super) fn equal_elements(&self, content: Content, index: usize) -> (usize, usize) {
        let equal =
            |contents: &[Content]| contents.iter().filter(|other| **other == content).count();
        let (mut before, mut all, mut first) = (0, 0, 0);
        for piece in self.all_pieces() {
            let contents = piece.chunk.contents();
            let here = equal(&contents);
            all += here;
            before += match index.saturating_sub(first) {
                0 => 0,
                behind if behind >= contents.len() => here,
                inside => equal(&contents[..inside]),
            };
            first += contents.len();
        }
        (before, all)
    }
}
