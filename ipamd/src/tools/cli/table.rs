//! Columns of text: the first is left-aligned, numbers are right-aligned. It does not know what it prints.

use std::fmt;

/// Headings and rows.
#[derive(Debug)]
pub(super) struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heads: &[&str]) -> Self {
        Self {
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a column on the right.
    pub(super) fn column(&mut self, head: &str) {
        self.heads.push(head.to_owned());
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether all cells of a column are numbers (or empty), and so are right-aligned.
    fn figures(&self, column: usize) -> bool {
        let figure = |cell: &String| {
            cell == "-" || cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit())
        };
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        column > 0 && cells.all(figure)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || std::iter::once(&self.heads).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let shapes: Vec<_> = (0..self.heads.len())
            .map(|column| (width(column), self.figures(column)))
            .collect();
        for row in all() {
            let mut line = String::new();
            for (cell, (width, figures)) in row.iter().zip(&shapes) {
                let cell = if *figures {
                    format!("{cell:>width$}  ")
                } else {
                    format!("{cell:<width$}  ")
                };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_aligned_and_text_left_aligned() {
        let mut table = Table::new(&["TYPE", "N", "WHY"]);
        table.row(vec!["m5.large".into(), "29".into(), "×".into()]);
        table.row(vec!["c5".into(), "737".into(), "2 words".into()]);
        assert_eq!(
            table.to_string(),
            "TYPE        N  WHY\nm5.large   29  ×\nc5        737  2 words\n"
        );
    }
}
