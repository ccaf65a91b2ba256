//! Sign-in links: each signs one browser in, once, within minutes. They are kept in this process alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::seal::random_text;

/// How long a link can be used.
const LINK_MAX: Duration = Duration::from_secs(5 * 60);
/// Most links that wait to be used; the program makes one.
const LINKS_MAX: usize = 100;

/// Makes links, and takes them once.
#[derive(Clone, Default)]
pub struct SignInLinks(Arc<Mutex<HashMap<String, Waiting>>>);

struct Waiting {
    key: String,
    until: Instant,
}

impl SignInLinks {
    /// Returns the path that signs in with this key.
    pub fn make(&self, key: &str) -> String {
        let token = random_text() + &random_text();
        let path = format!("/login/once?token={token}");
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, link| now < link.until);
        if waiting.len() < LINKS_MAX {
            waiting.insert(token, Waiting { key: key.to_owned(), until: now + LINK_MAX });
        }
        path
    }

    /// Returns the key of a link that nobody has used, and forgets the link.
    pub(crate) fn take(&self, token: &str) -> Option<String> {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token)?;
        (Instant::now() < link.until).then_some(link.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_signs_in_once() {
        let links = SignInLinks::default();
        let path = links.make("the key");
        let token = path.split_once('=').expect("a token").1;
        assert_eq!(links.take("another"), None);
        assert_eq!(links.take(token).as_deref(), Some("the key"));
        assert_eq!(links.take(token), None);
    }
}
