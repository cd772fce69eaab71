use super::*;

fn parse(line: &str) -> Result<Command, CommandError> {
    let args: Vec<_> =
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
    Command::parse(&args)
}

#[test]
fn every_command_of_the_table_is_found_and_parsed() {
    assert!(commands().is_sorted_by(|a, b| a.name < b.name));
    for spec in commands() {
        assert!(spec.name.len() <= table::NAME_LEN_MAX);
        assert_eq!(Command::known(spec.name.to_uppercase().as_bytes()), Some(spec));
        let args = vec!["1"; usize::from(spec.arity.unsigned_abs()) - 1];
        let line = [&[spec.name], args.as_slice()].concat().join(" ");
        assert_eq!(parse(&line).unwrap().is_write(), spec.write, "{line}");
    }
    assert_eq!(Command::known(b"a name that is longer than any"), None);
    assert_eq!(Command::known(b""), None);
}

#[test]
fn a_transaction_refuses_only_what_redis_refuses_when_queueing() {
    let queued = |args: &[&'static str]| {
        let args: Vec<_> = args.iter().map(|arg| Bytes::from_static(arg.as_bytes())).collect();
        Command::parse_queued(&args)
    };
    assert!(matches!(queued(&["get"]), Err(CommandError::Arity("get"))));
    assert!(matches!(queued(&["tow"]), Err(CommandError::Unknown { .. })));
    assert!(matches!(queued(&["incrby", "k", "x"]), Ok(Command::Failing { .. })));
    assert!(matches!(queued(&["mset", "a", "1", "b"]), Ok(Command::Failing { .. })));
    assert!(matches!(queued(&["get", "k"]), Ok(Command::Get { .. })));
}

#[test]
fn keys_over_the_limit_are_refused_wherever_they_stand() {
    let long = "k".repeat(crate::effects::KEY_LEN_MAX + 1);
    for line in ["get K", "del a K", "mset a 1 K 2", "set K v", "exists K"] {
        let error = parse(&line.replace('K', &long)).unwrap_err();
        assert_eq!(error.to_string(), "ERR a key is longer than 65534 bytes");
    }
    assert!(parse(&format!("mset a {long}")).is_ok(), "a value may be that long");
}

#[test]
fn no_arguments_and_line_breaks_are_errors_of_one_line() {
    assert!(Command::parse(&[]).is_err());
    let args = [Bytes::from_static(b"fo\r\no"), Bytes::from_static(b"\xff\r\n")];
    assert!(!Command::parse(&args).unwrap_err().to_string().contains(['\r', '\n']));
}
