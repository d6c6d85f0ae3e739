//! Columns for people: each as wide as its widest cell, two spaces between, no trailing blanks.

/// The rows, a line each.
pub(crate) fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The same under a line of headings.
pub(crate) fn with_head<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows);
    align(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_with_their_last_word() {
        let rows = vec![["1".to_owned(), "gw".to_owned()], ["22".to_owned(), String::new()]];
        assert_eq!(with_head(["ID", "NAME"], rows), "ID  NAME\n1   gw\n22\n");
    }
}
