//! The layers of the crate: every arrow among its files points down, and none run in a circle.

mod imports;

use std::path::Path;

use imports::{Layers, check_crate, check_sources};

const LAYERS: Layers<'static> = &[&["value"], &["event"], &["account"], &["fold"], &["policy"], &["request"]];

#[test]
fn every_arrow_points_down_the_layers_and_no_files_need_each_other() {
    let faults = check_crate(Path::new(env!("CARGO_MANIFEST_DIR")), LAYERS);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Files as `path: text` lines of a made-up crate with the layers low, then left next to right, then high.
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let files: Vec<_> = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    let layers: Layers<'_> = &[&["low"], &["left", "right"], &["high"]];
    assert_eq!(check_sources(&files, layers), expected, "{files:?}");
}

#[test]
fn an_arrow_up_or_aside_is_a_fault_however_it_is_written() {
    let high = ("high.rs", "pub struct High; pub mod inner { pub fn run() {} }");
    let up = ["low.rs may not import high.rs"];
    for text in [
        "use crate::high::High;",
        "use crate::{\n    // a reason\n    high::{self as upper, High},\n};",
        "use super::high; fn f() { high::inner::run() }",
        "fn f() -> crate::high::High { todo!() }",
        "fn f<'a>(c: char) -> bool { c == '\"' && super::high::is('\\'') }",
        "pub use crate::high::High; pub struct Low(High);",
        "#[cfg(test)] mod tests { use super::*; }\nuse crate::high::High;",
    ] {
        check(&[high, ("low.rs", text)], &up);
    }
    let aside = ["left.rs may not import right/mod.rs"];
    check(&[("left.rs", "use crate::right::Right;"), ("right/mod.rs", "pub struct Right;")], &aside);
}

#[test]
fn what_is_no_import_is_no_fault() {
    let high =
        ("high.rs", "use crate::low::Low; use std::fmt; use serde::{de::Error, Serialize}; pub struct High;");
    for text in [
        "// use crate::high::High;\n/* crate::high */ pub struct Low;",
        "pub struct Low; const TEXT: &str = \"use crate::high::High;\"; const RAW: &str = r#\"\"crate::high::High\"#;",
        "pub struct Low; #[cfg(test)] mod tests { use crate::high::High; } #[cfg(test)] use crate::high::High;",
        "pub struct Low; fn f(x: &str) -> impl Iterator<Item = u8> + use<'_> { x.bytes() }",
    ] {
        check(&[high, ("low.rs", text), ("lib.rs", "pub mod high; mod low; pub use high::High;")], &[]);
    }
}

#[test]
fn a_re_export_leads_to_the_file_that_defines_the_name() {
    let a = ("low/a.rs", "pub struct A;");
    let b = ("low/b.rs", "use super::A; pub struct B(A);");
    check(&[a, b, ("low/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;")], &[]);
    check(&[a, b, ("low/mod.rs", "mod a; mod b; pub use a::*; use b::B; fn f(_: B) {}")], &[]);
    let own =
        ("low/mod.rs", "mod a; mod b; pub use a::A; use b::B; pub const MOST: usize = 1; fn f(_: B) {}");
    let b = ("low/b.rs", "use super::{A, MOST}; pub struct B(A);");
    check(&[a, b, own], &["loop of 2 files: low/mod.rs, low/b.rs"]);
}

#[test]
fn files_that_need_each_other_are_a_loop() {
    let a = ("low/a.rs", "use super::b::B; pub struct A;");
    let b = ("low/b.rs", "pub struct B; fn f() { crate::low::c::run() }");
    let c = ("low/c.rs", "use crate::low::a; pub fn run() { let _ = a::A; }");
    let all = ("low/mod.rs", "pub mod a; pub mod b; pub mod c;");
    check(&[a, b, c, all], &["loop of 3 files: low/a.rs, low/b.rs, low/c.rs"]);
    check(&[a, b, all], &[]);
    check(&[("other.rs", "")], &["other.rs is in no layer"]);
}
