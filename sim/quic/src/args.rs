//! The command line.

use std::ops::Range;

use towline_sim_quic::Prints;

/// What to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) seeds: Range<u64>,
    /// How many at a time.
    pub(crate) jobs: usize,
    /// Whether every seed is run in another process, too.
    pub(crate) check_twice: bool,
    pub(crate) prints: Prints,
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut parsed = Self { seeds: 0..0, jobs, check_twice: false, prints: Prints::Nothing };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seeds" => parsed.seeds = seeds(&args.next().unwrap_or_default())?,
                "--jobs" => {
                    let jobs = args.next().and_then(|jobs| jobs.parse().ok());
                    parsed.jobs = jobs.filter(|jobs| *jobs > 0).ok_or("--jobs takes a number")?;
                }
                "--check-twice" => parsed.check_twice = true,
                "--trace" => parsed.prints = Prints::Events,
                "--packets" => parsed.prints = Prints::Packets,
                "--hash" => parsed.prints = Prints::Hash,
                other => return Err(format!("what is {other:?}?")),
            }
        }
        if parsed.seeds.is_empty() {
            return Err("--seeds takes a range, as in 0..50".to_owned());
        }
        Ok(parsed)
    }
}

fn seeds(range: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{range:?} is no range of seeds, as 0..50 is");
    let (from, to) = range.split_once("..").ok_or_else(wrong)?;
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) => Ok(from..to),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_and_nonsense_is_not() {
        let parse = |line: &str| Args::parse(line.split_whitespace().map(str::to_owned));
        assert_eq!(parse("--seeds 3..9 --jobs 1").unwrap().seeds, 3..9);
        for wrong in ["", "--seeds 9..3", "--seeds 3", "--jobs 0 --seeds 0..1", "--sheds 0..1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
