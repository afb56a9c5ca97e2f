//! The coverage-guided fuzzer: libFuzzer around the target that QUORATE_FUZZ_TARGET names.
//!
//! Invariant: it runs exactly the functions that the tests run over the corpora.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use quorate_fuzz::{Target, find};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("QUORATE_FUZZ_TARGET").unwrap_or_default();
    find(&name).unwrap_or_else(|| panic!("QUORATE_FUZZ_TARGET={name:?} names no target"))
});

fuzz_target!(|data: &[u8]| TARGET.run(data));
