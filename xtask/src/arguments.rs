//! The command line, taken apart by hand: xtask compiles before everything else, so it has few
//! dependencies.

use anyhow::{Context, Result, bail};

/// What was typed and not yet understood.
pub(crate) struct Arguments {
    rest: Vec<String>,
}

impl Arguments {
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self { rest: words.into_iter().collect() }
    }

    /// The first word, if it is no option.
    pub(crate) fn verb(&mut self) -> Option<String> {
        let first = self.rest.first()?;
        (!first.starts_with('-')).then(|| self.rest.remove(0))
    }

    /// Whether `--name` was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.rest.len();
        self.rest.retain(|word| word != name);
        self.rest.len() != before
    }

    /// The value of `--name VALUE` or `--name=VALUE`.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>> {
        let prefix = format!("{name}=");
        let Some(at) = self.rest.iter().position(|word| word == name || word.starts_with(&prefix))
        else {
            return Ok(None);
        };
        let word = self.rest.remove(at);
        if let Some(value) = word.strip_prefix(&prefix) {
            return Ok(Some(value.to_owned()));
        }
        if at == self.rest.len() {
            bail!("{name} needs a value");
        }
        Ok(Some(self.rest.remove(at)))
    }

    /// The number behind `--name`.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<usize>> {
        let value = self.value(name)?;
        value
            .map(|text| text.parse().with_context(|| format!("{name} {text}: no number")))
            .transpose()
    }

    /// The cargo profile to build in: `--profile`, or `release`.
    pub(crate) fn profile(&mut self) -> Result<String> {
        Ok(self.value("--profile")?.unwrap_or_else(|| "release".to_owned()))
    }

    /// What is left, for a program that understands it.
    pub(crate) fn into_rest(self) -> Vec<String> {
        self.rest
    }

    /// Refuses what nobody asked for.
    pub(crate) fn finish(self) -> Result<()> {
        if let Some(word) = self.rest.first() {
            bail!("{word}: unknown here");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_in_both_spellings_and_strangers_refused() {
        let words = ["demo-loop", "--runs", "5", "--profile=ci", "--keep-going", "--what"];
        let mut arguments = Arguments::new(words.map(str::to_owned));
        assert_eq!(arguments.verb().as_deref(), Some("demo-loop"));
        assert_eq!(arguments.number("--runs").unwrap(), Some(5));
        assert_eq!(arguments.profile().unwrap(), "ci");
        assert!(arguments.flag("--keep-going"));
        assert!(arguments.finish().is_err());
    }
}
