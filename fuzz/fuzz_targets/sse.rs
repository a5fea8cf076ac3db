//! The parser of event streams: however a stream is cut into pieces, it has the same events.
#![no_main]

use fanfare::sse::{Item, Parser};
use libfuzzer_sys::fuzz_target;

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Item>, Option<String>) {
    let (mut parser, mut items) = (Parser::default(), Vec::new());
    for piece in pieces {
        parser.feed(piece, |item| items.push(item)).expect("far below the bound");
    }
    (items, parser.last_id().map(str::to_owned))
}

fuzz_target!(|data: &[u8]| {
    let Some((&at, stream)) = data.split_first() else { return };
    let whole = read([stream]);
    assert_eq!(read(stream.chunks(1)), whole, "byte by byte");
    let (left, right) = stream.split_at(usize::from(at) * stream.len() / 256);
    assert_eq!(read([left, right]), whole, "in two pieces");
    for item in &whole.0 {
        if let Item::Event(event) = item {
            assert!(!event.kind.contains(['\r', '\n']) && !event.data.contains('\r'));
            assert!(event.id.as_ref().is_none_or(|id| !id.contains(['\0', '\r', '\n'])));
        }
    }
});
