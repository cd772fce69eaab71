//! The command line.

/// What was typed and not yet understood.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self(words.into_iter().collect())
    }

    /// The first word; empty if there is none.
    pub(crate) fn verb(&mut self) -> String {
        if self.0.is_empty() { String::new() } else { self.0.remove(0) }
    }

    /// Whether `--name` was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| word != name);
        self.0.len() != before
    }

    /// The value behind `--name`.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.0.iter().position(|word| word == name) else { return Ok(None) };
        if at + 1 == self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        self.0.remove(at);
        Ok(Some(self.0.remove(at)))
    }

    /// The number behind `--name`.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let value = self.value(name)?;
        value.map(|text| text.parse().map_err(|_| format!("{name} {text}: no number"))).transpose()
    }

    /// Refuses what nobody asked for.
    pub(crate) fn finish(self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |word| Err(format!("{word}: unknown here")))
    }
}
