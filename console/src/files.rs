//! Files: what is compiled in, sent plain or compressed.

use std::io::Write;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, IntoResponseParts, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A file, compressed once per process for many loads.
pub struct File {
    media_type: &'static str,
    pub plain: &'static [u8],
    pub gzipped: Bytes,
}

impl File {
    pub fn new(media_type: &'static str, plain: &'static [u8], level: Compression) -> File {
        File { media_type, plain, gzipped: gzip(plain, level) }
    }

    /// Answers with the file as the caller takes it, and with these headers.
    pub fn answer(&self, headers: &HeaderMap, more: impl IntoResponseParts) -> Response {
        let kind = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.media_type)),
            (header::VARY, HeaderValue::from_static("accept-encoding")),
        ];
        if takes_gzip(headers) {
            let gzip = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
            return (more, kind, gzip, self.gzipped.clone()).into_response();
        }
        (more, kind, self.plain).into_response()
    }
}

pub fn gzip(plain: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), level);
    encoder.write_all(plain).expect("memory takes it");
    encoder.finish().expect("memory takes it").into()
}

/// Returns whether a browser takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|one| one.trim().starts_with("gzip") && !one.contains("q=0"))
    })
}
