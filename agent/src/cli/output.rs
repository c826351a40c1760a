//! What is printed, and how: tables for people, JSON for programs.
//!
//! Standard output has the answer and nothing else; everything about it goes to standard error.

use std::io::{self, BufWriter, Stdout, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// No column of a table on a terminal is cut below this.
const COLUMN_WIDTH_MIN: usize = 12;
/// Between two columns.
const GAP: &str = "  ";

/// What kind of thing the output goes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    /// Columns of standard output, when it is a terminal.
    pub columns: Option<usize>,
    /// Whether to use colours there.
    pub has_colors: bool,
    /// Whether standard error is a terminal, where progress may be shown.
    pub shows_progress: bool,
}

/// How a document is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// One JSON document; its fields stay as they are from release to release.
    Json,
}

/// Chooses the format.
#[derive(Clone, Copy, Debug, Args)]
pub struct FormatArgs {
    /// Print a table, or one JSON document.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", global = true)]
    pub output: Format,
}

/// Whoever read standard output has seen enough, or it cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader is gone, which is how `| head` ends a command: not an error.
    #[error("nobody reads the output any more")]
    Closed,
    /// The disk is full, or so.
    #[error("cannot write the output: {0}")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// Standard output, buffered.
pub struct Output {
    writer: BufWriter<Stdout>,
    terminal: Terminal,
}

impl Output {
    /// Standard output, of which `terminal` knows what it is.
    pub fn new(terminal: Terminal) -> Self {
        Self { writer: BufWriter::with_capacity(64 * 1024, io::stdout()), terminal }
    }

    /// Writes bytes; they may stay in memory until [`Output::flush`].
    ///
    /// # Errors
    /// Nobody reads them, or they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Hands over what is in memory.
    ///
    /// # Errors
    /// Nobody reads it, or it cannot be written.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        Ok(self.writer.flush()?)
    }

    /// Writes text and hands it over.
    ///
    /// # Errors
    /// Nobody reads it, or it cannot be written.
    pub fn text(&mut self, text: &str) -> Result<(), OutputError> {
        self.write(text.as_bytes())?;
        self.flush()
    }

    /// Writes a table and hands it over.
    ///
    /// # Errors
    /// Nobody reads it, or it cannot be written.
    pub fn table(&mut self, table: &Table) -> Result<(), OutputError> {
        let text = table.render(self.terminal);
        self.text(&text)
    }

    /// Writes a line that says what the table below it is about.
    ///
    /// # Errors
    /// Nobody reads it, or it cannot be written.
    pub fn title(&mut self, text: &str) -> Result<(), OutputError> {
        let line = bold(text, self.terminal) + "\n";
        self.text(&line)
    }

    /// Writes a JSON document: on one line, indented on a terminal.
    ///
    /// # Errors
    /// Nobody reads it, or it cannot be written.
    pub fn document(&mut self, document: &impl Serialize) -> Result<(), OutputError> {
        let json = match self.terminal.columns {
            Some(_) => serde_json::to_vec_pretty(document),
            None => serde_json::to_vec(document),
        };
        self.write(&json.map_err(io::Error::from)?)?;
        self.write(b"\n")?;
        self.flush()
    }

    /// Writes one JSON line, which may stay in memory until [`Output::flush`].
    ///
    /// # Errors
    /// Nobody reads it, or it cannot be written.
    pub fn line(&mut self, line: &impl Serialize) -> Result<(), OutputError> {
        serde_json::to_writer(&mut self.writer, line).map_err(io::Error::from)?;
        self.write(b"\n")
    }
}

