//! A stack that all tests share, and a space of its own in it for each test.

mod space;
mod supervisor;
mod swallow;
pub mod wire;

pub use space::TestSpace;
pub use supervisor::{shared_log_folder, shared_stack, supervise_if_started_for_it};
pub use swallow::Swallow;

/// Lets a test program start the stack that all tests share: invoke it once, in the root of each test program that
/// makes a [`TestSpace`].
///
/// Defines a test that does nothing in an ordinary run. A test that needs the stack and finds none starts its own
/// program again to run this test alone, which then runs the stack.
#[macro_export]
macro_rules! shared_test_stack {
    () => {
        #[test]
        #[ignore = "no test: runs the stack that tests share, in a process that the first of them starts"]
        fn shared_test_stack_supervisor() {
            $crate::testing::supervise_if_started_for_it();
        }
    };
}
