#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| cairn_tests::hostile::run("tensors", input));
