//! The names of files in messages, quoted for a shell the way GNU `wc` quotes them.

/// Quotes a name if a shell would not take it literally, or if it has a `:`, which ends the name in a message.
///
/// A name that has an apostrophe and nothing else of interest goes between `"`. Any other goes between `'`, with `$'…'`
/// around what cannot be printed.
pub fn quoted(name: &[u8]) -> Vec<u8> {
    let pieces = pieces(name);
    if !name.is_empty() && pieces.iter().all(|piece| piece.is_plain) {
        return name.to_vec();
    }
    if name.contains(&b'\'') && pieces.iter().all(|piece| piece.fits_in_double_quotes) {
        return [b"\"", name, b"\""].concat();
    }
    let mut quoted = b"'".to_vec();
    // As it is there: a name with an apostrophe is gone through twice, and the second time begins as the first one ended.
    let mut in_escapes = name.contains(&b'\'') && pieces.last().is_some_and(|piece| piece.escaped.is_some());
    for Piece { bytes, escaped, .. } in pieces {
        match escaped {
            Some(escaped) => {
                if !in_escapes {
                    quoted.extend(b"'$'");
                }
                quoted.extend(escaped.into_bytes());
                in_escapes = true;
            }
            None => {
                // An apostrophe closes the quotes, of whichever kind, by itself.
                if in_escapes && bytes != b"'" {
                    quoted.extend(b"''");
                }
                quoted.extend(if bytes == b"'" { br"'\''" } else { bytes });
                in_escapes = false;
            }
        }
    }
    quoted.push(b'\'');
    quoted
}

/// A character of a name, or a byte that is no part of one.
struct Piece<'a> {
    bytes: &'a [u8],
    /// Whether it needs no quotes.
    is_plain: bool,
    fits_in_double_quotes: bool,
    /// Its substitute, if it cannot be printed.
    escaped: Option<String>,
}

fn pieces(name: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = name;
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let (bytes, more) = rest.split_at(c.len_utf8());
            pieces.push(piece(c, bytes, rest.len() == name.len(), name.len() == 1));
            rest = more;
        }
        for _ in chunk.invalid() {
            let (bytes, more) = rest.split_at(1);
            pieces.push(unprintable(bytes, octal(bytes)));
            rest = more;
        }
    }
    pieces
}

fn piece(c: char, bytes: &[u8], is_first: bool, is_alone: bool) -> Piece<'_> {
    let (is_plain, fits_in_double_quotes) = match c {
        '\n' => return unprintable(bytes, r"\n".to_owned()),
        '\r' => return unprintable(bytes, r"\r".to_owned()),
        '\t' => return unprintable(bytes, r"\t".to_owned()),
        '\x07' => return unprintable(bytes, r"\a".to_owned()),
        '\x08' => return unprintable(bytes, r"\b".to_owned()),
        '\x0b' => return unprintable(bytes, r"\v".to_owned()),
        '\x0c' => return unprintable(bytes, r"\f".to_owned()),
        '\u{2028}' | '\u{2029}' => return unprintable(bytes, octal(bytes)),
        c if c.is_control() => return unprintable(bytes, octal(bytes)),
        '!' | '"' | '$' | '&' | '(' | ')' | '*' | ';' | '<' | '=' | '>' | '?' | '[' | '\\' | '^' | '`' | '|' => {
            (false, false)
        }
        ' ' | '\'' | ':' => (false, true),
        // Special to a shell at the beginning of a word, or as one.
        '#' | '~' => (!is_first, is_first),
        '{' | '}' => (!is_alone, is_alone),
        _ => (true, true),
    };
    Piece { bytes, is_plain, fits_in_double_quotes, escaped: None }
}

fn unprintable(bytes: &[u8], escaped: String) -> Piece<'_> {
    Piece { bytes, is_plain: false, fits_in_double_quotes: false, escaped: Some(escaped) }
}

fn octal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}
