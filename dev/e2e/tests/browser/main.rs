//! The console in a real browser: headless Chromium, driven through its WebDriver.
//!
//! The tests are ignored where nobody asks for them, because a plain machine has no Chromium. `.ci/run` has:
//! `cargo test --workspace --test browser -- --ignored`.

local_stack::shared_test_stack!();

mod browser;
mod embed;
mod looks;
mod overview;

#[path = "../e2e/console/story.rs"]
mod story;
