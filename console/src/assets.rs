//! Assets: the stylesheet and the script, under names that change with their content.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use flate2::Compression;
use sha2::{Digest, Sha256};

use crate::api::Failure;
use crate::files::File;

/// A browser never asks again: another content has another name.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Bytes of a hash in a name.
const HASH_BYTES: usize = 6;

/// A file that pages load.
struct Asset {
    /// Its name in the source.
    name: &'static str,
    path: String,
    file: File,
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
        file: File::new(media_type, plain, Compression::fast()),
    }
}

/// Returns the address of a file.
pub fn path(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("", |asset| asset.path.as_str())
}

pub fn router() -> Router {
    Router::new().route("/assets/{name}", get(serve))
}

async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    let named = |asset: &&Asset| asset.path.strip_prefix("/assets/") == Some(name.as_str());
    let asset = ASSETS.iter().find(named).ok_or_else(|| Failure::not_found("no file has this name"))?;
    Ok(asset.file.answer(&headers, [(header::CACHE_CONTROL, FOREVER)]))
}
