//! Bytes for the files of a queue on disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::record_file::check(data));
