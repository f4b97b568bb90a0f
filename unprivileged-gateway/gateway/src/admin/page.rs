//! The page itself, out of the binary.
//!
//! A pamphlet printed with the machine: what `ui/dist` held at build time is in here, so there is nothing to install and nothing
//! to fetch. Names that carry a hash of their content are kept by browsers for ever; the rest is asked for with its ETag.
//! Weakness: a gateway built without `ui/dist` shows one sentence and the numbers as JSON.

use super::answer::{text, typed};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../ui/dist"]
#[allow_missing = true]
struct Dist;

const FALLBACK: &str = include_str!("fallback.html");
const INDEX: &str = "index.html";

/// A file of the page, or 404. `/` is the index.
pub(super) fn file(uri: &Uri, headers: &HeaderMap) -> Response {
    let name = match uri.path().trim_start_matches('/') {
        "" => INDEX,
        name => name,
    };
    match Dist::get(name) {
        Some(file) => {
            let tag: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            answer(name, &file.data, &format!("\"{tag}\""), headers)
        }
        None if name == INDEX => answer(INDEX, FALLBACK.as_bytes(), "\"fallback\"", headers),
        None => text(
            StatusCode::NOT_FOUND,
            "there is no such page here; the routes of the page are behind #, as in /#/logs",
        ),
    }
}

fn answer(name: &str, bytes: &[u8], tag: &str, headers: &HeaderMap) -> Response {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let fresh = known.flat_map(|value| value.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag);
    let mut response = match fresh {
        true => typed(StatusCode::NOT_MODIFIED, content_type(name), Vec::new()),
        false => typed(StatusCode::OK, content_type(name), bytes.to_vec()),
    };
    let cache = if is_hashed(name) { "private, max-age=31536000, immutable" } else { "no-cache" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, kind)| kind) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json" | "map") => "application/json",
        _ => "application/octet-stream",
    }
}

/// `assets/app-VBWU3ZV2.js`: eight capitals or digits before the dot, as the page's builder writes them.
fn is_hashed(name: &str) -> bool {
    let stem = name.strip_prefix("assets/").and_then(|name| name.split_once('.')).map(|(stem, _)| stem);
    let hash = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_hash_are_kept_for_ever() {
        assert!(is_hashed("assets/app-VBWU3ZV2.js"));
        for name in ["index.html", "assets/app.js", "assets/app-short.js", "app-VBWU3ZV2.js", "assets/app-vbwu3zv2.js"]
        {
            assert!(!is_hashed(name), "{name}");
        }
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let index = file(&Uri::from_static("/"), &HeaderMap::new());
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, index.headers()[header::ETAG].clone());
        assert_eq!(file(&Uri::from_static("/"), &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(file(&Uri::from_static("/../Cargo.toml"), &headers).status(), StatusCode::NOT_FOUND);
    }
}
