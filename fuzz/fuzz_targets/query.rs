//! Query strings: parameters that are read and written again are read the same, and so is any text that is encoded.
#![no_main]

use fanfare::http::query::parameters;
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

fn written(pairs: &[(String, String)]) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

fn read(query: &str) -> Vec<(String, String)> {
    parameters(query).filter_map(|parameter| Some((parameter.name.clone(), parameter.value().ok()?))).collect()
}

fuzz_target!(|query: &str| {
    let pairs = read(query);
    assert!(pairs.len() <= query.split('&').count());
    assert_eq!(read(&written(&pairs)), pairs);

    let text = [(query.to_owned(), query.to_owned())];
    assert_eq!(read(&written(&text)), text);
});
