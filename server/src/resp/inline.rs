//! The quoting rules of inline requests.

use bytes::Bytes;

/// Splits a line into arguments: words, `"…"` with escapes, `'…'` with `\'`. `None` if a quote
/// does not end, or ends in the middle of a word.
pub(super) fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(args);
        }
        let mut arg = Vec::new();
        rest = word(rest, &mut arg)?;
        args.push(Bytes::from(arg));
    }
}

/// Reads one argument into `arg`; returns what follows it.
fn word<'line>(mut rest: &'line [u8], arg: &mut Vec<u8>) -> Option<&'line [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [b'"', inner @ ..] => return ended(double_quoted(inner, arg)?),
            [b'\'', inner @ ..] => return ended(single_quoted(inner, arg)?),
            [space, ..] if space.is_ascii_whitespace() || *space == 0 => return Some(&rest[1..]),
            [byte, tail @ ..] => {
                arg.push(*byte);
                rest = tail;
            }
        }
    }
}

/// A closing quote must be followed by a space or nothing.
fn ended(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| byte.is_ascii_whitespace()).then_some(rest)
}

fn double_quoted<'line>(mut rest: &'line [u8], arg: &mut Vec<u8>) -> Option<&'line [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default() as u8;
                arg.push(digit(high) << 4 | digit(low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        }
    }
}

fn single_quoted<'line>(mut rest: &'line [u8], arg: &mut Vec<u8>) -> Option<&'line [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                arg.push(b'\'');
                tail
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                tail
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_follow_the_rules_of_redis() {
        let cases: &[(&str, Option<&[&[u8]]>)] = &[
            ("", Some(&[])),
            ("  ping  ", Some(&[b"ping"])),
            ("set k \"a b\"", Some(&[b"set", b"k", b"a b"])),
            (r#""\x41\n\t\q""#, Some(&[b"A\n\tq"])),
            (r#""\xzz""#, Some(&[b"xzz"])),
            (r"'it\'s' x", Some(&[b"it's", b"x"])),
            ("a\"b\" c", Some(&[b"ab", b"c"])),
            ("\"\"", Some(&[b""])),
            ("\"open", None),
            ("'open", None),
            ("\"a\"b", None),
            ("'a'b", None),
        ];
        for (line, expected) in cases {
            let got = split(line.as_bytes());
            let got: Option<Vec<&[u8]>> =
                got.as_ref().map(|args| args.iter().map(|arg| &arg[..]).collect());
            assert_eq!(got.as_deref(), *expected, "{line:?}");
        }
    }
}
