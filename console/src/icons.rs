//! Icons: drawn in lines on 16 by 16, in the colour of the text beside them.

use std::fmt;

use askama::filters::HtmlSafe;

/// An icon as HTML; screen readers skip it.
#[derive(Debug, Clone, Copy)]
pub struct Icon(&'static str);

pub fn icon(name: &str) -> Icon {
    Icon(match name {
        "accounts" => {
            r#"<rect x="2" y="2.5" width="12" height="4" rx="1"/><rect x="2" y="9.5" width="12" height="4" rx="1"/>"#
        }
        "overview" => r#"<path d="M2.5 13.5v-5M6.2 13.5v-9M9.8 13.5V7M13.5 13.5v-11"/>"#,
        "usage" => r#"<path d="M2 12.5 6 8l3 2.5L14 4M10.5 4H14v3.5"/>"#,
        "people" => {
            r#"<circle cx="6" cy="5" r="2.5"/><path d="M1.5 13.5c.4-2.6 2-4 4.5-4s4.1 1.4 4.5 4M10.5 2.8a2.5 2.5 0 0 1 0 4.5M12 9.8c1.4.5 2.3 1.8 2.5 3.7"/>"#
        }
        "limits" => r#"<path d="M2 12a6 6 0 1 1 12 0M8 12l3-4"/>"#,
        "billing" => {
            r#"<rect x="1.5" y="3" width="13" height="10" rx="1.5"/><path d="M1.5 6.5h13M4 10h2.5"/>"#
        }
        "grants" => {
            r#"<path d="M2.5 7.5h11v6h-11zM1.8 4.8h12.4v2.7H1.8zM8 4.8v8.7M8 4.8C5 4.8 4.5 2 6 2s2 2.8 2 2.8S8.5 2 10 2s1 2.8-2 2.8"/>"#
        }
        "history" => r#"<path d="M2.3 6.5A6 6 0 1 1 2 8.5M2 3v3.5h3.5M8 5v3.3l2 1.5"/>"#,
        "messages" => r#"<path d="M2 3h12v8H7.5L4.5 13.5V11H2z"/>"#,
        "free" => r#"<circle cx="8" cy="8" r="6"/><path d="M8 5v6M5 8h6"/>"#,
        "notifications" => {
            r#"<path d="M4 7a4 4 0 0 1 8 0c0 3 1.5 4 1.5 4h-11S4 10 4 7M6.5 13.5c.8.7 2.2.7 3 0"/>"#
        }
        "audit" => r#"<path d="M8 1.8 13 4v4c0 3-2 5.2-5 6.2C5 13.2 3 11 3 8V4zM5.8 8l1.6 1.6L10.3 6.5"/>"#,
        "settings" => {
            r#"<path d="M2 4.5h7M12 4.5h2M2 11.5h2M7 11.5h7"/><circle cx="10.5" cy="4.5" r="1.5"/><circle cx="5.5" cy="11.5" r="1.5"/>"#
        }
        "keys" => r#"<circle cx="5" cy="11" r="3"/><path d="m7.2 8.8 6-6M11 5l2 2"/>"#,
        "cards" => r#"<path d="M2.5 8.5v-6h6l5.5 5.5-6 6z"/><circle cx="5.5" cy="5.5" r=".8"/>"#,
        "codes" => r#"<path d="M2 4h12v2.5a1.5 1.5 0 0 0 0 3V12H2V9.5a1.5 1.5 0 0 0 0-3zM9.5 4v8"/>"#,
        "search" => r#"<circle cx="7" cy="7" r="4.5"/><path d="m10.5 10.5 3.5 3.5"/>"#,
        "menu" => r#"<path d="M2 4h12M2 8h12M2 12h12"/>"#,
        "theme" => r#"<circle cx="8" cy="8" r="6"/><path d="M8 2v12a6 6 0 0 0 0-12" fill="currentColor"/>"#,
        "out" => r#"<path d="M6 2.5H2.5v11H6M10 5l3 3-3 3M13 8H6"/>"#,
        "add" => r#"<path d="M8 3v10M3 8h10"/>"#,
        "next" => r#"<path d="m6 3.5 4.5 4.5L6 12.5"/>"#,
        "warning" => r#"<path d="M8 2 14.5 13.5h-13zM8 6.5v3M8 11.5v.2"/>"#,
        "done" => r#"<path d="m3 8.5 3.2 3.2L13 4.5"/>"#,
        "reset" => r#"<path d="M13.5 8A5.5 5.5 0 1 1 11 3.4M11.3 1.2v2.6H8.7"/>"#,
        "download" => r#"<path d="M8 2v8M4.8 7 8 10.2 11.2 7M2.5 13.5h11"/>"#,
        _ => r#"<circle cx="8" cy="8" r="2"/>"#,
    })
}

impl fmt::Display for Icon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.0;
        write!(
            f,
            r#"<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{shapes}</svg>"#
        )
    }
}

impl HtmlSafe for Icon {}
