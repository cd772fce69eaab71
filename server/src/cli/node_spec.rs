//! A node as a person names it to `towline init`.

use std::str::FromStr;

use towline_protocol::id::NodeId;

/// `NAME=REPL,RESP[,zone=ZONE][,observer]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub repl: String,
    /// Where clients reach it.
    pub resp: String,
    /// Where it stands; empty if nobody said.
    pub zone: String,
    /// Whether it has no vote.
    pub observer: bool,
}

impl FromStr for NodeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once('=').ok_or("write NAME=REPL,RESP")?;
        let node = name.parse().map_err(|error| format!("{error}"))?;
        let mut parts = rest.split(',');
        let mut address = || {
            let text = parts.next().unwrap_or_default();
            let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            match port.map(|(_, port)| port.parse::<u16>()) {
                Some(Ok(1..)) => Ok(text.to_owned()),
                _ => Err(format!("{text:?} is no address: write host:port")),
            }
        };
        let (repl, resp) = (address()?, address()?);
        let mut spec = Self { node, repl, resp, zone: String::new(), observer: false };
        for part in parts {
            match part.split_once('=') {
                None if part == "observer" => spec.observer = true,
                Some(("zone", zone)) => zone.clone_into(&mut spec.zone),
                _ => return Err(format!("{part:?} is neither zone=ZONE nor observer")),
            }
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_with_its_addresses() {
        let spec: NodeSpec = "a=h:1,h:2,zone=dc1,observer".parse().unwrap();
        assert_eq!((spec.repl.as_str(), spec.resp.as_str()), ("h:1", "h:2"));
        assert_eq!((spec.zone.as_str(), spec.observer), ("dc1", true));
        for wrong in ["a", "a=h:1", "a=h,h:2", "A=h:1,h:2", "a=h:1,h:2,x", "a=h:0,h:2", "a=:1,h:2"]
        {
            assert!(wrong.parse::<NodeSpec>().is_err(), "{wrong}");
        }
    }
}
