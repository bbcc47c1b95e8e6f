//! The page of a folder that has none of its own.

use std::fmt::Write;
use std::fs::File;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

/// How many names a page has at most, so that a folder of any size keeps neither the worker nor its memory.
const MOST: usize = 1_000;

/// Lists what is in a folder, `path` being the way to it. Hidden files are left out.
pub fn listing(folder: File, path: &[u8]) -> Result<String, Errno> {
    let mut names = Vec::new();
    let mut is_cut = false;
    for entry in Dir::new(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name.starts_with(b".") {
            continue;
        }
        if names.len() == MOST {
            is_cut = true;
            break;
        }
        let slash: &[u8] = if entry.file_type() == FileType::Directory { b"/" } else { b"" };
        names.push([name, slash].concat());
    }
    names.sort_unstable();
    Ok(page(path, &names, is_cut))
}

fn page(path: &[u8], names: &[Vec<u8>], is_cut: bool) -> String {
    let title = escaped(&[b"/", path].concat());
    let mut page =
        format!("<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n");
    let parent: &[Vec<u8>] = if path.is_empty() { &[] } else { &[b"../".to_vec()] };
    for name in parent.iter().chain(names) {
        // Writing to a String does not fail.
        let _ = writeln!(page, "<li><a href=\"{}\">{}</a></li>", link(name), escaped(name));
    }
    page += "</ul>\n";
    if is_cut {
        let _ = writeln!(page, "<p>There is more: these are {MOST} of the names.</p>");
    }
    page
}

/// Text in a form of which no part is taken for a tag, or for the end of an attribute.
fn escaped(text: &[u8]) -> String {
    let mut escaped = String::new();
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// A name as a relative reference, see [RFC 3986](https://www.rfc-editor.org/rfc/rfc3986). All that could mean something there is
/// encoded, a `:` too, which would make a scheme of what is before it.
fn link(name: &[u8]) -> String {
    let mut link = String::new();
    for &byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => link.push(byte.into()),
            // Writing to a String does not fail.
            _ => drop(write!(link, "%{byte:02X}")),
        }
    }
    link
}