fn bold(text: &str, terminal: Terminal) -> String {
    if terminal.has_colors { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// Rows under headings.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns. One whose cells are all numbers is aligned to the right.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a cell for each heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A name with an escape sequence in it must not command the terminal.
        let plain = |cell: String| match cell.contains(char::is_control) {
            true => cell.escape_debug().to_string(),
            false => cell,
        };
        let row: Vec<String> = cells.into_iter().map(plain).collect();
        debug_assert_eq!(row.len(), self.headings.len());
        self.rows.push(row);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, no wider than the terminal as far as columns can be cut.
    pub fn render(&self, terminal: Terminal) -> String {
        let is_none = |cell: &str| cell.is_empty() || cell == "-";
        let is_number = |cell: &str| cell.parse::<f64>().is_ok_and(f64::is_finite);
        let is_right = |at: usize| {
            let mut cells = self.rows.iter().map(|row| row[at].as_str());
            cells.clone().any(is_number) && cells.all(|cell| is_none(cell) || is_number(cell))
        };
        let rights: Vec<bool> = (0..self.headings.len()).map(is_right).collect();
        let widths = self.widths(&rights, terminal.columns);
        let cells = |row: &[&str]| {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let cell = cut(cell, widths[at]);
                let blank = " ".repeat(widths[at].saturating_sub(cell.width()));
                line += if at == 0 { "" } else { GAP };
                line += &if rights[at] { blank + &cell } else { cell + &blank };
            }
            line.trim_end().to_owned()
        };
        let mut text = bold(&cells(&self.headings), terminal) + "\n";
        for row in &self.rows {
            let row: Vec<&str> = row.iter().map(String::as_str).collect();
            text += &cells(&row);
            text.push('\n');
        }
        text
    }

    fn widths(&self, rights: &[bool], columns: Option<usize>) -> Vec<usize> {
        let widest = |at: usize| self.rows.iter().map(|row| row[at].width()).max().unwrap_or(0);
        let headings = self.headings.iter().enumerate();
        let mut widths: Vec<usize> =
            headings.map(|(at, heading)| heading.width().max(widest(at))).collect();
        let Some(columns) = columns else { return widths };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        loop {
            let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(columns);
            // Numbers are never cut: half a number is a wrong one.
            let cuttable = (0..widths.len()).filter(|at| !rights[*at]);
            let longest = cuttable.max_by_key(|at| widths[*at]);
            match longest.filter(|at| COLUMN_WIDTH_MIN < widths[*at]) {
                Some(at) if 0 < over => widths[at] -= 1,
                _ => return widths,
            }
        }
    }
}

/// `text` in at most `width` columns, with a sign where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for char in text.chars() {
        used += char.width().unwrap_or(0);
        if width < used {
            break;
        }
        kept.push(char);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["topic", "partitions"]);
        table.row(["orders".to_owned(), "3".to_owned()]);
        table.row(["größe".to_owned(), "12".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_on_the_right() {
        let text = table().render(Terminal::default());
        assert_eq!(text, "topic   partitions\norders           3\ngröße           12\n");
    }

    #[test]
    fn what_is_no_terminal_gets_no_colours_and_no_cut() {
        let mut table = table();
        table.row(["x".repeat(500), "1".to_owned()]);
        let text = table.render(Terminal::default());
        assert!(text.contains(&"x".repeat(500)) && !text.contains('\x1b'));
    }

    #[test]
    fn a_terminal_cuts_the_widest_words_and_never_a_number() {
        let mut table = Table::new(&["name", "offset"]);
        table.row(["y".repeat(60), "123456789012345".to_owned()]);
        let terminal = Terminal { columns: Some(40), ..Terminal::default() };
        let text = table.render(terminal);
        assert!(text.lines().all(|line| line.width() <= 40), "{text}");
        assert!(text.contains("yyy…  123456789012345"), "{text}");
        let narrow = table.render(Terminal { columns: Some(20), ..Terminal::default() });
        assert!(narrow.contains("yyy…  123456789012345"), "{narrow}");
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        let mut table = Table::new(&["client"]);
        table.row(["\x1b[2J".to_owned()]);
        assert!(!table.render(Terminal::default()).contains('\x1b'));
    }
}
