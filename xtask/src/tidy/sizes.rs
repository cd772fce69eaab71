//! How long a file, a function and a line may be.

use super::Violation;
use super::tree::Tree;

/// A file is aimed at 200 lines.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Files stay small enough to be read at one sitting.
pub(super) fn files(tree: &Tree) -> Vec<Violation> {
    tree.rust()
        .map(|(path, file)| (path, file.text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| {
            let message = format!("{lines} lines, of at most {FILE_LINES_MAX}: split the file");
            Violation::new(path, 0, message)
        })
        .collect()
}

/// Functions stay on one screen; tests may tell a longer story.
pub(super) fn functions(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, file) in tree.rust().filter(|(path, _)| !is_test(path)) {
        let lines: Vec<&str> = file.code.lines().collect();
        let tests = test_lines(&lines);
        for (first, line) in lines.iter().enumerate() {
            if tests.contains(&first) || !is_function(line) {
                continue;
            }
            let len = function_len(&lines[first..]);
            if len > FUNCTION_LINES_MAX {
                let message = format!("a function of {len} lines, of at most {FUNCTION_LINES_MAX}");
                violations.push(Violation::new(path, first + 1, message));
            }
        }
    }
    violations
}

/// No line is wider than the page.
pub(super) fn columns(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, file) in tree.rust() {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                let message = format!("{columns} columns, of at most {COLUMNS_MAX}");
                violations.push(Violation::new(path, index + 1, message));
            }
        }
    }
    violations
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/") || path.contains("/benches/")
}

/// The lines of the first inline test module; by the rule of the house it comes last in its file.
fn test_lines(lines: &[&str]) -> std::ops::Range<usize> {
    let starts =
        |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_end().ends_with('{');
    let first = lines.windows(2).position(starts).unwrap_or(lines.len());
    first..lines.len()
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with("fn<"));
    let may_precede = |word: &str| {
        word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word)
    };
    // `pub(in a::b)` and `extern "C"` leave a second word behind.
    words.by_ref().find(|word| !may_precede(word)) == Some("fn")
}

/// The lines from a signature to the brace that closes it: in formatted code, the next line that
/// starts with a brace at the signature's indentation.
fn function_len(lines: &[&str]) -> usize {
    let indentation = lines[0].len() - lines[0].trim_start().len();
    for (index, line) in lines.iter().enumerate() {
        let here = line.len() - line.trim_start().len();
        let code = line.trim();
        let one_liner = index == 0 && (code.ends_with(';') || code.ends_with('}'));
        let ends = here == indentation && index > 0 && code.starts_with('}');
        let declared = here == indentation && code.ends_with(';');
        if one_liner || ends || declared {
            return index + 1;
        }
    }
    lines.len()
}
