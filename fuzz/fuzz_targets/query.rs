//! Query strings: as many parameters as there are pairs, and a value that was encoded is read as it was.
#![no_main]

use fanfare::http::query::parameters;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).count();
        assert_eq!(parameters(text).count(), pairs);
        for parameter in parameters(text) {
            let _ = parameter.value();
        }
    }
    let encoded: String = data.iter().map(|byte| format!("%{byte:02X}")).collect();
    let query = format!("a={encoded}");
    let parameter = parameters(&query).next().expect("there is one");
    assert_eq!(parameter.value().ok().as_deref(), std::str::from_utf8(data).ok());
});
