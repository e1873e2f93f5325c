//! What a test is here: a function that may fail, listed under the path of its module.

use libtest_mimic::Failed;

/// What a test returns.
pub type Outcome = Result<(), Failed>;

/// The tests of a module, each named after its function.
macro_rules! trials {
    ($($function:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().split_once("::").map_or("", |(_, module)| module);
            vec![$(libtest_mimic::Trial::test(format!("{module}::{}", stringify!($function)), $function)),*]
        }
    };
}

/// The tests of a folder: those of its modules.
macro_rules! suites {
    ($($module:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            [$($module::trials()),*].into_iter().flatten().collect()
        }
    };
}

pub(crate) use {suites, trials};
