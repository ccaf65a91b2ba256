//! Assets: the stylesheet and the script, under names that change with their content.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::api::Failure;

/// A browser never asks again: another content has another name.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Bytes of a hash in a name.
const HASH_BYTES: usize = 6;

/// A file that pages load.
struct Asset {
    /// Its name in the source.
    name: &'static str,
    path: String,
    media_type: &'static str,
    plain: &'static [u8],
    gzipped: Bytes,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        asset("console.css", "text/css; charset=utf-8", include_bytes!("../assets/console.css")),
        asset("console.js", "text/javascript; charset=utf-8", include_bytes!("../assets/console.js")),
        asset("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
    ]
});

fn asset(name: &'static str, media_type: &'static str, plain: &'static [u8]) -> Asset {
    let hash = hex::encode(&Sha256::digest(plain)[..HASH_BYTES]);
    let (stem, kind) = name.split_once('.').expect("a name has a kind");
    Asset {
        name,
        path: format!("/assets/{stem}.{hash}.{kind}"),
        media_type,
        plain,
        gzipped: gzip(plain, Compression::fast()),
    }
}

/// Returns the address of a file.
pub fn path(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("", |asset| asset.path.as_str())
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

pub fn router() -> Router {
    Router::new().route("/assets/{name}", get(serve))
}

async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    let named = |asset: &&Asset| asset.path.strip_prefix("/assets/") == Some(name.as_str());
    let asset = ASSETS.iter().find(named).ok_or_else(|| Failure::not_found("no file has this name"))?;
    let shared = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        (header::CACHE_CONTROL, FOREVER),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    if takes_gzip(&headers) {
        let gzip = [(header::CONTENT_ENCODING, "gzip")];
        return Ok((shared, gzip, asset.gzipped.clone()).into_response());
    }
    Ok((shared, asset.plain).into_response())
}
