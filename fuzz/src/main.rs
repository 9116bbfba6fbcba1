//! The program that libFuzzer drives: one for all targets, so that the instrumented tree is linked once. Which target
//! it is comes from the environment, since libFuzzer takes the arguments for itself; `cargo xtask fuzz` sets it.

#![no_main]

use std::sync::OnceLock;

use weir_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("WEIR_FUZZ_TARGET").expect("WEIR_FUZZ_TARGET names the target");
        let target = weir_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}"));
        let _ = TARGET.set(target);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
