//! Mail addresses: the check of their form.

/// Longest address by the mail standards.
const EMAIL_CHARS_MAX: usize = 254;
/// The detail for an invalid address.
pub const NOT_AN_EMAIL: &str = "is like ana@example.com";

/// Checks the form only; the mail server decides whether the address exists.
pub fn is_email(text: &str) -> bool {
    let is_plain =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control());
    let fits = text.chars().count() <= EMAIL_CHARS_MAX && !text.contains([',', '<', '>', ';', '"']);
    let mut parts = text.rsplitn(2, '@');
    let (domain, local) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    fits && is_plain(domain) && is_plain(local) && !local.contains('@')
}
