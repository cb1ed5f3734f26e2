//! Paths, which may hold any bytes, as people can read them and tell them apart.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::html::is_visible;

/// A path or name in characters that can be seen, from which its bytes can be told: a backslash is `\\`, what is no UTF-8
/// `\xff`, what cannot be seen or changes what is around it `\n` or `\u{202e}`, a space that could be overlooked `\u{20}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shown(String);

impl Shown {
    /// Any bytes.
    pub fn new(bytes: &[u8]) -> Shown {
        let mut shown = String::with_capacity(bytes.len());
        for part in bytes.utf8_chunks() {
            let mut chars = part.valid().chars().peekable();
            let mut before = shown.chars().next_back();
            while let Some(c) = chars.next() {
                // Only one between two others is seen for certain.
                let next = chars.peek().copied().or((!part.invalid().is_empty()).then_some('\\'));
                let hidden = c == ' ' && (is_edge(before) || is_edge(next));
                match c {
                    '\\' => shown.push_str("\\\\"),
                    c if hidden => shown.extend(c.escape_unicode()),
                    c if is_visible(c) => shown.push(c),
                    c => shown.extend(c.escape_default()),
                }
                before = Some(c);
            }
            for byte in part.invalid() {
                shown.push_str(&format!("\\x{byte:02x}"));
            }
        }
        Shown(shown)
    }

    /// Its end, where it is longer than `most` characters.
    pub fn shortened(self, most: usize) -> Shown {
        match self.0.char_indices().rev().nth(most) {
            Some((at, _)) => Shown(format!("…{}", &self.0[at..])),
            None => self,
        }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a space beside this could be overlooked.
fn is_edge(beside: Option<char>) -> bool {
    beside.is_none_or(|c| c == ' ' || c == '/' || !is_visible(c))
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> String {
        Shown::new(bytes).to_string()
    }

    /// The bytes again.
    fn bytes(shown: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = shown;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c != '\\' {
                bytes.extend(c.to_string().bytes());
                continue;
            }
            let kind = rest.chars().next().expect("something is escaped");
            rest = &rest[1..];
            match kind {
                'x' => {
                    bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two digits"));
                    rest = &rest[2..];
                }
                'u' => {
                    let (digits, behind) = rest[1..].split_once('}').expect("braces");
                    let number = u32::from_str_radix(digits, 16).expect("digits");
                    bytes.extend(char::from_u32(number).expect("a character").to_string().bytes());
                    rest = behind;
                }
                'n' => bytes.push(b'\n'),
                'r' => bytes.push(b'\r'),
                't' => bytes.push(b'\t'),
                '\\' => bytes.push(b'\\'),
                other => panic!("\\{other}"),
            }
        }
        bytes
    }

    #[test]
    fn usual_names_are_as_they_are() {
        for name in ["/photos/2019/a b.jpg", "/Grüße/日本語.txt", "/it's \"quoted\" & <b>bold</b>"] {
            assert_eq!(shown(name.as_bytes()), name);
        }
    }

    #[test]
    fn hostile_names_are_written_out() {
        assert_eq!(shown(b"/a\xff\nb"), "/a\\xff\\nb");
        assert_eq!(shown("/x\u{202e}gpj.exe".as_bytes()), "/x\\u{202e}gpj.exe");
        assert_eq!(shown(br"/a\xff"), r"/a\\xff");
        assert_eq!(shown(b"/ a  b "), "/\\u{20}a\\u{20}\\u{20}b\\u{20}");
        assert_eq!(shown("e\u{301}".as_bytes()), "e\\u{301}");
        assert_eq!(shown(b"\xf0\x9f\x98"), "\\xf0\\x9f\\x98");
    }

    #[test]
    fn what_is_long_loses_its_beginning() {
        assert_eq!(Shown::new(b"/abcdef").shortened(3).as_str(), "…cdef");
        assert_eq!(Shown::new(b"/abc").shortened(4).as_str(), "/abc");
    }

    proptest! {
        #[test]
        fn the_bytes_can_be_told_from_what_is_shown(
            any in prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes), "[ /\\\\\\nux{}2\u{301}\u{202e}]*".prop_map(String::into_bytes)]
        ) {
            let shown = shown(&any);
            prop_assert!(shown.chars().all(is_visible), "{shown:?}");
            prop_assert!(!shown.contains("  ") && !shown.starts_with(' ') && !shown.ends_with(' '), "{shown:?}");
            prop_assert_eq!(bytes(&shown), any);
        }
    }
}
