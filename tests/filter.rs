//! What a stream gets of what its topics have: patterns, `types=`, `user_id=`; live, replayed, and across a gap.

mod common;

use common::{BROADCAST, EVENTS, Server, Stream, post};

/// Publishes `tick` number `n` with further keys in the envelope; gives the id.
fn tick(server: &Server, topic: &str, n: usize, more: &str) -> String {
    server.publisher().post(&format!("{{\"topic\":\"{topic}\",\"type\":\"tick\",\"data\":{{\"n\":{n}}}{more}}}"))
}

fn resumed(server: &Server, query: &str, id: &str) -> Stream {
    server.stream(&format!("{query}&last_event_id={id}"))
}

#[test]
fn a_pattern_takes_in_topics_that_begin_so_and_those_that_come_later() {
    let server = Server::start(&[]);
    let mut wallets = server.stream("topics=wallets.*");
    let mut deep = server.stream("topics=wallets.eu.*");
    let mut both = server.stream("topics=users,wallets.*,wallets.1,wallets.eu.*,wallets.*");
    let start = tick(&server, "elsewhere", 0, "");
    for (n, topic) in
        ["wallets", "wallets.1", "walletsx", "wallets.eu.2", "users", "wallets.", "users.3", "wallets.1", "all"]
            .into_iter()
            .enumerate()
    {
        tick(&server, topic, n, "");
    }
    assert_eq!(wallets.numbers(3), [1, 3, 7]);
    assert_eq!(deep.numbers(1), [3]);
    assert_eq!(both.numbers(4), [1, 3, 4, 7], "each once, however many patterns it matches");
    for stream in [&mut wallets, &mut deep, &mut both] {
        stream.expect_nothing();
    }
    // The same from the log.
    assert_eq!(resumed(&server, "topics=wallets.*", &start).numbers(3), [1, 3, 7]);
    assert_eq!(resumed(&server, "topics=wallets.eu.*", &start).numbers(1), [3]);
    assert_eq!(resumed(&server, "topics=users,wallets.1,wallets.*", &start).numbers(4), [1, 3, 4, 7]);
    assert_eq!(server.stream("topics=wallets.*&last=2").numbers(2), [3, 7]);
    assert_eq!(server.stream("topics=wallets.*&since=1h").numbers(3), [1, 3, 7]);
}

#[test]
fn types_pick() {
    let server = Server::start(&[]);
    let mut some = server.stream("topics=a&types=x,y&types=x");
    let mut everything = server.stream("types=y");
    let start = tick(&server, "z", 0, "");
    for (topic, kind) in [("a", "x"), ("a", "y"), ("a", "xy"), ("a", "z"), ("b", "y"), ("a", "x")] {
        server.publish(topic, kind, "{}");
    }
    for stream in [&mut some, &mut resumed(&server, "topics=a&types=y,x", &start)] {
        for kind in ["x", "y", "x"] {
            stream.expect(kind);
        }
        stream.expect_nothing();
    }
    for stream in [&mut everything, &mut resumed(&server, "types=y", &start)] {
        for topic in ["a", "b"] {
            assert_eq!(stream.expect("y").json()["topic"], topic);
        }
        stream.expect_nothing();
    }
}

#[test]
fn a_users_events_are_those_that_name_the_user() {
    let server = Server::start(&[]);
    let mut ann = server.stream("topics=w&user_id=ann");
    let mut seven = server.stream("user_id=7&topics=w");
    let mut typed = server.stream("user_id=ann&types=tick");
    let mut all = server.stream("topics=w");
    let start = tick(&server, "z", 0, "");
    for (n, more) in [
        r#","user_id":"ann""#,
        r#","user_id":"bob""#,
        r#","user_ids":["bob","ann","ann",7]"#,
        "",
        r#","user_id":7"#,
        r#","user_id":"an\u006e""#,
        r#","user_id":null,"user_ids":[]"#,
    ]
    .into_iter()
    .enumerate()
    {
        tick(&server, "w", n, more);
    }
    let in_data = |user: &str, more: &str, n: usize| {
        server
            .publisher()
            .post(&format!("{{\"topic\":\"w\",\"type\":\"tick\",\"data\":{{\"user_id\":{user},\"n\":{n}}}{more}}}"));
    };
    in_data("\"ann\"", "", 7);
    in_data("\"ann\"", ",\"user_id\":\"bob\"", 8);
    in_data("null", "", 9);
    in_data("7", "", 10);
    for stream in [&mut ann, &mut typed, &mut resumed(&server, "topics=w&user_id=ann", &start)] {
        assert_eq!(stream.numbers(4), [0, 2, 5, 7]);
        stream.expect_nothing();
    }
    for stream in [&mut seven, &mut resumed(&server, "topics=w&user_id=7", &start)] {
        assert_eq!(stream.numbers(3), [2, 4, 10]);
        stream.expect_nothing();
    }
    assert_eq!(all.numbers(11), (0..11).collect::<Vec<_>>());
    assert_eq!(server.stream("topics=w&user_id=ann&last=2").numbers(2), [5, 7]);
}

