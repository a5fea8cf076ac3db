//! The parser of event streams: however a stream is cut, it says the same; nothing it holds is longer than its bound; and
//! an event that is written again is read again.
#![no_main]

use fanfare::sse::{Event, Item, Parser, TooLong};
use libfuzzer_sys::fuzz_target;

/// The bound: inputs are often longer.
const MAX: usize = 64;

/// The items of a stream that comes in these pieces, and the parser behind it.
fn read<'a>(max: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Item>, Parser, Result<(), TooLong>) {
    let (mut parser, mut items) = (Parser::bounded(max), Vec::new());
    let end = pieces.into_iter().try_for_each(|piece| parser.feed(piece, |item| items.push(item)));
    (items, parser, end)
}

fn length(Event { kind, data, id }: &Event) -> usize {
    // `message` stands for a type that was not given.
    let kind = if kind == "message" { 0 } else { kind.len() };
    kind + data.len() + id.as_ref().map_or(0, String::len)
}

fn written(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        let Item::Event(Event { kind, data, id }) = item else {
            text.push_str(":\n");
            continue;
        };
        text.push_str(&format!("event: {kind}\n"));
        data.split('\n').for_each(|line| text.push_str(&format!("data: {line}\n")));
        id.iter().for_each(|id| text.push_str(&format!("id: {id}\n")));
        text.push('\n');
    }
    text
}

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let (items, parser, end) = read(usize::MAX, [bytes]);
    assert_eq!(end, Ok(()));

    let (left, right) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for (cut_items, cut_parser, _) in [read(usize::MAX, [left, right]), read(usize::MAX, bytes.chunks(1))] {
        assert_eq!(cut_items, items);
        assert_eq!((cut_parser.last_id(), cut_parser.retry()), (parser.last_id(), parser.retry()));
        assert_eq!(cut_parser.is_between_blocks(), parser.is_between_blocks());
    }

    let (bounded, _, end) = read(MAX, bytes.chunks(1 + usize::from(cut)));
    assert!(items.starts_with(&bounded) && (end.is_err() || bounded == items));
    assert!(
        bounded
            .iter()
            .all(|item| matches!(item, Item::Comment) || matches!(item, Item::Event(event) if length(event) <= MAX))
    );

    assert_eq!(read(usize::MAX, [written(&items).as_bytes()]).0, items);
});
