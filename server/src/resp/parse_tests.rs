use super::*;

/// Everything a stream of requests gives: the requests, and how it ended.
fn run(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Vec<Vec<Bytes>>, Option<String>) {
    let (mut parser, mut buffer, mut requests) = (Parser::new(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece.as_ref());
        loop {
            match parser.next(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error.to_string())),
            }
        }
    }
    (requests, None)
}

fn bytes_of(requests: &[Vec<Bytes>]) -> Vec<Vec<&[u8]>> {
    requests.iter().map(|args| args.iter().map(|arg| &arg[..]).collect()).collect()
}

#[test]
fn requests_are_the_same_in_one_piece_and_byte_by_byte() {
    let long_line = format!("{}\r\n", "x".repeat(INLINE_LEN_MAX + 2));
    let big = format!("*2\r\n$3\r\nGET\r\n$40000\r\n{}\r\nPING\r\n", "v".repeat(40_000));
    let cases: &[(&str, usize, Option<&str>)] = &[
        ("*1\r\n$4\r\nPING\r\n", 1, None),
        ("*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", 2, None),
        ("PING\r\n\r\nECHO hi\nGET", 2, None),
        ("*0\r\n*-1\r\nPING\r\n", 1, None),
        (&big, 2, None),
        ("*1\r\n$4\r\nPI", 0, None),
        ("*1\r\n:4\r\n", 0, Some("ERR Protocol error: expected '$', got ':'")),
        ("*1\r\n*1\r\n*1\r\n", 0, Some("ERR Protocol error: expected '$', got '*'")),
        ("PING\r\n*x\r\n", 1, Some("ERR Protocol error: invalid multibulk length")),
        ("*1048577\r\n", 0, Some("ERR Protocol error: invalid multibulk length")),
        ("*99999999999999999999\r\n", 0, Some("ERR Protocol error: invalid multibulk length")),
        ("*\r\n", 0, Some("ERR Protocol error: invalid multibulk length")),
        ("*\n", 0, Some("ERR Protocol error: invalid multibulk length")),
        ("*1\n", 0, Some("ERR Protocol error: invalid multibulk length")),
        ("*1\r\n$-1\r\n", 0, Some("ERR Protocol error: invalid bulk length")),
        ("*1\r\n$+4\r\n", 0, Some("ERR Protocol error: invalid bulk length")),
        ("*1\r\n$16777216\r\n", 0, Some("ERR Protocol error: invalid bulk length")),
        ("*1\r\n$2\r\nPING\r\n", 0, Some("ERR Protocol error: invalid bulk length")),
        ("set k \"v\r\n", 0, Some("ERR Protocol error: unbalanced quotes in request")),
        (&long_line, 0, Some("ERR Protocol error: too big inline request")),
    ];
    for (stream, count, error) in cases {
        let whole = run([stream]);
        assert_eq!(whole.0.len(), *count, "{:.60?}", stream);
        assert_eq!(whole.1.as_deref(), *error, "{:.60?}", stream);
        assert_eq!(run(stream.as_bytes().chunks(1)), whole, "{:.60?}", stream);
        assert_eq!(run(stream.as_bytes().chunks(7)), whole, "{:.60?}", stream);
    }
}

#[test]
fn arguments_hold_any_bytes() {
    let (requests, error) = run([b"*2\r\n$4\r\n\r\n\0\xff\r\n$1\r\n \r\n"]);
    assert_eq!(bytes_of(&requests), vec![vec![&b"\r\n\0\xff"[..], &b" "[..]]]);
    assert_eq!(error, None);
}

#[test]
fn a_request_over_the_total_is_refused_before_it_is_held() {
    let mut stream = b"*4\r\n".to_vec();
    for _ in 0..3 {
        stream.extend_from_slice(format!("${MAX_BULK_LEN}\r\n").as_bytes());
        stream.resize(stream.len() + MAX_BULK_LEN, b'v');
        stream.extend_from_slice(b"\r\n");
    }
    let (requests, error) = run(stream.chunks(1 << 20));
    assert!(requests.is_empty());
    assert_eq!(error.as_deref(), Some("ERR Protocol error: too big request"));
}

#[test]
fn garbage_ends_in_an_error_or_waits_and_takes_no_memory() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let alphabet = b"*$:+-0123456789\r\n\"'\\x GETSET\0\xff";
    for _ in 0..2_000 {
        let mut stream = Vec::new();
        for _ in 0..200 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            stream.push(alphabet[seed as usize % alphabet.len()]);
        }
        let whole = run([&stream]);
        assert_eq!(run(stream.chunks(1)), whole);
        let held: usize = whole.0.iter().flatten().map(Bytes::len).sum();
        assert!(held <= stream.len());
    }
}

#[test]
fn a_large_request_is_not_looked_at_twice() {
    // A million empty arguments in small pieces: quadratic work would take minutes.
    let mut stream = format!("*{MAX_ARGS}\r\n").into_bytes();
    for _ in 0..MAX_ARGS {
        stream.extend_from_slice(b"$0\r\n\r\n");
    }
    let (requests, error) = run(stream.chunks(512));
    assert_eq!((requests.len(), error), (1, None));
    assert_eq!(requests[0].len(), MAX_ARGS);
}
