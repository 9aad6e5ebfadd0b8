//! As much of RESP as a proxy needs: where a value ends, and what it is made of.

/// A value on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resp {
    /// `$`, `=` and `!`: bytes with a length.
    Bulk(u8, Vec<u8>),
    /// `*`, `%`, `~` and `>`: values with a count, which for a map is that of its pairs.
    Many(u8, Vec<Resp>),
    /// Anything in one line, nulls included.
    Line(Vec<u8>),
}

impl Resp {
    pub(super) fn bulk(text: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(b'$', text.into())
    }

    /// The value that `bytes` begin with, and how long it is; `None` if its end has not arrived.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, body) = (&bytes[..end], end + 2);
        let count = || str::from_utf8(&line[1..]).ok()?.parse::<usize>().ok();
        match (line[0], count()) {
            (kind @ (b'$' | b'=' | b'!'), Some(length)) => {
                let value = bytes.get(body..body + length + 2)?;
                Some((
                    Self::Bulk(kind, value[..length].to_vec()),
                    body + length + 2,
                ))
            }
            (kind @ (b'*' | b'%' | b'~' | b'>'), Some(count)) => {
                let count = if kind == b'%' { 2 * count } else { count };
                let (mut values, mut at) = (Vec::new(), body);
                for _ in 0..count {
                    let (value, length) = Self::parse(&bytes[at..])?;
                    values.push(value);
                    at += length;
                }
                Some((Self::Many(kind, values), at))
            }
            _ => Some((Self::Line(line.to_vec()), body)),
        }
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let mut head = |kind: u8, count: usize| {
            to.push(kind);
            to.extend_from_slice(count.to_string().as_bytes());
            to.extend_from_slice(b"\r\n");
        };
        match self {
            Self::Bulk(kind, bytes) => {
                head(*kind, bytes.len());
                to.extend_from_slice(bytes);
                to.extend_from_slice(b"\r\n");
            }
            Self::Many(kind, values) => {
                head(
                    *kind,
                    if *kind == b'%' {
                        values.len() / 2
                    } else {
                        values.len()
                    },
                );
                for value in values {
                    value.write(to);
                }
            }
            Self::Line(line) => {
                to.extend_from_slice(line);
                to.extend_from_slice(b"\r\n");
            }
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// The words of a request.
    pub(super) fn words(self) -> Vec<Vec<u8>> {
        let word = |value| match value {
            Self::Bulk(_, word) => word,
            other => panic!("a request is made of strings, not of {other:?}"),
        };
        match self {
            Self::Many(b'*', words) => words.into_iter().map(word).collect(),
            other => panic!("a request is an array, not {other:?}"),
        }
    }

    pub(super) fn of_words(words: Vec<Vec<u8>>) -> Self {
        Self::Many(b'*', words.into_iter().map(Self::bulk).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_as_it_was_read_and_ends_at_its_last_byte() {
        let all = "$3\r\na\r\n\r\n*2\r\n:1\r\n*-1\r\n%1\r\n$1\r\nk\r\n_\r\n>2\r\n$1\r\nx\r\n*0\r\n+OK\r\n-ERR no\r\n$-1\r\n";
        let (mut rest, mut seen) = (all.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let (value, length) = Resp::parse(rest).unwrap();
            assert!(
                (0..length).all(|less| Resp::parse(&rest[..less]).is_none()),
                "{value:?} ends later"
            );
            assert_eq!(value.bytes(), rest[..length]);
            rest = &rest[length..];
            seen.push(value);
        }
        assert_eq!(seen.len(), 7);
    }
}
