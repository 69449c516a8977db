//! Cursors: any text is refused or written as it was.
#![no_main]

use fanwire_protocol::Cursor;
use fanwire_protocol::cursor::Parsed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(Parsed::Cursor(cursor)) = Cursor::parse(text) {
        assert_eq!(cursor.text(), text);
    }
});