#[test]
fn filtered_replays_find_the_few_among_the_many() {
    let server = Server::start(&[]);
    let start = tick(&server, "z", 0, "");
    let mut publisher = server.publisher();
    for round in 0..10 {
        let noise: Vec<String> = (0..500)
            .map(|n| format!("{{\"topic\":\"n.{}\",\"type\":\"noise\",\"data\":{{\"user_id\":\"u{n}\"}}}}", n % 50))
            .collect();
        publisher.post(&format!("[{}]", noise.join(",")));
        publisher
            .post(&format!("{{\"topic\":\"n.x\",\"type\":\"tick\",\"data\":{{\"n\":{round},\"user_id\":\"ann\"}}}}"));
    }
    for query in ["topics=n.*&types=tick", "types=tick&limit=10", "topics=n.x", "topics=n.*&user_id=ann", "user_id=ann"]
    {
        let mut stream = resumed(&server, query, &start);
        assert_eq!(stream.numbers(10), (0..10).collect::<Vec<_>>(), "{query}");
        assert_eq!(server.stream(&format!("{query}&last=3")).numbers(3), [7, 8, 9], "{query}");
    }
    // And the seam behind them holds.
    let mut stream = resumed(&server, "topics=n.*&user_id=ann", &start);
    stream.numbers(10);
    tick(&server, "n.new", 10, r#","user_id":"ann""#);
    assert_eq!(stream.numbers(1), [10]);
}

#[test]
fn a_pattern_is_told_of_what_its_topics_lost_and_of_nothing_else() {
    let server = Server::start(&["--topic-events", "2", "--live-events", "1"]);
    let before = tick(&server, "z", 0, "");
    for n in 1..=5 {
        tick(&server, "a.b", n, "");
    }
    tick(&server, "c.d", 6, "");
    let mut stream = resumed(&server, "topics=a.*", &before);
    assert_eq!(stream.expect("gap").json()["data"]["reason"], "evicted");
    assert_eq!(stream.numbers(2), [4, 5]);
    let mut other = resumed(&server, "topics=c.*", &before);
    assert_eq!(other.numbers(1), [6], "c.* lost nothing");
}

#[test]
fn many_users_on_one_topic_each_get_their_own() {
    let server = Server::start(&[]);
    let mut streams: Vec<Stream> = (0..200).map(|n| server.stream(&format!("topics=w&user_id=u{n}"))).collect();
    let mut publisher = server.publisher();
    for n in 0..200 {
        publisher.post(&format!(
            r#"{{"topic":"w","type":"tick","data":{{"n":{n}}},"user_ids":["u{n}","u{}"]}}"#,
            (n + 1) % 200
        ));
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let mut own = [n, (n + 199) % 200];
        own.sort_unstable();
        assert_eq!(stream.numbers(2), own);
    }
    assert_eq!(server.stat("/streams/delivered"), 400);
}

#[test]
fn what_cannot_be_read_is_named() {
    let server = Server::start(&[]);
    let long = "x".repeat(300);
    let many = vec!["t"; 65].join(",");
    for (query, name) in [
        ("topics=a*".to_owned(), "topics"),
        ("topics=.*".to_owned(), "topics"),
        (format!("types={long}"), "types"),
        ("types=gap".to_owned(), "types"),
        (format!("types={many}"), "types"),
        ("user_id=".to_owned(), "user_id"),
        (format!("user_id={long}"), "user_id"),
    ] {
        let answer = server.get(&format!("{EVENTS}?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.text().contains(&format!("parameter \\\"{name}\\\"")), "{query}: {answer:?}");
    }
    let users: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    for body in [
        r#"{"user_id":{"a":1}}"#.to_owned(),
        r#"{"user_id":true}"#.to_owned(),
        r#"{"user_id":1.5}"#.to_owned(),
        r#"{"user_ids":"ann"}"#.to_owned(),
        r#"{"user_ids":[["ann"]]}"#.to_owned(),
        r#"{"data":{"user_id":[]}}"#.to_owned(),
        format!(r#"{{"user_id":"{long}"}}"#),
        format!(r#"{{"user_ids":[{}]}}"#, users.join(",")),
    ] {
        let answer = server.ask(&post("application/json", &body));
        assert_eq!(answer.status, 400, "{body}: nobody knows whose it is, so nobody gets it: {answer:?}");
        assert!(answer.text().contains("user"), "{answer:?}");
    }
    assert_eq!(server.stat("/events"), 0, "{BROADCAST} took none of them");
}
