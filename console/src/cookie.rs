//! Cookies: the session, which scripts can't read, and the theme.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::visit::Theme;

/// The cookie that holds the session.
pub const SESSION: &str = "ledger_session";
pub const THEME: &str = "ledger_theme";
/// A browser keeps the theme for a year.
pub const THEME_SECONDS: i64 = 365 * 24 * 60 * 60;
/// Returns the value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

pub fn theme_of(headers: &HeaderMap) -> Theme {
    Theme::by_name(cookie(headers, THEME).unwrap_or_default())
}

/// How a browser keeps a cookie.
pub struct Kept {
    pub is_secure: bool,
    /// Whether scripts can't read it.
    pub is_hidden: bool,
}

impl Kept {
    /// Returns how a session is kept: over TLS only where the proxy or the settings say that it is there.
    pub fn hidden(is_secure: bool, headers: &HeaderMap) -> Kept {
        let proxied = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        Kept { is_secure: is_secure || proxied, is_hidden: true }
    }
}

/// Returns the header that sets a cookie.
pub fn set(name: &str, value: &str, seconds: i64, kept: Kept) -> HeaderValue {
    let secure = if kept.is_secure { "; Secure" } else { "" };
    let hidden = if kept.is_hidden { "; HttpOnly" } else { "" };
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; SameSite=Lax{hidden}{secure}");
    HeaderValue::from_str(&cookie).expect("a name and letters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers =
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static("a=1; ledger_theme=dark"))]);
        assert_eq!(theme_of(&headers), Theme::Dark);
        assert_eq!(cookie(&headers, "theme"), None);
    }

    #[test]
    fn a_session_is_kept_from_scripts() {
        let kept = set(SESSION, "x", 60, Kept { is_secure: true, is_hidden: true });
        assert_eq!(kept, "ledger_session=x; Path=/; Max-Age=60; SameSite=Lax; HttpOnly; Secure");
    }
}
