#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsm_fuzz_targets::vpp_definitions(data));
