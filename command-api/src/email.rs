//! Mail addresses: the check of their form.

/// Longest address that mail knows.
const EMAIL_CHARS_MAX: usize = 254;
/// What is said of one that is none.
pub const NOT_AN_EMAIL: &str = "is like ana@example.com";

/// Looks like an address: the mail server knows better, and says so.
pub fn is_email(text: &str) -> bool {
    let is_plain =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control());
    let fits = text.chars().count() <= EMAIL_CHARS_MAX && !text.contains([',', '<', '>', ';', '"']);
    let mut parts = text.rsplitn(2, '@');
    let (domain, local) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    fits && is_plain(domain) && is_plain(local) && !local.contains('@')
}
