//! The pages of folders that have none of their own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::client::request;
use super::server::{Folder, Server};

/// A folder without `index.html`.
fn bare() -> Folder {
    let folder = Folder::new();
    std::fs::remove_file(folder.root().join("index.html")).unwrap();
    folder
}

/// What is between each `before` and the next `after`.
fn all_between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect()
}

fn links(page: &str) -> Vec<&str> {
    all_between(page, "<a href=\"", "\"")
}

pub fn a_folder_without_a_page_is_listed() {
    let folder = bare();
    for name in ["b", "a", "deeper/page", ".hidden", ".git/config", "paged/index.html", "empty/.keep"] {
        folder.file(name, name.as_bytes());
    }
    let server = Server::start(folder, &[]);
    // The address that the server announces.
    let response = server.get("/");
    assert_eq!((response.status, response.header("content-type")), (200, "text/html; charset=utf-8"));
    let page = String::from_utf8(response.body).unwrap();
    assert_eq!(links(&page), ["a", "b", "deeper/", "empty/", "paged/"]);
    assert!(page.contains("<title>/</title>"), "{page}");
    let page = String::from_utf8(server.get("/deeper/").body).unwrap();
    assert_eq!(links(&page), ["../", "page"]);
    assert!(page.contains("<title>/deeper/</title>"), "{page}");
    assert_eq!(links(&String::from_utf8(server.get("/empty/").body).unwrap()), ["../"]);
    assert_eq!(server.get("/paged/").body, b"paged/index.html");
    assert_eq!(server.get("/.hidden").body, b".hidden");
    assert_eq!(server.get("/deeper").status, 301);

    let mut client = server.connect();
    client.send(request("HEAD", "/")).unwrap();
    assert!(client.receive("HEAD").unwrap().header("content-length").parse::<usize>().unwrap() > 0);
    assert_eq!(client.get("/a").unwrap().body, b"a"); // no body of the other came in between
    server.stop();
}

pub fn a_list_is_made_of_links_to_what_is_there() {
    let folder = bare();
    let names: [&[u8]; 12] = [
        b"<script>alert(1)</script>".as_slice().split(|byte| *byte == b'/').next().unwrap(),
        b"a \"quoted\" & 'odd' name",
        b"javascript:alert(1)",
        b"what?",
        b"#place",
        b"100%25",
        b"two\nlines",
        "grüße".as_bytes(),
        b"\xff\xfe",
        b"back\\slash",
        b"&amp;",
        b"plus+plus",
    ];
    for (number, name) in names.iter().enumerate() {
        std::fs::write(folder.root().join(OsStr::from_bytes(name)), number.to_string()).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", folder.root().join("out")).unwrap();
    folder.file("<b>&/page", b"page");
    let server = Server::start(folder, &[]);
    let page = String::from_utf8(server.get("/").body).unwrap();
    // As a browser takes them, with the tags that are the page's own.
    let mut tags = all_between(&page, "<", ">");
    tags.retain(|tag| !tag.starts_with("a href=\""));
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(
        tags,
        ["!DOCTYPE html", "/a", "/h1", "/li", "/title", "/ul", "h1", "li", "meta charset=\"utf-8\"", "title", "ul"]
    );
    assert!(page.contains(">a &quot;quoted&quot; &amp; &#39;odd&#39; name</a>"), "{page}");
    assert!(page.contains(">&amp;amp;</a>"), "{page}");
    let mut contents = Vec::new();
    for link in links(&page) {
        assert!(link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte)), "{link}");
        let response = server.get(&format!("/{link}"));
        match link {
            "out" => assert_eq!(response.status, 403),
            "%3Cb%3E%26/" => {
                let page = String::from_utf8(response.body).unwrap();
                assert!(page.contains("<h1>/&lt;b&gt;&amp;/</h1>"), "{page}");
            }
            _ => contents.push(String::from_utf8(response.body).unwrap().parse::<usize>().unwrap()),
        }
    }
    contents.sort_unstable();
    assert_eq!(contents, Vec::from_iter(0..names.len()));
    server.stop();
}

pub fn a_huge_folder_is_listed_in_part() {
    let folder = bare();
    (0..1500).for_each(|number| folder.file(&format!("{number}"), b""));
    let server = Server::start(folder, &[]);
    let page = String::from_utf8(server.get("/").body).unwrap();
    assert_eq!(links(&page).len(), 1000);
    assert!(page.contains("There is more"), "{page}");
    server.stop();
}
