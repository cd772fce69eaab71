//! The text of a write's token: `<log>:<epoch number>.<incarnation>:<lsn>`.

use towline::Token;
use towline_protocol::epoch::Epoch;
use towline_protocol::lsn::Lsn;

/// The token as a client is told it.
#[must_use]
pub fn text(token: Token) -> String {
    format!("{}:{}:{}", token.log, token.epoch, token.end)
}

/// Reads a token back.
#[must_use]
pub fn parse(text: &str) -> Option<Token> {
    let mut parts = text.split(':');
    let (log, epoch, end) = (parts.next()?, parts.next()?, parts.next()?);
    let (number, incarnation) = epoch.split_once('.')?;
    let epoch = Epoch { number: number.parse().ok()?, incarnation: incarnation.parse().ok()? };
    let token = Token { log: log.parse().ok()?, epoch, end: Lsn::new(end.parse().ok()?) };
    parts.next().is_none().then_some(token)
}

#[cfg(test)]
mod tests {
    use towline_protocol::id::{Incarnation, LogId};

    use super::*;

    #[test]
    fn a_token_reads_back_and_garbage_does_not() {
        let epoch = Epoch { number: 3, incarnation: Incarnation(0xabc) };
        let token = Token { log: LogId(0xff), epoch, end: Lsn::new(8_192) };
        assert_eq!(parse(&text(token)), Some(token));
        for garbage in ["", "1:2:3", "x:1.1:1", "1:1.1:-1", "1:1.1:1:1", "1:1.1"] {
            assert_eq!(parse(garbage), None, "{garbage}");
        }
    }
}
